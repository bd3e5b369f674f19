"""Half an hour of mixed load: does memory, the number of open files or the slowest answer creep? (F-20)

Workers send chats and completions, streamed and whole, with schemas, several answers and log probabilities; every fifth
request is cut off midway. A warm-up, in which caches fill, is not judged; then memory is a straight line fitted
through samples of every second, files are compared at both ends, and latency is compared between the thirds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from argosy.evals.probe import process_tree
from benchmarks.figures import Figure, Run
from benchmarks.servers import Server, argosy_server

_SAMPLE_SECONDS = 1.0
_CUT_EVERY = 5
_MAX_WARMUP_SECONDS = 180.0
_MEGABYTE = 1e6
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_SCHEMA = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}


class Sample(msgspec.Struct, frozen=True):
    """The server at one moment. Units: seconds since the soak began; megabytes; descriptors of all its processes."""

    at: float
    rss_mb: float
    num_files: int


class Answered(msgspec.Struct, frozen=True):
    """One request that was not cut off. Units: seconds."""

    at: float
    took: float


class Soak(msgspec.Struct):
    """What a soak saw."""

    samples: list[Sample] = []
    answered: list[Answered] = []
    failures: list[str] = []
    num_cut: int = 0


def sample(pid: int, at: float, *, is_alone: bool = False) -> Sample:
    """Memory and descriptors of a process and its children, or of it alone."""
    members = [pid] if is_alone else process_tree(pid)
    pages = sum(int(Path(f"/proc/{member}/statm").read_text().split()[1]) for member in members)
    num_files = sum(len(list(Path(f"/proc/{member}/fd").iterdir())) for member in members)
    return Sample(at, pages * _PAGE_BYTES / _MEGABYTE, num_files)


def slope_per_minute(samples: Sequence[Sample]) -> float:
    """Megabytes per minute of the line that fits best (least squares)."""
    return 60 * statistics.linear_regression([one.at for one in samples], [one.rss_mb for one in samples]).slope


def p99_ratio(answered: Sequence[Answered]) -> float:
    """The 99th percentile of the last third of the time over that of the first."""
    first, last = answered[0].at, answered[-1].at
    third = (last - first) / 3
    early = sorted(one.took for one in answered if one.at < first + third)
    late = sorted(one.took for one in answered if one.at >= last - third)
    return late[len(late) * 99 // 100] / early[len(early) * 99 // 100]


def body(number: int, *, has_constraints: bool) -> tuple[str, dict[str, Any]]:
    """The number-th request of the mixture: route and JSON body."""
    say = [{"role": "user", "content": f"Say something about the number {number}."}]
    schema = {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA}}
    chat: list[dict[str, Any]] = [
        {"messages": say, "max_tokens": 32, "stream": True},
        {"messages": say, "max_tokens": 32},
        {"messages": say, "max_tokens": 16, "n": 2, "temperature": 0.8, "logprobs": True, "stream": True},
    ]
    if has_constraints:
        chat.append({"messages": say, "max_tokens": 40, "response_format": schema})
    text = {"prompt": f"{number} is", "max_tokens": 48, "stream": True, "stream_options": {"include_usage": True}}
    kinds = [*(("/v1/chat/completions", each) for each in chat), ("/v1/completions", text)]
    return kinds[number % len(kinds)]


async def ask(client: httpx.AsyncClient, path: str, content: dict[str, Any]) -> str:
    """What is wrong with the answer, or "". Raises: httpx.HTTPError."""
    answer = await client.post(path, json=content)
    if answer.status_code != 200:
        return f"{answer.status_code}: {answer.text[:200]}"
    if content.get("stream") and not answer.text.endswith("data: [DONE]\n\n"):
        return f"a stream ended with {answer.text[-200:]!r}"
    return ""


async def cut(client: httpx.AsyncClient, path: str, content: dict[str, Any]) -> None:
    """Send a request and leave at its first piece, or soon if there is none."""
    try:
        async with asyncio.timeout(0.2), client.stream("POST", path, json=content) as answer:
            async for _ in answer.aiter_raw():
                return
    except TimeoutError:
        return


async def work(client: httpx.AsyncClient, seen: Soak, began: float, seed: int, has_constraints: bool) -> None:
    """One client, for ever. Cancels: its request is cut off."""
    numbers = random.Random(seed)
    while True:
        number = numbers.randrange(10**6)
        path, content = body(number, has_constraints=has_constraints)
        if number // 7 % _CUT_EVERY == 0:
            seen.num_cut += 1
            await cut(client, path, content)
            continue
        sent = time.monotonic()
        try:
            wrong = await ask(client, path, content)
        except httpx.HTTPError as error:
            wrong = repr(error)
        now = time.monotonic()
        seen.answered.append(Answered(now - began, now - sent))
        if wrong:
            seen.failures.append(wrong)


async def soak(server: Server, seconds: float, clients: int, *, has_constraints: bool) -> Soak:
    """Load the server for so long. Cancels: the clients leave."""
    seen = Soak()
    began = time.monotonic()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits) as client:
        workers = [asyncio.create_task(work(client, seen, began, seed, has_constraints)) for seed in range(clients)]
        try:
            while (now := time.monotonic() - began) < seconds:
                seen.samples.append(sample(server.pid, now))
                await asyncio.wait(workers, timeout=_SAMPLE_SECONDS)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.wait(workers)
    return seen


def figures(seen: Soak, warmup_seconds: float, *, slope_bar: float, ratio_bar: float, whose: str = "") -> list[Figure]:
    """Memory, files, latency and failures, after the warm-up. whose: stands before each row."""
    samples = [one for one in seen.samples if one.at >= warmup_seconds]
    answered = [one for one in seen.answered if one.at >= warmup_seconds]
    third = max(len(samples) // 3, 1)
    files = max(one.num_files for one in samples[-third:]) - max(one.num_files for one in samples[:third])
    memory = f"{samples[0].rss_mb:.0f} to {samples[-1].rss_mb:.0f} MB; {len(answered)} answers, {seen.num_cut} cut off"
    rows = (
        ("memory's slope under mixed load", slope_per_minute(samples), " MB/min", slope_bar, memory),
        ("more open files in the last third", files, "", 4.0, f"at most {max(one.num_files for one in samples)}"),
        ("p99 of the last third / first third", p99_ratio(answered), "", ratio_bar, ""),
        ("answers that were wrong", len(seen.failures), "", 0.0, (seen.failures or [""])[0]),
    )
    return [
        Figure(what=whose + what, values=[float(value)], unit=unit, bar=bar, is_floor=False, detail=detail)
        for what, value, unit, bar, detail in rows
    ]


def main(arguments: list[str]) -> int:
    """Soak and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--engine", default="openvino")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rehearsal", action="store_true", help="wide bars for a run of seconds, and no file")
    flags = parser.parse_args(arguments)
    run = Run("soak")
    seconds = flags.minutes * 60
    with argosy_server(flags.model, "--engine", flags.engine) as server:
        has_constraints = flags.engine != "echo"
        seen = asyncio.run(soak(server, seconds, flags.clients, has_constraints=has_constraints))
    for one in seen.samples[:: max(len(seen.samples) // 20, 1)]:
        run.note(seconds=one.at, rss_mb=one.rss_mb, files=one.num_files)
    slope_bar, ratio_bar = (120.0, 5.0) if flags.rehearsal else (1.0, 1.2)
    judged = figures(seen, min(seconds / 3, _MAX_WARMUP_SECONDS), slope_bar=slope_bar, ratio_bar=ratio_bar)
    if flags.rehearsal:
        print("\n".join(one.row(0.0) for one in judged))
    else:
        run.finish(judged)
    return 0 if all(one.is_met for one in judged) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
