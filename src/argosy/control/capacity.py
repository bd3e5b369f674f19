"""What one replica can carry, learned from the traffic itself while it is served; nobody has to know or guess it.

A replica with continuous batching is busy from the first request on, so neither its processor's use nor a queue says
how much more it could take. What does say it is the *pace*: tokens that a request in the replica gains per second. A
step takes hardly longer for ten answers than for one, so the pace falls only by what the other work takes, prompts
and the rows of other answers, and it falls in a straight line:

    pace = idle pace × (1 − load),   load = (prompt cost × prompt tokens/s + token cost × generated tokens/s) / replicas

The idle pace and the two costs (in replica-seconds per token) are fitted by least squares to what is seen every few
seconds; older sights fade. Load 1 is where a replica comes to a standstill; how near one may go to it is learned from
the SLO (`load_limit`). By Little's law the pace needs no stopwatch: it is the tokens that were generated, over the
request-seconds in which they were.
"""

from __future__ import annotations

import math

import msgspec

from argosy.control.spans import Span

SIGHT_SECONDS = 10.0
LEAST_SIGHTS = 3.0
_MEMORY_SECONDS = 1800.0
_LEAST_PRESENT = 0.5
# Beliefs that a few sights outweigh: the load so far was light, and a generated token costs two of a prompt.
_PRIOR_LOAD = 0.4
_PRIOR_SIGHTS = 5.0
_PRIOR_TOKEN_RATIO = 2.0
_PRIOR_RATIO_WEIGHT = 0.01


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What a token takes of a replica, in seconds, and the pace of a request that is alone, in tokens per second."""

    prompt_token_seconds: float
    generated_token_seconds: float
    idle_pace: float

    def work_seconds(self, prompt_tokens: float, generation_tokens: float) -> float:
        """Replica-seconds of so many tokens."""
        return self.prompt_token_seconds * prompt_tokens + self.generated_token_seconds * generation_tokens


class CapacityEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of a least-squares fit of the pace to (1, prompt tokens/s, generated tokens/s), per replica.

    gram: upper triangle of XᵀX, its first entry the number of sights, faded ones counted less. moments: Xᵀy.
    """

    gram: tuple[float, float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    moments: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def sights(self) -> float:
        """How many spans it rests on, faded ones counted less."""
        return self.gram[0]


def learned(estimate: CapacityEstimate, sight: Span) -> CapacityEstimate:
    """The estimate after one more span of some seconds; unchanged if that shows nothing.

    Where next to nobody was, there is only noise; where more wait than run, the pace is that of the queue.
    """
    present = sight.running_seconds + sight.waiting_seconds
    is_idle = sight.ready_seconds <= 0 or sight.generation_tokens <= 0 or present < _LEAST_PRESENT * sight.seconds
    if is_idle or sight.held_seconds > 0 or sight.waiting_seconds > sight.running_seconds:
        return estimate
    prompt, token = sight.prompt_tokens / sight.ready_seconds, sight.generation_tokens / sight.ready_seconds
    pace = sight.generation_tokens / present
    keep = math.exp(-sight.seconds / _MEMORY_SECONDS)
    g, m = estimate.gram, estimate.moments
    return CapacityEstimate(
        gram=(
            keep * g[0] + 1.0,
            keep * g[1] + prompt,
            keep * g[2] + token,
            keep * g[3] + prompt * prompt,
            keep * g[4] + prompt * token,
            keep * g[5] + token * token,
        ),
        moments=(keep * m[0] + pace, keep * m[1] + pace * prompt, keep * m[2] + pace * token),
    )


def costs_of(estimate: CapacityEstimate) -> Costs | None:
    """What the sights say a token costs; None while they are too few, or say nothing that makes sense."""
    if estimate.sights < LEAST_SIGHTS:
        return None
    ones, prompt, token, prompt2, mixed, token2 = estimate.gram
    idle_prior = estimate.moments[0] / ones / (1.0 - _PRIOR_LOAD)
    ones, moment = ones + _PRIOR_SIGHTS, estimate.moments[0] + _PRIOR_SIGHTS * idle_prior
    ratio, tie = _PRIOR_TOKEN_RATIO, _PRIOR_RATIO_WEIGHT * token2
    tied = _solve3(
        (ones, prompt, token, prompt2 + tie * ratio * ratio, mixed - tie * ratio, token2 + tie),
        (moment, *estimate.moments[1:]),
    )
    if tied is None or tied[1] >= 0 or tied[2] >= 0 or tied[0] <= 0:
        joined, joined2 = prompt + ratio * token, prompt2 + 2 * ratio * mixed + ratio * ratio * token2
        moment_joined = estimate.moments[1] + ratio * estimate.moments[2]
        size = ones * joined2 - joined * joined
        if size <= 0:
            return None
        slope = (ones * moment_joined - joined * moment) / size
        tied = ((moment - slope * joined) / ones, slope, ratio * slope)
    idle, prompt_slope, token_slope = tied
    if prompt_slope >= 0 or idle <= 0:
        return None
    return Costs(prompt_token_seconds=-prompt_slope / idle, generated_token_seconds=-token_slope / idle, idle_pace=idle)


def strain(sight: Span, costs: Costs) -> float:
    """The load as the pace tells it: above the work's own while a backlog is cleared."""
    present = sight.running_seconds + sight.waiting_seconds
    return 1.0 - sight.generation_tokens / present / costs.idle_pace if present > 0 else 0.0


def _solve3(
    a: tuple[float, float, float, float, float, float], b: tuple[float, float, float]
) -> tuple[float, float, float] | None:
    """x of A x = b for a symmetric A given by its upper triangle (Cramer's rule); None if it is singular."""
    a00, a01, a02, a11, a12, a22 = a
    c00, c01, c02 = a11 * a22 - a12 * a12, a02 * a12 - a01 * a22, a01 * a12 - a02 * a11
    determinant = a00 * c00 + a01 * c01 + a02 * c02
    if abs(determinant) <= 1e-12 * abs(a00 * a11 * a22):
        return None
    c11, c12, c22 = a00 * a22 - a02 * a02, a01 * a02 - a00 * a12, a00 * a11 - a01 * a01
    return (
        (c00 * b[0] + c01 * b[1] + c02 * b[2]) / determinant,
        (c01 * b[0] + c11 * b[1] + c12 * b[2]) / determinant,
        (c02 * b[0] + c12 * b[1] + c22 * b[2]) / determinant,
    )
