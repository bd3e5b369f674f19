"""What a proxy costs: client → fake replica beside client → proxy → fake replica, on the same cores, in turns.

    python -m benchmarks gateway_overhead [--litellm-python PATH] [--command "PROXY --port {port} --to {replica}"]

open     500 requests/s on a clock, each timed from when it was due: latency added = a percentile through the proxy
         less the same percentile without it. Beside it, the median and p99 of the differences request by request.
closed   32 and 64 connections that ask again at once: requests/s.
streams  32 streams of 200 chunks, as fast as they come: chunks/s. The replica runs ahead here, so reads hold several.
paced    the same with a chunk on every stream every 2 ms (16,000/s): chunks arrive one by one, as engines make them;
         a proxy that keeps up delivers what the replica alone delivers.

Every answer is looked at; one that is not whole, or not 200, is an error, and any error misses the bar.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import msgspec

from argosy.evals.metrics import percentile
from argosy.evals.probe import machine_times, process_usage, steal_ratio
from benchmarks.fake_replica import ANSWER_TEXT, MODEL, TOKEN_MARK
from benchmarks.figures import Figure, Run
from benchmarks.proxies import API_KEY, command_server, fake_replica_server, gateway_server, litellm_server
from benchmarks.servers import Server
from benchmarks.wire_client import Measured, Question, WireClient, chat_question

DIRECT, SUBJECT = "direct", "gateway"
STREAMS, CHUNKS, PACE_MILLISECONDS = 32, 200, 2
OPEN_CONNECTIONS = 64
WARMUP_SECONDS = 1.0

# (round, system, load) → what was measured. The round is the position in the list.
Rounds = list[dict[tuple[str, str], Measured]]


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of load: how it runs on a client with so many connections."""

    name: str
    connections: int
    run: Callable[[WireClient], Measured]
    is_stream: bool = False
    pace_milliseconds: int = 0


def loads(rate: float, seconds: float) -> list[Load]:
    """The loads of a round, each `seconds` long."""

    def closed(client: WireClient) -> Measured:
        return client.closed_loop(seconds)

    def on_time(client: WireClient) -> Measured:
        return client.open_loop(rate, int(rate * seconds))

    return [
        Load(name="open", connections=OPEN_CONNECTIONS, run=on_time),
        Load(name="closed32", connections=32, run=closed),
        Load(name="closed64", connections=64, run=closed),
        Load(name="streams", connections=STREAMS, run=closed, is_stream=True),
        Load(name="paced", connections=STREAMS, run=closed, is_stream=True, pace_milliseconds=PACE_MILLISECONDS),
    ]


def question(url: str, *, is_stream: bool) -> Question:
    """A chat of a usual size, streamed or not."""
    messages = [
        {"role": "system", "content": "You answer in one sentence and say when you do not know."},
        {"role": "user", "content": "Why does the tide come twice a day, and not once? " * 4},
    ]
    body = {"model": MODEL, "messages": messages, "temperature": 0.7}
    if is_stream:
        more = {"max_tokens": CHUNKS, "stream": True, "stream_options": {"include_usage": True}}
        expected = (TOKEN_MARK, CHUNKS, b"data: [DONE]\n\n")
        return chat_question(url, API_KEY, json.dumps({**body, **more}).encode(), expected)
    return chat_question(url, API_KEY, json.dumps(body).encode(), (ANSWER_TEXT.encode(), 1, b"}"))


def set_pace(replica: Server, milliseconds: int) -> int:
    """Set the time between the chunks of a stream; how many chats the replica was asked so far."""
    address = f"{replica.url}/pace/{milliseconds}"
    with urllib.request.urlopen(address, data=b"", timeout=10) as response:  # noqa: S310  # our own loopback address
        return int(response.read())


