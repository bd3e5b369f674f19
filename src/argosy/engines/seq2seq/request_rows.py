"""One request as a row of a batch, and which rows one decoding can hold.

The event loop makes a row, the thread of a lane feeds it, one consumer in the event loop empties it. No lock is needed:
each field has one writer, and `ending` is written after the last token and read before the tokens.
"""

from __future__ import annotations

import asyncio

import msgspec

from argosy.core.errors import ArgosyError
from argosy.core.generation import FinishReason, GenerateOutput, GenerateRequest, TokenLogprob
from argosy.core.sampling import SamplingParams


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """What all rows of one batch share: CTranslate2 takes these once for a whole batch.

    max_tokens: 0 where each row stops by itself; a beam is cut for all alike. stop_token_ids: none = only its length
    ends an answer.
    """

    beam_size: int
    max_tokens: int
    min_tokens: int
    stop_token_ids: frozenset[int]
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    with_scores: bool


def decoding_of(sampling: SamplingParams, beam_size: int) -> Decoding:
    """How a request's row must be decoded. Pure. Greedy requests are alike whatever their top_p and top_k."""
    is_greedy = sampling.is_greedy
    beams = beam_size if is_greedy else 1
    return Decoding(
        beam_size=beams,
        max_tokens=sampling.max_tokens if beams > 1 else 0,
        min_tokens=sampling.min_tokens,
        stop_token_ids=frozenset(sampling.stop_token_ids),
        temperature=1.0 if is_greedy else sampling.temperature,
        top_p=1.0 if is_greedy else sampling.top_p,
        top_k=1 if is_greedy else sampling.top_k,
        repetition_penalty=sampling.repetition_penalty,
        with_scores=sampling.logprobs is not None,
    )


class Row:
    """A request between the socket and a lane."""

    def __init__(self, request: GenerateRequest, beam_size: int) -> None:
        sampling = request.sampling
        self.request_id = request.request_id
        self.source = [str(token_id) for token_id in request.prompt_token_ids]
        self.decoding = decoding_of(sampling, beam_size)
        self.max_tokens = sampling.max_tokens
        self.submitted_at = 0.0  # monotonic seconds
        self.is_cancelled = False
        self.ending: FinishReason | ArgosyError | None = None
        self._ids: list[int] = []
        self._logprobs: list[float] = []
        self._handed_on = 0
        self._waiter: asyncio.Future[None] | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens gained so far."""
        return len(self._ids)

    def gain(self, token_id: int, logprob: float | None) -> bool:
        """Take a token, in the lane's thread. Returns whether the row is complete and leaves the batch."""
        if self.is_cancelled:
            self.ending = FinishReason.ABORT
            return True
        if logprob is not None:
            self._logprobs.append(logprob)
        self._ids.append(token_id)
        if token_id in self.decoding.stop_token_ids:
            self.ending = FinishReason.STOP
        elif len(self._ids) == self.max_tokens:
            self.ending = FinishReason.LENGTH
        return self.ending is not None

    def end(self, ending: FinishReason | ArgosyError) -> None:
        """End the row unless it has ended, in the lane's thread or before any lane had it."""
        if self.ending is None:
            self.ending = ending

    def wake(self) -> None:
        """Let the consumer look, in the event loop."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> GenerateOutput:
        """What came since the last call; waits for something. Cancels: nothing is lost. Raises: the row's error."""
        while self.ending is None and len(self._ids) == self._handed_on:
            await self._until_woken()
        ending = self.ending
        if isinstance(ending, ArgosyError):
            raise ending
        start, self._handed_on = self._handed_on, len(self._ids)
        ids = self._ids[start : self._handed_on]
        logprobs = self._logprobs[start : self._handed_on]
        return GenerateOutput(
            token_ids=tuple(ids),
            logprobs=tuple(TokenLogprob(token_id=i, logprob=value) for i, value in zip(ids, logprobs, strict=False)),
            finish_reason=ending,
            stop_token_id=ids[-1] if ending is FinishReason.STOP else None,
        )

    async def ended(self) -> None:
        """Return once no lane has the row any more."""
        while self.ending is None:
            await self._until_woken()

    async def _until_woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter
