"""Who asks when: recorded traces, scaled, and drawn arrivals. The same seed gives the same requests.

A trace is scaled in two ways that keep its hour an hour. `length_scale` multiplies the lengths of prompts and answers.
`rate_scale` multiplies the number of requests: each is repeated that many times (by chance for the fraction), the
copies up to `COPY_SPREAD_SECONDS` later, so that the tides of the trace stay and its ripples grow no higher than those
of a larger public. Copies share no prefixes with the original.

Drawn arrivals are written as `poisson:rate=8,seconds=600,prompt=300,output=60`; `step:` has also `to` and `at` (the
rate from that second on), and `burstiness` below 1 sends in bursts (`argosy bench --burstiness`). Lengths are
exponential around their means unless `fixed=1`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from argosy.core.errors import InvalidRequest
from argosy.evals.arrivals import arrival_times
from argosy.evals.traces import MOONCAKE_BLOCK_TOKENS, TraceRequest, read_trace, trace_slice
from argosy.simulator.requests import SimulatedRequest

COPY_SPREAD_SECONDS = 10.0


class Scales(msgspec.Struct, frozen=True, kw_only=True):
    """How a trace is changed. speed: replays so many times as fast. Seconds are the trace's own."""

    length_scale: float = 1.0
    rate_scale: float = 1.0
    speed: float = 1.0
    start_seconds: float = 0.0
    duration_seconds: float | None = None


class DrawnArrivals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A drawn load. rate: requests per second; from second `at` on, it is `to`. prompt, output: mean tokens."""

    rate: float
    seconds: float = 600.0
    prompt: float = 300.0
    output: float = 60.0
    burstiness: float = 1.0
    to: float | None = None
    at: float | None = None
    until: float | None = None
    fixed: float = 0.0


def trace_requests(path: Path, scales: Scales, seed: int) -> list[SimulatedRequest]:
    """The requests of a trace file, scaled. Raises: SpecError, InvalidRequest."""
    for name in ("length_scale", "rate_scale", "speed"):
        if not 0 < getattr(scales, name) <= 1000:
            raise InvalidRequest(f"{name} is {getattr(scales, name):g}: it must be above 0, at most 1000", param=name)
    recorded = trace_slice(
        read_trace(path),
        start_seconds=scales.start_seconds,
        duration_seconds=scales.duration_seconds,
        speed=scales.speed,
    )
    rng = random.Random(seed)
    found: list[SimulatedRequest] = []
    largest = max((max(request.blocks, default=0) for request in recorded), default=0) + 1
    for request in recorded:
        copies = int(scales.rate_scale) + (rng.random() < scales.rate_scale % 1.0)
        for copy in range(copies):
            delay = rng.uniform(0.0, COPY_SPREAD_SECONDS) if copy else 0.0
            blocks = tuple(block + copy * largest + 1 for block in request.blocks)
            found.append(_scaled(request, request.at_seconds + delay, scales.length_scale, blocks))
    if not found:
        raise InvalidRequest(f"no request of {path} is left: widen the part of the trace, or raise rate_scale")
    return sorted(found, key=lambda request: request.at_seconds)


def block_tokens(scales: Scales) -> int:
    """Tokens of a prefix block of a scaled trace."""
    return max(round(MOONCAKE_BLOCK_TOKENS * scales.length_scale), 1)


def parse_arrivals(text: str) -> DrawnArrivals:
    """`poisson:rate=8,…` or `step:rate=2,to=8,at=300,…` as a value. Raises: InvalidRequest."""
    kind, _, rest = text.partition(":")
    fields: dict[str, float] = {}
    try:
        for part in filter(None, rest.split(",")):
            name, _, value = part.partition("=")
            fields[name.strip()] = float(value)
        drawn = msgspec.convert(fields, DrawnArrivals)
    except (ValueError, msgspec.ValidationError) as error:
        known = ", ".join(DrawnArrivals.__struct_fields__)
        raise InvalidRequest(
            f"arrivals {text!r} are not understood: {error}; write poisson:rate=8,seconds=600 with {known}",
            param="arrivals",
        ) from error
    if kind not in ("poisson", "step") or (kind == "step") != (drawn.to is not None):
        raise InvalidRequest(
            f"arrivals {text!r} are not understood: write poisson:rate=8,… or step:rate=2,to=8,at=300,…",
            param="arrivals",
        )
    sizes = (drawn.rate, drawn.seconds, drawn.prompt, drawn.output, drawn.burstiness, drawn.to or drawn.rate)
    if not all(0 < size < 1e7 for size in sizes):
        raise InvalidRequest(f"arrivals {text!r}: every number must be above 0", param="arrivals")
    return drawn


def drawn_requests(drawn: DrawnArrivals, seed: int) -> list[SimulatedRequest]:
    """The requests of a drawn load, by time."""
    rng = random.Random(seed)
    found = []
    for at in _times(drawn, rng):
        prompt, output = (mean if drawn.fixed else rng.expovariate(1.0 / mean) for mean in (drawn.prompt, drawn.output))
        found.append(
            SimulatedRequest(at_seconds=at, prompt_tokens=max(round(prompt), 1), output_tokens=max(round(output), 1))
        )
    return found


def fresh(requests: Sequence[SimulatedRequest]) -> list[SimulatedRequest]:
    """The same requests before anything happened to them."""
    return [
        SimulatedRequest(
            at_seconds=one.at_seconds,
            prompt_tokens=one.prompt_tokens,
            output_tokens=one.output_tokens,
            blocks=one.blocks,
        )
        for one in requests
    ]


def _times(drawn: DrawnArrivals, rng: random.Random) -> Iterator[float]:
    """Arrivals at the rate of their moment: drawn at the highest rate, thinned to the present one."""
    high = max(drawn.rate, drawn.to or 0.0)
    begin = drawn.at if drawn.at is not None else drawn.seconds / 2
    end = drawn.until if drawn.until is not None else drawn.seconds
    for at in arrival_times(high, drawn.burstiness, rng):
        if at > drawn.seconds:
            return
        rate = drawn.to if drawn.to is not None and begin <= at < end else drawn.rate
        if rate >= high or rng.random() < rate / high:
            yield at


def _scaled(request: TraceRequest, at: float, length_scale: float, blocks: tuple[int, ...]) -> SimulatedRequest:
    return SimulatedRequest(
        at_seconds=at,
        prompt_tokens=max(round(request.prompt_tokens * length_scale), 1),
        output_tokens=max(round(request.output_tokens * length_scale), 1),
        blocks=blocks,
    )
