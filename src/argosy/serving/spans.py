"""What a replica writes into the span of a request: what it cost, and where its time went."""

from __future__ import annotations

from collections.abc import Iterable

from argosy.observe.tracing import current_span
from argosy.serving.delta import Usage
from argosy.serving.timings import Timings


def write_span(model: str, usage: Usage, timings: Timings, reasons: Iterable[str]) -> None:
    """Once, at the end of a generation. model: the served name."""
    span = current_span.get()
    if not span.is_recording:
        return
    span.set("gen_ai.provider.name", "argosy")
    span.set("gen_ai.request.model", model)
    span.set("gen_ai.usage.input_tokens", usage.prompt_tokens)
    span.set("gen_ai.usage.output_tokens", usage.completion_tokens)
    span.set("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens)
    span.set("argosy.finish_reasons", ",".join(reasons))
    for part, seconds in (
        ("queue", timings.queue_seconds),
        ("prefill", timings.prefill_seconds),
        ("decode", timings.decode_seconds),
    ):
        if seconds is not None:
            span.set(f"argosy.{part}_seconds", seconds)
