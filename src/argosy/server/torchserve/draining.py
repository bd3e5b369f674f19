"""How a server with TorchServe's APIs ends under load without failing a request: it serves on while the news spreads.

At the signal the probes turn, and nothing else does: whoever has not heard of it yet, a load balancer or a client with
an open connection, is answered as ever, with `Connection: close`. After the lame-duck time the sockets stop listening,
once everyone in their backlog is let in, and a connection is closed when it has been silent for a moment. So a
client's request is answered, or its connection is refused before it has sent one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from argosy.web.listener import Listener

SILENCE_SECONDS = 0.5  # A client that sent a request within it has been heard.


async def serve_to_the_end(listeners: Iterable[Listener], lame_duck_seconds: float) -> None:
    """Return once the lame-duck time is over and no connection is open. Cancels: what is open stays open."""
    listeners = list(listeners)
    for each in listeners:
        each.begin_to_end()
    await asyncio.sleep(lame_duck_seconds)
    async with asyncio.TaskGroup() as group:
        for each in listeners:
            group.create_task(each.end(SILENCE_SECONDS))
