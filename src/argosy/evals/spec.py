"""What a benchmark is asked to do: checked once, here, and then a value."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import msgspec

from argosy.core.errors import InvalidRequest

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_DURATION_SECONDS = 30.0
GOODPUT_METRICS = ("ttft", "tpot", "e2e")
_LIMIT = re.compile(r"(?P<metric>[a-z0-9]+):(?P<value>[0-9]*\.?[0-9]+)(?P<unit>ms|s)")


class ApiEndpoint(StrEnum):
    """Which of the two generating endpoints is asked."""

    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        """Below `/v1`."""
        return "/chat/completions" if self is ApiEndpoint.CHAT else "/completions"


class ClosedLoad(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="closed"):
    """`concurrency` clients, each asking again as soon as its answer is complete."""

    concurrency: int

    @property
    def label(self) -> str:
        """How tables and plots call this load."""
        return f"{self.concurrency} clients"


class OpenLoad(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="open"):
    """`rate` requests per second, whatever the server does. burstiness: see `arrivals.arrival_times`."""

    rate: float
    burstiness: float = 1.0

    @property
    def label(self) -> str:
        """How tables and plots call this load."""
        return f"{self.rate:g} req/s"


class TraceLoad(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="trace"):
    """Recorded arrivals, replayed `speed` times as fast from `start_seconds` (trace time) on.

    token_scale: multiplies prompt and output lengths. max_prompt_tokens: longer prompts are cut to it.
    """

    path: Path
    speed: float = 1.0
    start_seconds: float = 0.0
    token_scale: float = 1.0
    max_prompt_tokens: int | None = None

    @property
    def label(self) -> str:
        """How tables and plots call this load."""
        return f"{self.path.name} ×{self.speed:g}"


Load = ClosedLoad | OpenLoad | TraceLoad


class PromptSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked: synthetic words of a given token length, or the lines of a JSONL file.

    shared_prefix_tokens: of the prompt's tokens, how many are the same for all requests of one of `prefix_groups`.
    """

    tokens: int = 32
    shared_prefix_tokens: int = 0
    prefix_groups: int = 1
    file: Path | None = None


class BenchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One benchmark: every load of `loads` in turn, each with its own warm-up, against one server.

    num_requests, duration_seconds: sending stops at whichever comes first; both None = DEFAULT_DURATION_SECONDS.
    warmup_requests: asked and thrown away before each load; None = as many as the load has clients, 8 otherwise.
    goodput: limits in seconds by metric. server_pid: also sample that process's memory and CPU.
    """

    url: str = DEFAULT_URL
    model: str | None = None
    endpoint: ApiEndpoint = ApiEndpoint.CHAT
    loads: tuple[Load, ...] = (ClosedLoad(concurrency=8),)
    prompts: PromptSpec = PromptSpec()
    max_tokens: int = 128
    ignore_eos: bool = True
    temperature: float = 0.0
    extra_body: dict[str, object] = {}
    seed: int = 0
    num_requests: int | None = None
    duration_seconds: float | None = None
    warmup_requests: int | None = None
    timeout_seconds: float = 300.0
    goodput: dict[str, float] = {}
    api_key: str | None = None
    server_pid: int | None = None


def parse_goodput(text: str) -> dict[str, float]:
    """Limits in seconds from `ttft:1s,tpot:100ms`. Raises: InvalidRequest."""
    limits: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        match = _LIMIT.fullmatch(part)
        if match is None or match["metric"] not in GOODPUT_METRICS:
            raise InvalidRequest(
                f"goodput limit {part!r} is not understood: write METRIC:NUMBER with ms or s, such as "
                f"ttft:1s,tpot:100ms; metrics are {', '.join(GOODPUT_METRICS)}",
                param="goodput",
            )
        limits[match["metric"]] = float(match["value"]) * (0.001 if match["unit"] == "ms" else 1.0)
    return limits


def parse_numbers(text: str, param: str) -> list[float]:
    """Positive numbers from `1,2,4`. Raises: InvalidRequest."""
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = []
    if not numbers or any(not 0 < number < 1e6 for number in numbers):
        raise InvalidRequest(
            f"{param} {text!r} is not understood: give one positive number, or several such as 1,2,4 for a sweep",
            param=param,
        )
    return numbers


def check_spec(spec: BenchSpec) -> BenchSpec:
    """The spec itself, if it can be run. Raises: InvalidRequest naming field, value and remedy."""
    rules: list[tuple[bool, str, object, str]] = [
        (bool(spec.loads), "loads", spec.loads, "give at least one load"),
        (1 <= spec.max_tokens <= 1_000_000, "max_tokens", spec.max_tokens, "it must be 1 or more"),
        (1 <= spec.prompts.tokens <= 1_000_000, "prompt_tokens", spec.prompts.tokens, "it must be 1 or more"),
        (
            0 <= spec.prompts.shared_prefix_tokens <= spec.prompts.tokens,
            "shared_prefix_tokens",
            spec.prompts.shared_prefix_tokens,
            f"it must be between 0 and prompt_tokens={spec.prompts.tokens}",
        ),
        (spec.prompts.prefix_groups >= 1, "prefix_groups", spec.prompts.prefix_groups, "it must be 1 or more"),
        (spec.num_requests is None or spec.num_requests >= 1, "requests", spec.num_requests, "it must be 1 or more"),
        (
            spec.duration_seconds is None or spec.duration_seconds > 0,
            "duration",
            spec.duration_seconds,
            "it must be above 0 seconds",
        ),
        (
            spec.warmup_requests is None or spec.warmup_requests >= 0,
            "warmup",
            spec.warmup_requests,
            "it must be 0 or more",
        ),
        (spec.timeout_seconds > 0, "timeout", spec.timeout_seconds, "it must be above 0 seconds"),
    ]
    for load in spec.loads:
        if isinstance(load, TraceLoad):
            rules.append((load.speed > 0, "speed", load.speed, "it must be above 0"))
            rules.append((load.token_scale > 0, "token_scale", load.token_scale, "it must be above 0"))
        elif isinstance(load, OpenLoad):
            rules.append((load.burstiness > 0, "burstiness", load.burstiness, "it must be above 0"))
        else:
            known = load.concurrency
            rules.append((1 <= known <= 10_000, "concurrency", known, "it must be a whole number, 1 to 10000"))
    for holds, name, value, remedy in rules:
        if not holds:
            raise InvalidRequest(f"{name} is {value}: {remedy}", param=name)
    return spec
