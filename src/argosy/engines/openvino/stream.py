"""One request's gains on their way from the child to its consumer.

Gains of steps wait in a list until the consumer wakes, and are then handed over as one output, so a slow reader costs
no queue and no more than max_tokens ids.
"""

from __future__ import annotations

import asyncio

from argosy.core.errors import EngineDead, EngineError
from argosy.core.generation import FinishReason, GenerateOutput, TokenLogprob
from argosy.engines.openvino.messages import Gain


class Stream:
    """One request's gains between the child and its consumer."""

    def __init__(self, logprobs_wanted: bool) -> None:
        self.gains: list[Gain] = []
        self.has_ended = False
        self.logprobs_wanted = logprobs_wanted
        self._waiter: asyncio.Future[None] | None = None

    def push(self, gain: Gain) -> None:
        """Keep the gain and wake the consumer."""
        self.gains.append(gain)
        self.has_ended = self.has_ended or gain.ending is not None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Return once there is a gain. Cancels: nothing is lost."""
        while not self.gains:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    async def wait_for_end(self) -> None:
        """Return once the request has ended, its gains thrown away."""
        while not self.has_ended:
            self.gains.clear()
            await self.wait()

    def take(self) -> GenerateOutput:
        """All gains so far as one output. Raises: EngineError, EngineDead if the request failed."""
        gains, self.gains = self.gains, []
        last = gains[-1]
        if last.ending == "dead":
            raise EngineDead(last.error or "the engine died")
        if last.ending == "error":
            raise EngineError(last.error or "the request failed")
        ids = last.token_ids if len(gains) == 1 else [token_id for gain in gains for token_id in gain.token_ids]
        reason = FinishReason(last.ending) if last.ending else None
        return GenerateOutput(
            token_ids=tuple(ids),
            logprobs=tuple(logprob for gain in gains for logprob in _logprobs(gain)) if self.logprobs_wanted else (),
            finish_reason=reason,
            stop_token_id=ids[-1] if reason is FinishReason.STOP and ids else None,
        )


def _logprobs(gain: Gain) -> list[TokenLogprob]:
    tops = gain.top or [[]] * len(gain.token_ids)
    return [
        TokenLogprob(token_id=token_id, logprob=value, top=tuple((candidate, chance) for candidate, chance in top))
        for token_id, value, top in zip(gain.token_ids, gain.logprobs or (), tops, strict=True)
    ]
