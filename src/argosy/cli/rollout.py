"""`argosy rollout`: how a new revision is getting on, and back to an older one."""

from __future__ import annotations

import time
from contextlib import aclosing
from typing import Annotated

import msgspec
import typer

from argosy.cli.control_options import ControlUrl, Json, ServiceName, State, ToRevision
from argosy.cli.exits import FAILED
from argosy.cli.service_tables import age, revision_table
from argosy.cli.service_wait import is_over, rollout_line
from argosy.cli.terminal import console, print_json, run_async, say
from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import InvalidRequest, NotFound
from argosy.core.inference_service import InferenceService, InferenceServiceSpec, Revision, RolloutPhase

command = typer.Typer(help="Follow a rollout, pause it, or go back to an older revision.", no_args_is_help=True)


@command.command()
def status(
    name: ServiceName,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", help="Wait until it is over. [yes]")] = True,
    json: Json = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """Tell how a rollout is getting on; exit 1 if it was rolled back."""
    phase = run_async(_status(open_client(state, control), name, watch=watch, json=json))
    if phase is RolloutPhase.ROLLED_BACK:
        raise typer.Exit(FAILED)


@command.command()
def history(name: ServiceName, json: Json = False, control: ControlUrl = None, state: State = None) -> None:
    """List a service's revisions."""
    run_async(_history(open_client(state, control), name, json=json))


@command.command()
def undo(
    name: ServiceName, to: ToRevision = None, json: Json = False, control: ControlUrl = None, state: State = None
) -> None:
    """Go back to an older revision. It takes all traffic once it is ready; fixed weights are forgotten."""
    run_async(_undo(open_client(state, control), name, to, json=json))


@command.command()
def pause(name: ServiceName, json: Json = False, control: ControlUrl = None, state: State = None) -> None:
    """Leave a rollout where it is."""
    run_async(_set_paused(open_client(state, control), name, is_paused=True, json=json))


@command.command()
def resume(name: ServiceName, json: Json = False, control: ControlUrl = None, state: State = None) -> None:
    """Let a paused rollout go on."""
    run_async(_set_paused(open_client(state, control), name, is_paused=False, json=json))


async def _status(client: ControlClient, name: str, *, watch: bool, json: bool) -> RolloutPhase:
    async with client:
        service = await client.service(name)
        if json:
            print_json(service.status.rollout)
            return service.status.rollout.phase
        say(rollout_line(service))
        if watch and not is_over(service):
            service = await _followed(client, service)
        return service.status.rollout.phase


async def _followed(client: ControlClient, service: InferenceService) -> InferenceService:
    """Show each step until the rollout is over. Raises: NotFound if the service goes away."""
    name = service.metadata.name
    async with aclosing(client.watch_services()) as changes:
        async for change in changes:
            if change.resource.metadata.name != name:
                continue
            if change.is_deleted:
                raise NotFound(f"service {name!r} was deleted meanwhile: deploy it again with `argosy deploy`")
            line = rollout_line(change.resource)
            if line != rollout_line(service):
                say(line)
            service = change.resource
            if is_over(service):
                break
    return service


async def _history(client: ControlClient, name: str, *, json: bool) -> None:
    async with client:
        service, revisions = await client.service(name), await client.revisions(name)
    if json:
        print_json(revisions)
    else:
        console.print(revision_table(service, revisions, time.time()))


async def _undo(client: ControlClient, name: str, to: str | None, *, json: bool) -> None:
    async with client:
        chosen = revision_before(await client.service(name), await client.revisions(name), to)

        def restored(spec: InferenceServiceSpec) -> InferenceServiceSpec:
            return msgspec.structs.replace(spec, template=chosen.spec.template, traffic={}, paused=False)

        service = await client.modify(name, restored)
    if json:
        print_json(service)
        return
    made = age(time.time() - chosen.metadata.created_at)
    say(f"{name}: back to {chosen.short_name}, made {made} ago. Follow with: argosy rollout status {name}")


def revision_before(service: InferenceService, revisions: list[Revision], to: str | None) -> Revision:
    """The revision to go back to: the one named; else the last good one; else the newest other than the current one.

    Raises: NotFound, InvalidRequest.
    """
    name = service.metadata.name
    newest_first = sorted(revisions, key=lambda each: -each.spec.number)
    if to is not None:
        for revision in newest_first:
            if to in (revision.short_name, revision.metadata.name):
                return revision
        there_are = ", ".join(each.short_name for each in newest_first) or "none"
        raise NotFound(f"service {name!r} has no revision {to!r}: it has {there_are}")
    others = [each for each in newest_first if each.spec.template != service.spec.template]
    for revision in others:
        if revision.short_name == service.status.rollout.stable:
            return revision
    if not others:
        raise InvalidRequest(f"service {name!r} has only one revision: there is nothing to go back to")
    return others[0]


async def _set_paused(client: ControlClient, name: str, *, is_paused: bool, json: bool) -> None:
    def changed(spec: InferenceServiceSpec) -> InferenceServiceSpec:
        return msgspec.structs.replace(spec, paused=is_paused)

    async with client:
        service = await client.modify(name, changed)
    if json:
        print_json(service)
        return
    follow = f"argosy rollout {'resume' if is_paused else 'status'} {name}"
    say(f"{name}: rollout {'paused' if is_paused else 'goes on'}. Next: {follow}")
