"""Half an hour of mixed load on a whole cloud: do gateway or control plane creep? (F-20)

Clients send streams and whole answers to two replicas of the echo engine; every fifth request is cut off midway, some
name a model that does not exist or are no JSON, and others ask the control plane what `argosy top` and the console ask.
Judged like `soak.py`, which looks at one replica: memory as a straight line after a warm-up, files at both ends,
latency by thirds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import Any

import httpx

from argosy.backends.local.processes import token_bearers
from argosy.core.errors import ArgosyError
from argosy.core.state_dir import StateDir
from benchmarks.cloud import Cloud, cloud
from benchmarks.endings import echo_spec
from benchmarks.figures import Figure, Run
from benchmarks.soak import Answered, Soak, ask, cut, figures, sample

_NAME = "chat"
_SAMPLE_SECONDS = 1.0
_CUT_EVERY = 5
_WRONG_EVERY = 7
_VIEW_SECONDS = 0.5
_MAX_WARMUP_SECONDS = 180.0


def body(number: int) -> tuple[str, dict[str, Any]]:
    """The number-th request of the mixture: route and JSON body."""
    say = [{"role": "user", "content": f"Say something about the number {number}."}]
    text = {"prompt": f"{number} is", "max_tokens": 48, "stream_options": {"include_usage": True}}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": say, "max_tokens": 32, "stream": True}),
        ("/v1/chat/completions", {"messages": say, "max_tokens": 32}),
        ("/v1/completions", {**text, "stream": True}),
    ]
    path, content = kinds[number % len(kinds)]
    return path, {"model": _NAME, **content}


async def refused(client: httpx.AsyncClient, number: int) -> str:
    """Ask for what is refused; what is wrong with the refusal, or ""."""
    if number % 2:
        answer, right = await client.post("/v1/completions", json={"model": f"none-{number}", "prompt": "a"}), 404
    else:
        answer, right = await client.post("/v1/completions", content=b'{"model": "chat"'), 400
    return "" if answer.status_code == right else f"{answer.status_code} instead of {right}: {answer.text[:200]}"


async def work(client: httpx.AsyncClient, seen: Soak, began: float, seed: int) -> None:
    """One client, for ever. Cancels: its request is cut off."""
    numbers = random.Random(seed)
    while True:
        number = numbers.randrange(10**6)
        path, content = body(number)
        sent = time.monotonic()
        try:
            if number // 3 % _CUT_EVERY == 0:
                seen.num_cut += 1
                await cut(client, path, content)
                continue
            if number // 3 % _WRONG_EVERY == 0:
                seen.failures += filter(None, [await refused(client, number)])
                continue
            wrong = await ask(client, path, content)
        except httpx.HTTPError as error:
            wrong = repr(error)
        now = time.monotonic()
        seen.answered.append(Answered(now - began, now - sent))
        if wrong:
            seen.failures.append(wrong)


async def look(running: Cloud, seen: Soak) -> None:
    """What somebody who watches asks the control plane, for ever."""
    while True:
        try:
            await running.client.top()
            await running.client.why(_NAME)
            await running.client.events(_NAME)
        except ArgosyError as error:
            seen.failures.append(f"control plane: {error.message}")
        await asyncio.sleep(_VIEW_SECONDS)


async def soak(running: Cloud, seconds: float, clients: int) -> dict[str, Soak]:
    """Load the cloud for so long; what was seen, by process. Answers stand with the gateway."""
    prefix = (StateDir(running.state).backend / "identity").read_text().strip() + "/gateway-"
    (gateway,) = [each.identity.pid for each in token_bearers(prefix) if each.is_leader]
    seen = {"gateway": Soak(), "control plane": Soak()}
    began = time.monotonic()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=running.gateway_url, timeout=60, limits=limits) as client:
        tasks = [asyncio.create_task(work(client, seen["gateway"], began, seed)) for seed in range(clients)]
        tasks.append(asyncio.create_task(look(running, seen["control plane"])))
        try:
            while (now := time.monotonic() - began) < seconds:
                seen["gateway"].samples.append(sample(gateway, now, is_alone=True))
                seen["control plane"].samples.append(sample(running.server.pid, now, is_alone=True))
                done, _ = await asyncio.wait(tasks, timeout=_SAMPLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    return seen


def judged(seen: dict[str, Soak], warmup_seconds: float, *, slope_bar: float, ratio_bar: float) -> list[Figure]:
    """The rows of the gateway, and of the control plane those about memory, files and failures."""
    rows = figures(seen["gateway"], warmup_seconds, slope_bar=slope_bar, ratio_bar=ratio_bar, whose="gateway: ")
    seen["control plane"].answered = seen["gateway"].answered
    control = figures(
        seen["control plane"], warmup_seconds, slope_bar=slope_bar, ratio_bar=ratio_bar, whose="control plane: "
    )
    return [*rows, *(row for row in control if "p99" not in row.what)]


async def _measure(flags: argparse.Namespace) -> int:
    run = Run("cloud_soak")
    async with cloud() as running:
        await running.declare(_NAME, echo_spec(2, steps_per_second=200))
        await running.settled(_NAME, 2, 0)
        seen = await soak(running, flags.seconds, flags.clients)
    for name, one in seen.items():
        for each in one.samples[:: max(len(one.samples) // 20, 1)]:
            run.note(process=name, seconds=each.at, rss_mb=each.rss_mb, files=each.num_files)
    slope_bar, ratio_bar = (120.0, 5.0) if flags.rehearsal else (1.0, 1.2)
    rows = judged(seen, min(flags.seconds / 3, _MAX_WARMUP_SECONDS), slope_bar=slope_bar, ratio_bar=ratio_bar)
    if flags.rehearsal:
        print("\n".join(one.row(0.0) for one in rows))
    else:
        run.finish(rows)
    return 0 if all(one.is_met for one in rows) else 1


def main(arguments: list[str]) -> int:
    """Soak and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--rehearsal", action="store_true", help="wide bars for a run of seconds, and no file")
    return asyncio.run(_measure(parser.parse_args(arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
