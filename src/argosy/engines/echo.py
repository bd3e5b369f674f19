"""The smallest engine: it answers with its prompt, over and over. Every answer can be computed by hand.

The n-th new token is `prompt[n % len(prompt)]`; a token listed in `stop_token_ids` ends the answer once `min_tokens`
are out. A step gives every running request one token, so requests interleave as in a real batch; one turn of the
event loop is one step, and `steps_per_second` (an engine_arg) slows that down for demonstrations.
`kv_cache_tokens` bounds what runs at once: the rest waits, first come, first served. Used by tests and by
`argosy serve --engine echo`, which needs weights only for their tokenizer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator

from argosy.core.engine import EngineFeature, EngineInfo, EngineSettings, EngineStats
from argosy.core.errors import EngineDead, SpecError
from argosy.core.generation import FinishReason, GenerateOutput, GenerateRequest, TokenLogprob
from argosy.core.model import ModelFiles

# What can be honoured by repeating a prompt: everything but what would change which token comes next.
FEATURES = frozenset(
    {
        EngineFeature.SAMPLING,
        EngineFeature.SEED,
        EngineFeature.TOP_P,
        EngineFeature.TOP_K,
        EngineFeature.MIN_P,
        EngineFeature.MIN_TOKENS,
        EngineFeature.IGNORE_EOS,
        EngineFeature.STOP_TOKEN_IDS,
        EngineFeature.LOGPROBS,
        EngineFeature.TOP_LOGPROBS,
    }
)


class EchoEngine:
    """Repeats the prompt, token by token, with probability one."""

    def __init__(self, files: ModelFiles | None = None, settings: EngineSettings | None = None) -> None:
        settings = settings or EngineSettings()
        arguments = dict(settings.engine_args)
        steps_per_second = float(arguments.pop("steps_per_second", 0))
        if arguments or steps_per_second < 0:
            raise SpecError(
                f"engine_args {settings.engine_args} do not fit the echo engine: it knows steps_per_second >= 0"
            )
        known_len = files.info.max_model_len if files else 8192
        self._step_seconds = 1 / steps_per_second if steps_per_second else 0.0
        self._running: set[str] = set()
        self._waiting: deque[str] = deque()
        self._closed = asyncio.Event()
        self._info = EngineInfo(
            name="echo",
            version="1",
            device="none",
            max_model_len=min(settings.max_model_len or known_len, known_len),
            max_num_seqs=settings.max_num_seqs or 256,
            features=FEATURES,
            kv_cache_tokens=known_len * (settings.max_num_seqs or 256),
        )

    @property
    def info(self) -> EngineInfo:
        """The engine's facts."""
        return self._info

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateOutput]:
        """The prompt, repeated. Cancels: leaves the batch at once."""
        self._waiting.append(request.request_id)
        try:
            while not self._may_run(request.request_id):
                await self._step()
            for position in range(request.sampling.max_tokens):
                await self._step()
                yield _echo(request, position)
                if _ends(request, position):
                    return
        finally:
            self._running.discard(request.request_id)
            if request.request_id in self._waiting:
                self._waiting.remove(request.request_id)

    def _may_run(self, request_id: str) -> bool:
        if self._waiting[0] == request_id and len(self._running) < self._info.max_num_seqs:
            self._running.add(self._waiting.popleft())
        return request_id in self._running

    async def _step(self) -> None:
        await asyncio.sleep(self._step_seconds)
        if self._closed.is_set():
            raise EngineDead("the echo engine is closed: start a new one")

    def stats(self) -> EngineStats:
        """How many run and wait; the cache fills by running requests."""
        return EngineStats(
            num_requests_running=len(self._running),
            num_requests_waiting=len(self._waiting),
            kv_cache_usage_ratio=len(self._running) / self._info.max_num_seqs,
        )

    async def check_health(self) -> None:
        """Healthy until closed. Raises: EngineDead."""
        if self._closed.is_set():
            raise EngineDead("the echo engine is closed: start a new one")

    async def close(self) -> None:
        """Every running request ends with EngineDead at its next step. Idempotent."""
        self._closed.set()


def _ends(request: GenerateRequest, position: int) -> bool:
    return position + 1 == request.sampling.max_tokens or _is_stop(request, position)


def _is_stop(request: GenerateRequest, position: int) -> bool:
    return _token(request, position) in request.sampling.stop_token_ids and (
        position + 1 >= max(request.sampling.min_tokens, 1)
    )


def _token(request: GenerateRequest, position: int) -> int:
    return request.prompt_token_ids[position % len(request.prompt_token_ids)]


def _echo(request: GenerateRequest, position: int) -> GenerateOutput:
    token_id = _token(request, position)
    is_stop = _is_stop(request, position)
    logprobs: tuple[TokenLogprob, ...] = ()
    wanted = request.sampling.logprobs
    if wanted is not None:
        top = ((token_id, 0.0),) if wanted else ()
        logprobs = (TokenLogprob(token_id=token_id, logprob=0.0, top=top),)
    reason = FinishReason.STOP if is_stop else FinishReason.LENGTH if _ends(request, position) else None
    return GenerateOutput(
        token_ids=(token_id,),
        logprobs=logprobs,
        finish_reason=reason,
        stop_token_id=token_id if is_stop else None,
        num_cached_tokens=0 if position == 0 else None,
    )