def measure(server: Server, load: Load, replica: Server) -> tuple[Measured, dict[str, float]]:
    """One load on one system; the share of a core that the client, the replica and the proxy used meanwhile."""
    client = WireClient(server.url, question(server.url, is_stream=load.is_stream), load.connections)
    try:
        asked = set_pace(replica, load.pace_milliseconds)
        before = (process_usage(replica.pid).cpu_seconds, process_usage(server.pid).cpu_seconds)
        measured = load.run(client)
        after = (process_usage(replica.pid).cpu_seconds, process_usage(server.pid).cpu_seconds)
    finally:
        client.close()
    if (asked := set_pace(replica, 0) - asked) < len(measured.latencies):
        raise RuntimeError(f"{server.name} gave {len(measured.latencies)} answers and asked the replica {asked} times")
    cores = {"client": measured.client_cpu_seconds / measured.seconds, "replica": (after[0] - before[0])}
    cores["replica"] /= measured.seconds
    cores["proxy"] = 0.0 if server is replica else (after[1] - before[1]) / measured.seconds
    return measured, cores


def facts(measured: Measured, load: Load, cores: dict[str, float]) -> dict[str, float | str]:
    """What is kept of one load on one system."""
    found: dict[str, float | str] = {"errors": measured.errors, "rate": measured.rate}
    if load.is_stream:
        found["chunks_per_second"] = measured.marks / measured.seconds
        if cores["proxy"]:
            found["proxy_us_per_chunk"] = cores["proxy"] * measured.seconds / max(1, measured.marks) * 1e6
    elif cores["proxy"]:
        found["proxy_us_per_request"] = cores["proxy"] * measured.seconds / max(1, len(measured.latencies)) * 1e6
    for ratio in (0.5, 0.95, 0.99):
        found[f"p{ratio * 100:.0f}_ms"] = measured.percentile_ms(ratio)
    found["late_p99_ms"] = percentile(sorted(measured.lateness), 0.99) * 1000
    found |= {f"{name}_cores": share for name, share in cores.items()}
    if measured.errors:
        found["error_example"] = measured.error_example
    return found


def differences(via: Measured, direct: Measured) -> dict[str, float]:
    """The n-th request through the proxy less the n-th without it: median and p99, in ms."""
    pairs = zip(via.latencies, direct.latencies, strict=False)
    ordered = sorted((through - without) * 1000 for through, without in pairs)
    return {f"difference_p{ratio * 100:.0f}_ms": percentile(ordered, ratio) for ratio in (0.5, 0.99) if ordered}


def run_rounds(systems: dict[str, Server], kinds: list[Load], num_rounds: int, run: Run) -> Rounds:
    """Every load on every system, round after round; who goes first changes."""
    replica = systems[DIRECT]
    for name, server in systems.items():
        for load in loads(100.0, WARMUP_SECONDS):
            warm, _ = measure(server, load, replica)
            if warm.errors:
                raise RuntimeError(f"{name} does not answer {load.name} as it should: {warm.error_example}")
    rounds: Rounds = []
    for number in range(num_rounds):
        found: dict[tuple[str, str], Measured] = {}
        for load in kinds:
            for name in list(systems)[:: 1 if number % 2 == 0 else -1]:
                before = machine_times()
                measured, cores = measure(systems[name], load, replica)
                found[name, load.name] = measured
                steal = steal_ratio(before, machine_times())
                run.note(round=number, load=load.name, system=name, **facts(measured, load, cores), steal=steal)
            if load.name == "open":
                for name in systems:
                    run.note(round=number, system=name, **differences(found[name, "open"], found[DIRECT, "open"]))
        rounds.append(found)
    return rounds


