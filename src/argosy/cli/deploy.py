"""`argosy deploy`: flags or a file become a service; then its transitions are shown until it is ready.

What the flags do not name stays as it is: deploying again with another model makes a new revision and keeps the rest.
"""

from __future__ import annotations

import sys
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from argosy.cli.control_options import ControlUrl, Json, State
from argosy.cli.rollout import is_over, rollout_line
from argosy.cli.service_file import parse_quantity, parse_replicas, parse_services, read_services
from argosy.cli.spec_flags import pairs
from argosy.cli.terminal import console, note, print_json, run_async
from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import ArgosyError, DeadlineExceeded, InvalidRequest, NotFound, SpecError
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    PromotionPolicy,
    RevisionTemplate,
    RolloutPhase,
    ServicePhase,
)
from argosy.core.metadata import Metadata
from argosy.core.model import require_name
from argosy.core.scaling import ScalingMetric
from argosy.core.service_views import Plan

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

_SERVICE, _SCALING, _ROLLOUT = "What runs", "How many", "How it takes over"


def command(
    model: Annotated[str | None, typer.Argument(help="A catalog name, a path, or hf:org/name, pypi:package, …")] = None,
    file: Annotated[
        list[str] | None, typer.Option("--file", "-f", help="YAML with one service or several; - is stdin.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What clients call it. [from the model]", rich_help_panel=_SERVICE)
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="openvino, vllm, transformers or echo.", rich_help_panel=_SERVICE)
    ] = None,
    serve_arg: Annotated[
        list[str] | None,
        typer.Option(help="name=value: a flag of `argosy serve` for each replica.", rich_help_panel=_SERVICE),
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
            help="Percents by which a new revision takes over while its figures hold: 5,25,50,100.",
            rich_help_panel=_ROLLOUT,
        ),
    ] = None,
    promote_interval: Annotated[
        float | None, typer.Option(help="Least seconds on a step. [60]", rich_help_panel=_ROLLOUT)
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
    client = open_client(state, control)
    if file:
        if model is not None:
            raise InvalidRequest("give a model or -f, not both: the file names the model", param="model")
        services = [service for each in file for service in _read(each)]
        run_async(_deploy_files(client, services, dry_run=dry_run, wait_seconds=timeout if wait else None, json=json))
        return
    if model is None:
        raise InvalidRequest("nothing to deploy: name a model, as in `argosy deploy smollm2`, or give -f service.yaml")
    fields: dict[str, Any] = {
        "template": {
            "model": model,
            "engine": engine,
            "adapters": pairs("adapter", adapter) if adapter else None,
            "serve_args": serve_args(serve_arg) if serve_arg else None,
            "resources": {
                "cpu": None if cpu is None else parse_quantity(cpu, "cpu"),
                "memory_bytes": None if memory is None else int(parse_quantity(memory, "memory")),
                "gpus": gpus,
                "gpu_memory_bytes": None if gpu_memory is None else int(parse_quantity(gpu_memory, "gpu-memory")),
            },
        },
        "scaling": {
            **_bounds(replicas),
            "metric": scale_on,
            "target": target,
            "slo": {"ttft_seconds": slo_ttft, "tpot_seconds": slo_tpot},
        },
        "rollout": {"promotion": _promotion(promote, promote_interval)},
        "warm_spares": warm_spares,
    }
    called = require_name(name or service_name(model), "service name")
    run_async(_deploy_flags(client, called, fields, dry_run=dry_run, wait_seconds=timeout if wait else None, json=json))


def service_name(model: str) -> str:
    """What a service of this model is called if nobody says: `hf:org/Name@rev` → `name`, `/models/x.gguf` → `x`."""
    location = model.rpartition(":")[2].partition("@")[0].rstrip("/")
    stem = location.rpartition("/")[2].removesuffix(".gguf")
    return stem.lower()


def _read(source: str) -> list[InferenceService]:
    return parse_services(sys.stdin.buffer.read(), "stdin") if source == "-" else read_services(Path(source))


def _bounds(replicas: str | None) -> dict[str, int]:
    if replicas is None:
        return {}
    least, most = parse_replicas(replicas)
    return {"min_replicas": least, "max_replicas": most}


def _promotion(steps: str | None, interval_seconds: float | None) -> PromotionPolicy | None:
    if steps is None:
        return None
    try:
        percents = tuple(int(step.strip().removesuffix("%")) for step in steps.split(","))
    except ValueError as exc:
        raise InvalidRequest(f"--promote {steps[:64]!r} is no list of percents: write 5,25,50,100") from exc
    policy = PromotionPolicy(steps=percents)
    return policy if interval_seconds is None else msgspec.structs.replace(policy, interval_seconds=interval_seconds)


def serve_args(texts: list[str]) -> dict[str, str | int | float | bool]:
    """Flags of `argosy serve` with typed values: `max-waiting=64` → 64. Raises: InvalidRequest."""
    typed: dict[str, str | int | float | bool] = {}
    for name, text in pairs("serve-arg", texts).items():
        try:
            typed[name] = msgspec.json.decode(text, type=bool | int | float)
        except msgspec.DecodeError:
            typed[name] = text
    return typed


def changed_spec(spec: InferenceServiceSpec | None, fields: dict[str, Any]) -> InferenceServiceSpec:
    """`spec` (or the defaults) with every field that is not None in its place. Pure."""
    start = spec or InferenceServiceSpec(template=RevisionTemplate(model=fields["template"]["model"]))
    return _with(start, fields)


def _with(current: _Struct, fields: dict[str, Any]) -> _Struct:
    changes = {}
    for name, value in fields.items():
        if isinstance(value, dict) and isinstance(getattr(current, name), msgspec.Struct):
            changes[name] = _with(getattr(current, name), value)
        elif value is not None:
            changes[name] = value
    return msgspec.structs.replace(current, **changes)


async def _deploy_flags(
    client: ControlClient, name: str, fields: dict[str, Any], *, dry_run: bool, wait_seconds: float | None, json: bool
) -> None:
    async with client:
        try:
            stored: InferenceService | None = await client.service(name)
        except NotFound:
            stored = None
        spec = changed_spec(stored.spec if stored else None, fields)
        metadata = stored.metadata if stored else Metadata(name=name)
        await _apply(client, InferenceService(metadata=metadata, spec=spec), dry_run, wait_seconds, json=json)


async def _deploy_files(
    client: ControlClient,
    services: list[InferenceService],
    *,
    dry_run: bool,
    wait_seconds: float | None,
    json: bool,
) -> None:
    async with client:
        for service in services:
            try:
                stored = await client.service(service.metadata.name)
                metadata = msgspec.structs.replace(stored.metadata, labels=service.metadata.labels)
                service = msgspec.structs.replace(service, metadata=metadata)
            except NotFound:
                note(f"{service.metadata.name} is new")
            await _apply(client, service, dry_run, wait_seconds, json=json)


async def _apply(
    client: ControlClient, service: InferenceService, dry_run: bool, wait_seconds: float | None, *, json: bool
) -> None:
    name = service.metadata.name
    if dry_run:
        plan = await client.plan(service)
        print_json(plan) if json else _show_plan(plan)
        return
    applied = await client.apply(service)
    if applied.metadata.generation == service.metadata.generation:
        note(f"{name}: nothing changed")
    if wait_seconds is not None:
        applied = await _follow(client, applied, wait_seconds)
    if json:
        print_json(applied)
        return
    console.print(f"{name}: {applied.status.phase.value}. Try: argosy get {name} · argosy why {name}", markup=False)


def _show_plan(plan: Plan) -> None:
    name = plan.service.metadata.name
    for change in plan.changes or (f"{name}: nothing would change",):
        console.print(f"# {change}", markup=False, soft_wrap=True)
    for rendered in plan.rendered:
        console.print(f"---\n{rendered}".rstrip(), markup=False, soft_wrap=True)


async def _follow(client: ControlClient, service: InferenceService, wait_seconds: float) -> InferenceService:
    """Show each transition until the service is ready. Raises: DeadlineExceeded, SpecError with the reason."""
    name, last = service.metadata.name, ""
    try:
        async with aclosing(client.wait_ready(name, timeout_seconds=wait_seconds)) as states:
            async for service in states:
                line = f"{service.status.phase.value:12}{_progress(service)}"
                if line != last:
                    note(line)
                last = line
                if is_over(service) and service.status.rollout.phase is RolloutPhase.ROLLED_BACK:
                    raise SpecError(f"{rollout_line(service)}: see `argosy why {name}`")
    except DeadlineExceeded as exc:
        raise DeadlineExceeded(f"{exc.message}: see `argosy why {name}`") from exc
    if service.status.phase is ServicePhase.FAILED:
        raise _failure(name, await client.why(name))
    return service


def _progress(service: InferenceService) -> str:
    status = service.status
    ready = f"{status.ready_replicas}/{status.desired_replicas} replicas ready"
    message = next((each.message for each in status.conditions if each.type == "Ready"), "")
    return f"{ready}  {message}"


def _failure(name: str, why: Any) -> ArgosyError:
    tail = "".join(f"\n  | {line}" for line in why.log_tail)
    return ArgosyError(f"{name} failed: {why.answer}{tail}\nSee: argosy why {name} · argosy logs {name}")
