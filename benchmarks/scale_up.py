"""Scale-up: from the decision for one more replica to the first token that the new replica serves.

Two ways: from the store (a new process, the model loaded from the local store), and with one warm spare kept, which is
loaded, healthy and unrouted. The clock starts before the new number is declared and stops when the first token of an
answer by a replica that was not routed before is here. Five requests a second ask all the time, as real users would.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import time

import httpx

from argosy.core.service_views import ReplicaView
from benchmarks.cloud import Cloud, cloud
from benchmarks.figures import Figure, Run

_NAME = "chat"
_ASKS_PER_SECOND = 5.0
_MAX_WAIT_SECONDS = 60.0


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    return asyncio.run(_measure(flags.model, flags.rounds))


async def _measure(model: str, rounds: int) -> int:
    run = Run("scale_up")
    seconds: dict[int, list[float]] = {0: [], 1: []}
    memory: list[float] = []
    async with cloud() as running:
        await running.deploy(_NAME, model)
        for spares, number in itertools.product((0, 1), range(rounds)):
            await running.scale(_NAME, 1, warm_spares=spares)
            before = await running.settled(_NAME, 1, spares)
            memory += [view.memory_bytes / 1e6 for view in before if view.status.is_spare and view.memory_bytes]
            seconds[spares].append(await _scale_up(running, before))
            started = {view.status.name for view in before}
            after = await running.settled(_NAME, 2, spares)
            parts = [view.status.start_seconds for view in after if view.status.name not in started]
            run.note(spares=spares, round=number, seconds=seconds[spares][-1], parts=parts)
    figures = [
        Figure(what="scale-up from the store: decision to first token", values=seconds[0], unit=" s", bar=3.0,
               is_floor=False),
        Figure(what="scale-up with one warm spare", values=seconds[1], unit=" s", bar=0.5, is_floor=False),
    ]  # fmt: skip
    if memory:
        figures.append(Figure(what="memory of the spare", values=memory, unit=" MB"))
    run.finish(figures)
    return 0 if all(figure.is_met for figure in figures) else 1


async def _scale_up(running: Cloud, before: list[ReplicaView]) -> float:
    """Seconds until a replica that was not routed before has answered. Raises: TimeoutError, httpx.HTTPError."""
    routed = {view.status.name for view in before if not view.status.is_spare}
    first_token: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    limits = httpx.Limits(max_keepalive_connections=64)
    async with (
        httpx.AsyncClient(base_url=running.gateway_url, timeout=_MAX_WAIT_SECONDS, limits=limits) as client,
        asyncio.timeout(_MAX_WAIT_SECONDS),
        asyncio.TaskGroup() as asks,
    ):
        began = time.perf_counter()
        asks.create_task(running.scale(_NAME, 2))
        for number in itertools.count():
            asks.create_task(_ask(client, f"{began} {number}: say hello.", routed, first_token))
            await asyncio.wait([first_token], timeout=1 / _ASKS_PER_SECOND)
            if first_token.done():
                break
    return first_token.result() - began


async def _ask(client: httpx.AsyncClient, text: str, routed: set[str], first_token: asyncio.Future[float]) -> None:
    body = {"model": _NAME, "messages": [{"role": "user", "content": text}], "max_tokens": 1, "stream": True}
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            is_token = line.startswith("data: {") and '"content":""' not in line
            if is_token and response.headers["x-argosy-replica"] not in routed and not first_token.done():
                first_token.set_result(time.perf_counter())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