def added_latency(rounds: Rounds, name: str, rate: float) -> list[Figure]:
    """A percentile through the proxy less the same percentile without it."""
    figures = []
    for ratio, bar in ((0.5, 1.0), (0.95, 3.0), (0.99, 8.0)):
        pairs = [
            (found[name, "open"].percentile_ms(ratio), found[DIRECT, "open"].percentile_ms(ratio)) for found in rounds
        ]
        via, direct = pairs[len(pairs) // 2]
        figures.append(
            Figure(
                what=f"{name}: latency added at {rate:g} requests/s, p{ratio * 100:.0f}",
                values=[through - without for through, without in pairs],
                unit=" ms",
                bar=bar if name == SUBJECT else None,
                is_floor=False,
                detail=f"{via:.2f} ms through it, {direct:.2f} ms without",
            )
        )
    return figures


def throughput(rounds: Rounds, name: str, load: Load, bar: float) -> Figure:
    """Requests/s or chunks/s, beside what the replica gives without a proxy."""

    def values(system: str) -> list[float]:
        ran = [found[system, load.name] for found in rounds]
        return [one.marks / one.seconds if load.is_stream else one.rate for one in ran]

    unit = " chunks/s" if load.is_stream else " requests/s"
    tail = statistics.median(found[name, load.name].percentile_ms(0.99) for found in rounds)
    return Figure(
        what=f"{name}: {load.name}",
        values=values(name),
        unit=unit,
        bar=bar if name == SUBJECT else None,
        detail=f"{statistics.median(values(DIRECT)):.0f}{unit} without it; p99 {tail:.1f} ms",
    )


def beside(rounds: Rounds, other: str) -> list[Figure]:
    """Ours / the other proxy, round by round, on 32 connections: requests/s and p99."""
    pairs = [(found[SUBJECT, "closed32"], found[other, "closed32"]) for found in rounds]
    rates = [ours.rate / theirs.rate for ours, theirs in pairs]
    tails = [ours.percentile_ms(0.99) / theirs.percentile_ms(0.99) for ours, theirs in pairs]
    return [
        Figure(what=f"requests/s / {other}, 32 connections", values=rates, unit="×", bar=3.0),
        Figure(what=f"p99 / {other}, 32 connections", values=tails, unit="×", bar=1.0, is_floor=False),
    ]


def report(rounds: Rounds, names: list[str], kinds: list[Load], rate: float) -> list[Figure]:
    """The figures of every proxy, and of ours beside the others, from the loads that ran."""
    bars = {"closed32": 1500.0, "closed64": 1500.0, "streams": 15_000.0, "paced": 15_000.0}
    figures: list[Figure] = []
    for name in names[1:]:
        for load in kinds:
            if load.name == "open":
                figures += added_latency(rounds, name, rate)
            else:
                figures.append(throughput(rounds, name, load, bars[load.name]))
    if SUBJECT in names and any(load.name == "closed32" for load in kinds):
        for name in names:
            if name not in (DIRECT, SUBJECT):
                figures += beside(rounds, name)
    errors = [float(sum(one.errors for one in found.values())) for found in rounds]
    figures.append(
        Figure(what="answers that were not as they should be", values=errors, unit="", bar=0, is_floor=False)
    )
    return figures


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm-python", type=Path, help="the python of an environment with litellm[proxy]")
    parser.add_argument("--litellm-workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--command", help="measure this proxy in place of `argosy gateway`")
    parser.add_argument("--no-subject", action="store_true", help="measure only what stands beside the gateway")
    parser.add_argument("--loads", nargs="+", choices=[load.name for load in loads(1, 1)], help="only these")
    parser.add_argument("--rate", type=float, default=500.0, help="of the open loop, requests/s")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load in each round")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed or any answer was wrong."""
    flags = parse(arguments)
    kinds = [load for load in loads(flags.rate, flags.seconds) if not flags.loads or load.name in flags.loads]
    run = Run("gateway_overhead")
    with ExitStack() as stack:
        replica = stack.enter_context(fake_replica_server())
        systems = {DIRECT: replica}
        if not flags.no_subject:
            subject = command_server(flags.command, replica.url) if flags.command else gateway_server(replica.url)
            systems[SUBJECT] = stack.enter_context(subject)
        for workers in flags.litellm_workers if flags.litellm_python else []:
            other = litellm_server(flags.litellm_python, replica.url, workers)
            systems[other.name] = stack.enter_context(other)
        rounds = run_rounds(systems, kinds, flags.rounds, run)
    figures = report(rounds, list(systems), kinds, flags.rate)
    run.finish(figures, command=flags.command or "", rate=flags.rate, seconds=flags.seconds)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
