"""`argosy deploy`: flags or a file become a service; then its transitions are shown until it is ready.

What the flags do not name stays as it is: deploying again with another model makes a new revision and keeps the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from argosy.cli.control_options import ControlUrl, Json, State
from argosy.cli.service_file import parse_quantity, parse_replicas, parse_services, read_services
from argosy.cli.service_flags import changed_spec, promotion_fields, serve_fields, service_name, without_none
from argosy.cli.service_wait import wait_until_ready
from argosy.cli.spec_flags import pairs
from argosy.cli.terminal import note, print_json, run_async, say
from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import InvalidRequest, NotFound
from argosy.core.inference_service import InferenceService, InferenceServiceSpec
from argosy.core.metadata import Metadata
from argosy.core.model import require_name
from argosy.core.scaling import ScalingMetric
from argosy.core.service_views import Plan

_SERVICE, _SCALING, _ROLLOUT = "What runs", "How many", "How it takes over"


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """One service to be declared. whole: as a file says; else `fields` are laid over what is there."""

    name: str
    whole: InferenceService | None = None
    fields: dict[str, Any]

    def spec(self, stored: InferenceService | None) -> InferenceServiceSpec:
        """What shall be, given what is."""
        start = self.whole or stored
        return changed_spec(start.spec if start else None, self.fields)


def command(
    model: Annotated[str | None, typer.Argument(help="A catalog name, a path, or hf:org/name, pypi:package, …")] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", help="YAML with one service or several; - is stdin. Flags win."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients call it. [from the model]", rich_help_panel=_SERVICE)
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="openvino, vllm, seq2seq, transformers or echo.", rich_help_panel=_SERVICE)
    ] = None,
    serve_arg: Annotated[
        list[str] | None,
        typer.Option(help="name=value: a flag of `argosy serve`, such as max-num-seqs=8.", rich_help_panel=_SERVICE),
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option(help="name=directory of a LoRA adapter.", rich_help_panel=_SERVICE)
    ] = None,
    cpu: Annotated[str | None, typer.Option(help="Cores of one replica: 1, 500m.", rich_help_panel=_SERVICE)] = None,
    memory: Annotated[str | None, typer.Option(help="Memory of one replica: 2Gi.", rich_help_panel=_SERVICE)] = None,
    gpus: Annotated[int | None, typer.Option(help="GPUs of one replica.", rich_help_panel=_SERVICE)] = None,
    gpu_memory: Annotated[
        str | None, typer.Option(help="A share of one GPU instead: 8Gi.", rich_help_panel=_SERVICE)
    ] = None,
    replicas: Annotated[
        str | None, typer.Option(help="A number, or a range: 1..4, 0..4. [1]", rich_help_panel=_SCALING)
    ] = None,
    scale_on: Annotated[
        ScalingMetric | None, typer.Option(help="What the number follows. [slo]", rich_help_panel=_SCALING)
    ] = None,
    target: Annotated[
        float | None, typer.Option(help="The metric's target per replica.", rich_help_panel=_SCALING)
    ] = None,
    slo_ttft: Annotated[
        float | None, typer.Option(help="Seconds to the first token. [1]", rich_help_panel=_SCALING)
    ] = None,
    slo_tpot: Annotated[
        float | None, typer.Option(help="Seconds per further token. [0.1]", rich_help_panel=_SCALING)
    ] = None,
    warm_spares: Annotated[
        int | None, typer.Option(help="Replicas kept loaded and unrouted. [0]", rich_help_panel=_SCALING)
    ] = None,
    promote: Annotated[
        str | None,
        typer.Option(
            help="Percents by which a new revision takes over while its figures hold: 5,25,50,100; off: all at once.",
            rich_help_panel=_ROLLOUT,
        ),
    ] = None,
    promote_interval: Annotated[
        float | None, typer.Option(help="Least seconds on a step. [60]", rich_help_panel=_ROLLOUT)
    ] = None,
    promote_requests: Annotated[
        int | None, typer.Option(help="Answers of the new revision a step needs. [50]", rich_help_panel=_ROLLOUT)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print what would run.", rich_help_panel=_ROLLOUT)
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Show the transitions until ready. [yes]", rich_help_panel=_ROLLOUT)
    ] = True,
    timeout: Annotated[
        float, typer.Option(help="Seconds to wait; exit 3 after them.", rich_help_panel=_ROLLOUT)
    ] = 600.0,
    json: Json = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Declare a service; the control plane makes it so, and keeps it so.

    Examples: argosy deploy smollm2 --replicas 1..4 · argosy deploy -f service.yaml · argosy deploy -f service.yaml
    --dry-run
    """
    fields = without_none(
        {
            "template": {
                "model": model,
                "engine": engine,
                "adapters": pairs("adapter", adapter or []),
                **serve_fields(serve_arg or []),
                "resources": {
                    "cpu": _quantity("cpu", cpu),
                    "memory_bytes": _bytes("memory", memory),
                    "gpus": gpus,
                    "gpu_memory_bytes": _bytes("gpu-memory", gpu_memory),
                },
            },
            "scaling": {
                **_bounds(replicas),
                "metric": scale_on,
                "target": target,
                "slo": {"ttft_seconds": slo_ttft, "tpot_seconds": slo_tpot},
            },
            "warm_spares": warm_spares,
        }
    )
    if rollout := promotion_fields(promote, promote_interval, promote_requests):
        fields["rollout"] = rollout
    wishes = _of_files(file, model, name, fields) if file else [_of_flags(model, name, fields)]
    client = open_client(state, control)
    if dry_run:
        run_async(_plan(client, wishes, json=json))
    else:
        run_async(_deploy(client, wishes, timeout if wait else None, json=json))


