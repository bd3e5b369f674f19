"""What a gateway writes into the span of a request: whom it was for, who answered, what it cost."""

from __future__ import annotations

from argosy.gateway.attempt import Attempt
from argosy.gateway.call import Call
from argosy.observe.tracing import current_span

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}


def write_span(call: Call, attempt: Attempt | None) -> None:
    """Once, at the end. attempt: the last replica that was asked; None = none was."""
    span = current_span.get()
    if not span.is_recording:
        return
    if operation := _OPERATIONS.get(call.path):
        span.set("gen_ai.operation.name", operation)
    span.set("gen_ai.provider.name", "argosy")
    span.set("gen_ai.request.model", call.prefix.model or call.service.name)
    span.set("argosy.service", call.service.name)
    if attempt is None:
        return
    span.set("argosy.revision", attempt.state.endpoint.revision)
    span.set("argosy.replica", attempt.state.endpoint.replica)
    if attempt.usage is not None:
        span.set("gen_ai.usage.input_tokens", attempt.usage.prompt_tokens)
        span.set("gen_ai.usage.output_tokens", attempt.usage.completion_tokens)
