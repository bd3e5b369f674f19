"""TorchServe and Argosy with an echo handler: requests per second and latency at 64 clients, time to ready.

What is measured is the way of a request to a worker and back. The same archive, the same config.properties, as many
workers as cores; both servers are loaded and asked in turn.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

from benchmarks.archives import ArchiveSpec
from benchmarks.figures import Figure, Run
from benchmarks.torchserve_profiles import WIRE
from benchmarks.torchserve_servers import Side, add_flags, two_sides, wait_until_answered, whole
from benchmarks.wire_calls import Call
from benchmarks.wire_client import Measured, Question, WireClient, prediction_question

BODY = b'{"text":"this is a test sentence","from":"en","to":"fr"}'
WORKERS = "2"


def load(side: Side, questions: Sequence[Question], clients: int, seconds: float) -> Measured:
    """One closed-loop load. Raises: RuntimeError if a request fails."""
    client = WireClient(side.url, questions, clients)
    try:
        return whole(client.closed_loop(seconds))
    finally:
        client.close()


def rate_and_latency(ours: Measured, theirs: Measured) -> dict[str, float]:
    """Facts of one round."""
    facts: dict[str, float] = {}
    for name, one in (("our", ours), ("their", theirs)):
        facts |= {f"{name}_rate": one.rate, f"{name}_client_cpu": one.client_cpu_seconds / one.seconds}
        facts |= {f"{name}_p{ratio * 100:g}_ms": one.percentile_ms(ratio) for ratio in (0.5, 0.99)}
    return facts


def interleaved(
    sides: tuple[Side, Side], questions: Mapping[str, Sequence[Question]], flags: argparse.Namespace, run: Run
) -> list[dict[str, float]]:
    """Rounds in which both are asked, first the one, then the other, and the other way round in the next."""
    for side in sides:
        load(side, questions[side.name], flags.clients, min(2.0, flags.seconds))  # warm-up, thrown away
    rounds: list[dict[str, float]] = []
    for number in range(flags.rounds):
        order = sides if number % 2 == 0 else sides[::-1]
        measured = {side.name: load(side, questions[side.name], flags.clients, flags.seconds) for side in order}
        rounds.append(rate_and_latency(measured["argosy"], measured["torchserve"]))
        run.note(round=number, **rounds[-1])
    return rounds


def figures(what: str, rounds: Sequence[dict[str, float]], *, rate_bar: float, p99_bar: float | None) -> list[Figure]:
    """The ratios of rate and of p99, with what both sides had in the middle round."""

    def middle(key: str) -> float:
        return sorted(one[key] for one in rounds)[len(rounds) // 2]

    rates = [one["our_rate"] / one["their_rate"] for one in rounds]
    tails = [one["our_p99_ms"] / one["their_p99_ms"] for one in rounds]
    rate_detail = f"{middle('our_rate'):.0f} against {middle('their_rate'):.0f} requests/s"
    tail_detail = f"{middle('our_p99_ms'):.0f} against {middle('their_p99_ms'):.0f} ms"
    return [
        Figure(what=f"{what}: requests/s / TorchServe's", values=rates, unit="×", bar=rate_bar, detail=rate_detail),
        Figure(
            what=f"{what}: p99 / TorchServe's", values=tails, unit="×", bar=p99_bar, is_floor=False, detail=tail_detail
        ),
    ]


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    parser.add_argument("--clients", type=int, default=64)
    flags = parser.parse_args(arguments)
    run = Run("torchserve_echo")
    archives = [(ArchiveSpec(file="echo.mar", model="echo", handler="echo.py"), WIRE / "handlers")]
    ask = Call(call="POST inference /predictions/echo", body=BODY.decode(), headers={"Content-Type": "text/plain"})
    with two_sides(flags, archives, {"default_workers_per_model": WORKERS}) as sides, sides[0].server, sides[1].server:
        for side in sides:
            wait_until_answered(side, [ask])
        expected = (b'"fr"', 1, b"}")
        questions = {side.name: [prediction_question(side.url, "echo", BODY, expected)] for side in sides}
        rounds = interleaved(sides, questions, flags, run)
    found = figures(f"echo handler, {flags.clients} clients", rounds, rate_bar=6.0, p99_bar=0.2)
    run.finish(found)
    return 0 if all(figure.is_met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
