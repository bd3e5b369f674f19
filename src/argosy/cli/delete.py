"""`argosy delete`: end services; open requests finish first."""

from __future__ import annotations

from argosy.cli.control_options import ControlUrl, Json, ServiceNames, State, Yes
from argosy.cli.terminal import confirm, print_json, run_async, say
from argosy.client.control_client import ControlClient, open_client
from argosy.core.errors import InvalidRequest


def command(
    names: ServiceNames,
    yes: Yes = False,
    json: Json = False,
    control: ControlUrl = None,
    state: State = None,
) -> None:
    """End services and all their replicas. Requests that run are finished first.

    Example: argosy delete chat
    """
    client = open_client(state, control)
    names = list(dict.fromkeys(names))
    run_async(_delete(client, names, yes=yes, json=json))


async def _delete(client: ControlClient, names: list[str], *, yes: bool, json: bool) -> None:
    async with client:
        services = [await client.service(name) for name in names]  # Each is there, or nothing is asked or ended.
        listed = ", ".join(f"{each.metadata.name} ({each.status.ready_replicas} replicas)" for each in services)
        if not confirm(f"End {listed}?", yes=yes):
            raise InvalidRequest(f"{', '.join(names)} not deleted: nobody said yes; --yes deletes without a question")
        for name in names:
            await client.delete(name)
            if not json:
                say(f"{name} deleted: its replicas finish what they answer, then end")
    if json:
        print_json({"deleted": names})
