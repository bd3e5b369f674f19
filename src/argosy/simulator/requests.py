"""A request on its way through the simulation: what it asks, and when what became of it."""

from __future__ import annotations

import msgspec

from argosy.core.scaling import Slo


class SimulatedRequest(msgspec.Struct, kw_only=True, eq=False):
    """One request. Times are virtual seconds; None = did not happen. failure: why it was refused; "" = it was not.

    blocks: ids of its prompt's leading prefix blocks. cached_tokens: of the prompt, found in the replica's cache.
    pending_tokens: of the prompt, what the gateway thinks is to be computed.
    """

    at_seconds: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()
    first_token_at: float | None = None
    ended_at: float | None = None
    pending_tokens: int = 0
    cached_tokens: int = 0
    failure: str = ""

    @property
    def ttft_seconds(self) -> float | None:
        """From arrival to the first token."""
        return None if self.first_token_at is None else self.first_token_at - self.at_seconds

    @property
    def tpot_seconds(self) -> float | None:
        """Mean time of each further token; 0 for an answer of one."""
        if self.first_token_at is None or self.ended_at is None:
            return None
        return (self.ended_at - self.first_token_at) / max(self.output_tokens - 1, 1)


def is_good(request: SimulatedRequest, slo: Slo) -> bool:
    """Whether it was answered, and within the SLO."""
    ttft, tpot = request.ttft_seconds, request.tpot_seconds
    if request.failure or ttft is None or tpot is None:
        return False
    return ttft <= slo.ttft_seconds and tpot <= slo.tpot_seconds
