"""`argosy traffic`: how requests are split over revisions."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
import typer

from argosy.cli.control_options import ControlUrl, Json, ServiceName, State, Weights
from argosy.cli.service_file import parse_weights
from argosy.cli.service_tables import revision_table, traffic_text
from argosy.cli.terminal import console, print_json, run_async, say
from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import InvalidRequest
from argosy.core.inference_service import InferenceServiceSpec


def command(
    name: ServiceName,
    weights: Weights = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="Forget fixed weights: the newest good revision takes all.")
    ] = False,
    json: Json = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Split a service's requests over its revisions; without weights, show the split.

    Examples: argosy traffic chat v1=90 v2=10 · argosy traffic chat --latest
    """
    if weights and latest:
        raise InvalidRequest("--latest and weights exclude each other: give one of them", param="latest")
    wanted = parse_weights(weights) if weights else {}
    client = open_client(state, control)
    run_async(_set(client, name, wanted, json=json) if wanted or latest else _show(client, name, json=json))


async def _show(client: ControlClient, name: str, *, json: bool) -> None:
    async with client:
        service = await client.service(name)
        if json:
            print_json({each.revision: each.weight for each in service.status.revisions})
            return
        console.print(revision_table(service, await client.revisions(name), time.time()))


async def _set(client: ControlClient, name: str, weights: dict[str, int], *, json: bool) -> None:
    def split(spec: InferenceServiceSpec) -> InferenceServiceSpec:
        return msgspec.structs.replace(spec, traffic=weights)

    async with client:
        service = await client.modify(name, split)
    if json:
        print_json(service)
        return
    wanted = " ".join(f"{revision}={weight}" for revision, weight in weights.items()) or "the newest good revision"
    say(f"{name}: traffic to {wanted} (until now: {traffic_text(service)}). Follow with: argosy top")
