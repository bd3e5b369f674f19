"""From a load to request bodies: which request, when, with how many tokens. Pure functions of spec and seed."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import msgspec

from argosy.evals.arrivals import arrival_times
from argosy.evals.prompts import PromptLine, PromptWriter
from argosy.evals.spec import ApiEndpoint, BenchSpec, ClosedLoad, Load, OpenLoad
from argosy.evals.traces import MOONCAKE_BLOCK_TOKENS, TraceRequest

# Warm-up prompts take keys of their own, so that no measured prompt is in a prefix cache already.
WARMUP_KEYS_FROM = 1_000_000
_encode = msgspec.json.Encoder().encode


class PlannedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request to send. at_seconds: intended send time from the start; None = as soon as a client is free."""

    index: int
    prompt_tokens: int
    max_tokens: int
    at_seconds: float | None = None
    blocks: tuple[int, ...] = ()


def planned_requests(load: Load, spec: BenchSpec, trace: Sequence[TraceRequest] = ()) -> Iterator[PlannedRequest]:
    """The requests of one load in order of sending; endless but for a trace or `num_requests`."""
    if isinstance(load, ClosedLoad | OpenLoad):
        times: Iterator[float | None] = itertools.repeat(None)
        if isinstance(load, OpenLoad):
            times = arrival_times(load.rate, load.burstiness, random.Random(spec.seed))
        found = (
            PlannedRequest(index=index, at_seconds=at, prompt_tokens=spec.prompts.tokens, max_tokens=spec.max_tokens)
            for index, at in enumerate(times)
        )
        return itertools.islice(found, spec.num_requests)
    limit = load.max_prompt_tokens or 1_000_000_000
    return itertools.islice(
        (
            PlannedRequest(
                index=index,
                at_seconds=request.at_seconds,
                prompt_tokens=min(limit, max(1, round(request.prompt_tokens * load.token_scale))),
                max_tokens=min(spec.max_tokens, max(1, round(request.output_tokens * load.token_scale))),
                blocks=request.blocks,
            )
            for index, request in enumerate(trace)
        ),
        spec.num_requests,
    )


class RequestWriter:
    """Writes the body of each request. token_scale: of a trace, whose prefix blocks shrink with its prompts."""

    def __init__(
        self,
        spec: BenchSpec,
        model: str,
        prompts: PromptWriter,
        lines: Sequence[PromptLine] = (),
        token_scale: float = 1.0,
    ) -> None:
        self._spec = spec
        self._prompts = prompts
        self._lines = lines
        self._block_tokens = max(1, round(MOONCAKE_BLOCK_TOKENS * token_scale))
        self._settings: dict[str, object] = {
            "model": model,
            "temperature": spec.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"ignore_eos": True} if spec.ignore_eos else {}),
            **spec.extra_body,
        }

    def body(self, planned: PlannedRequest) -> bytes:
        """The JSON of one request."""
        line = self._lines[planned.index % len(self._lines)] if self._lines else None
        limit = planned.max_tokens if line is None or line.max_tokens is None else line.max_tokens
        if line is not None and line.messages is not None:
            return self._encode(line.messages, None, limit)
        text = line.prompt if line is not None and line.prompt is not None else self._synthetic(planned)
        return self._encode(None, text, limit)

    def _synthetic(self, planned: PlannedRequest) -> str:
        if planned.blocks:
            return self._prompts.text_of_blocks(planned.prompt_tokens, planned.blocks, self._block_tokens)
        shape = self._spec.prompts
        return self._prompts.text(
            planned.prompt_tokens,
            planned.index,
            prefix_tokens=shape.shared_prefix_tokens,
            prefix_key=planned.index % shape.prefix_groups,
        )

    def _encode(self, messages: list[dict[str, object]] | None, text: str | None, max_tokens: int) -> bytes:
        if self._spec.endpoint is ApiEndpoint.CHAT:
            asked: dict[str, object] = {"messages": messages or [{"role": "user", "content": text}]}
        else:
            asked = {"prompt": text if text is not None else _joined(messages or [])}
        return _encode({**self._settings, **asked, "max_tokens": max_tokens})


def _joined(messages: Sequence[dict[str, object]]) -> str:
    return "\n".join(str(message.get("content", "")) for message in messages)
