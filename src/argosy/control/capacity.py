"""What one replica can carry, learned from the traffic itself while it is served; nobody has to know or guess it.

A replica with continuous batching is busy from the first request on, so neither its processor's use nor a queue says
how much more it could take. What does say it is the *pace*: tokens that a request in the replica gains per second. A
step takes the same whether it serves one answer or ten, so the pace falls only by what the other work takes, the
prompts and the rows of other answers, and it falls in a straight line:

    pace = idle pace × (1 − load),   load = (prompt cost × prompt tokens/s + token cost × generated tokens/s) / replicas

The idle pace and the two costs (in replica-seconds per token) are fitted by least squares to what is seen every few
seconds; older sights fade. Load 1 is where a replica comes to a standstill. It is never reached: how far one may go is
learned from the SLO itself (`headroom`).

By Little's law the pace needs no stopwatch: it is the tokens that were generated, over the request-seconds in which
they were.
"""

from __future__ import annotations

import math

import msgspec

from argosy.control.scaling_history import Span

SIGHT_SECONDS = 10.0
MEMORY_SECONDS = 1800.0
_LEAST_REQUESTS_PRESENT = 0.5
# Weights of the belief that a generated token costs about as much as two of a prompt, in sights.
_RIDGE = 0.02


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a token takes of a replica, in seconds, and the pace of a request that is alone, in tokens per second."""

    prompt_token_seconds: float
    generated_token_seconds: float
    idle_pace: float

    def work_seconds(self, prompt_tokens: float, generation_tokens: float) -> float:
        """Replica-seconds of so many tokens."""
        return self.prompt_token_seconds * prompt_tokens + self.generated_token_seconds * generation_tokens


class CapacityEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of a weighted least-squares fit of the pace to (1, prompt tokens/s, generated tokens/s) per replica.

    sights: how many went in, faded ones counted less. gram, moments: upper triangle of XᵀWX, and XᵀWy.
    """

    sights: float = 0.0
    gram: tuple[float, float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    moments: tuple[float, float, float] = (0.0, 0.0, 0.0)


def learned(estimate: CapacityEstimate, sight: Span) -> CapacityEstimate:
    """The estimate after one more span of some seconds; unchanged if it shows nothing.

    Spans in which next to nobody was there show noise.
    """
    present = sight.running_seconds + sight.waiting_seconds
    if sight.ready_seconds <= 0 or sight.generation_tokens <= 0 or sight.held_seconds > 0:
        return estimate
    if present < _LEAST_REQUESTS_PRESENT * sight.seconds:
        return estimate
    row = (1.0, sight.prompt_tokens / sight.ready_seconds, sight.generation_tokens / sight.ready_seconds)
    pace = sight.generation_tokens / present
    keep = math.exp(-sight.seconds / MEMORY_SECONDS)
    # A least-squares fit of a ratio: relative error counts, so that slow sights weigh as much as fast ones.
    weight = 1.0 / max(pace, 1e-9) ** 2
    products = (
        row[0] * row[0], row[0] * row[1], row[0] * row[2], row[1] * row[1], row[1] * row[2], row[2] * row[2],
    )  # fmt: skip
    gram = tuple(keep * old + weight * new for old, new in zip(estimate.gram, products, strict=True))
    moments = tuple(keep * old + weight * pace * new for old, new in zip(estimate.moments, row, strict=True))
    return CapacityEstimate(
        sights=keep * estimate.sights + 1.0,
        gram=gram,  # type: ignore[arg-type]
        moments=moments,  # type: ignore[arg-type]
    )
