"""`POST /v1/completions` as it arrives.

Source: OpenAI's API reference (legacy completions); vLLM 0.32 `CompletionRequest`.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from argosy.core.errors import InvalidRequest, UnsupportedParameter
from argosy.protocols.openai.request_fields import GenerationFields, TokenId, check_logprobs
from argosy.protocols.openai.text_or_ids import FieldRule, TextOrIds, each_of

# 1,024 is vLLM's limit of items in `prompt`.
_PROMPTS = FieldRule(field="prompt", plural="prompts", items="prompts", max_items=1024)
MAX_ANSWERS = 2048  # prompts times n: each is held in memory from the beginning.
DEFAULT_MAX_TOKENS = 16  # OpenAI's default of `max_tokens` on this route, kept by vLLM.


class CompletionRequest(GenerationFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/completions`. prompt: a text, texts, one list of token ids, or lists of them."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]
    logprobs: int | None = None
    echo: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None


def prompts(request: CompletionRequest) -> list[TextOrIds]:
    """The prompts, each a text or token ids. Raises: InvalidRequest."""
    return each_of(request.prompt, _PROMPTS)


def check_answers(num_prompts: int, n: int) -> None:
    """Raises: InvalidRequest if the prompts and n make too many answers together."""
    if num_prompts * n > MAX_ANSWERS:
        raise InvalidRequest(
            f"{num_prompts} prompts with n={n} make {num_prompts * n} answers, and one request holds at most "
            f"{MAX_ANSWERS}: send fewer prompts, or a smaller n",
            param="n",
        )


def wanted_logprobs(request: CompletionRequest) -> int | None:
    """How many alternatives per token; None = no log probabilities. Raises: InvalidRequest, UnsupportedParameter."""
    if request.logprobs is None:
        return None
    if request.echo:
        raise UnsupportedParameter(
            "`logprobs` together with `echo` is not supported: only generated tokens are scored; leave out one",
            param="logprobs",
        )
    return check_logprobs("logprobs", request.logprobs)


def kept_prompt_tokens(request: CompletionRequest, max_model_len: int) -> int | None:
    """How many tokens of the prompt's end to keep; None = all. Raises: InvalidRequest."""
    limit = request.truncate_prompt_tokens
    if limit is None:
        return None
    if limit == -1:
        return max(max_model_len - (request.max_tokens or DEFAULT_MAX_TOKENS), 1)
    if limit < 1:
        raise InvalidRequest(
            f"truncate_prompt_tokens must be -1 (as many as fit) or at least 1, got {limit}.",
            param="truncate_prompt_tokens",
        )
    return limit
