"""`argosy scale`: how many replicas a service may have."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from argosy.cli.control_options import ControlUrl, Json, ServiceName, State
from argosy.cli.service_file import parse_replicas
from argosy.cli.terminal import print_json, run_async, say
from argosy.client.control_client import ControlClient, open_client
from argosy.core.inference_service import InferenceServiceSpec


def command(
    name: ServiceName,
    replicas: Annotated[str, typer.Argument(help="A number, or a range such as 1..4; 0..4 may scale to zero.")],
    json: Json = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Set how many replicas a service has, or between how many it scales.

    Examples: argosy scale chat 3 · argosy scale chat 0..4
    """
    least, most = parse_replicas(replicas)
    run_async(_scale(open_client(state, control), name, least, most, json=json))


async def _scale(client: ControlClient, name: str, least: int, most: int, *, json: bool) -> None:
    def scaled(spec: InferenceServiceSpec) -> InferenceServiceSpec:
        scaling = msgspec.structs.replace(spec.scaling, min_replicas=least, max_replicas=most)
        return msgspec.structs.replace(spec, scaling=scaling)

    async with client:
        service = await client.modify(name, scaled)
    if json:
        print_json(service)
        return
    wanted = str(least) if least == most else f"{least} to {most}"
    say(f"{name}: {wanted} {'replica' if most == 1 else 'replicas'} wanted. Follow with: argosy get {name} --watch")