def _of_files(sources: list[str], model: str | None, name: str | None, fields: dict[str, Any]) -> list[_Wish]:
    if model is not None:
        raise InvalidRequest("give a model or -f, not both: the file names the model", param="model")
    if name is not None:
        raise InvalidRequest("give --name or -f, not both: the file names the service", param="name")
    services = [service for source in sources for service in _read(source)]
    return [_Wish(name=service.metadata.name, whole=service, fields=fields) for service in services]


def _of_flags(model: str | None, name: str | None, fields: dict[str, Any]) -> _Wish:
    if model is None:
        raise InvalidRequest("nothing to deploy: name a model, as in `argosy deploy smollm2`, or give -f service.yaml")
    return _Wish(name=require_name(name or service_name(model), "service name"), fields=fields)


def _read(source: str) -> list[InferenceService]:
    return parse_services(sys.stdin.buffer.read(), "stdin") if source == "-" else read_services(Path(source))


def _bounds(replicas: str | None) -> dict[str, int]:
    if replicas is None:
        return {}
    least, most = parse_replicas(replicas)
    return {"min_replicas": least, "max_replicas": most}


def _quantity(flag: str, text: str | None) -> float | None:
    return None if text is None else parse_quantity(text, flag)


def _bytes(flag: str, text: str | None) -> int | None:
    return None if text is None else int(parse_quantity(text, flag))


async def _stored(client: ControlClient, name: str) -> InferenceService | None:
    try:
        return await client.service(name)
    except NotFound:
        return None


async def _plan(client: ControlClient, wishes: list[_Wish], *, json: bool) -> None:
    async with client:
        for wish in wishes:
            stored = await _stored(client, wish.name)
            metadata = wish.whole.metadata if wish.whole else Metadata(name=wish.name)
            plan = await client.plan(InferenceService(metadata=metadata, spec=wish.spec(stored)))
            print_json(plan) if json else _show(plan)


def _show(plan: Plan) -> None:
    for change in plan.changes or (f"{plan.service.metadata.name}: nothing would change",):
        say(f"# {change}")
    for rendered in plan.rendered:
        say(f"---\n{rendered}".rstrip())


async def _deploy(client: ControlClient, wishes: list[_Wish], wait_seconds: float | None, *, json: bool) -> None:
    async with client:
        applied = [await _apply(client, wish) for wish in wishes]
        for service in applied:
            if wait_seconds is not None:
                service = await wait_until_ready(client, service, wait_seconds)
            name = service.metadata.name
            if json:
                print_json(service)
            elif wait_seconds is None:
                say(f"{name}: declared. Follow with: argosy get {name} --watch")
            else:
                say(f"{name}: {service.status.phase.value}. Try: argosy get {name} · argosy top")


async def _apply(client: ControlClient, wish: _Wish) -> InferenceService:
    stored = await _stored(client, wish.name)
    if wish.whole is None and stored is not None:
        # Somebody else, or the control plane, may write it at the same time: read, change, write, until it holds.
        applied = await client.modify(wish.name, lambda spec: changed_spec(spec, wish.fields))
    else:
        metadata = wish.whole.metadata if wish.whole else Metadata(name=wish.name)
        applied = await client.apply(InferenceService(metadata=metadata, spec=wish.spec(stored)))
    if stored is not None and stored.metadata.generation == applied.metadata.generation:
        note(f"{wish.name}: nothing changed")
    return applied
