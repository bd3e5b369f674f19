"""What a protocol asks of a served model, and what comes back checked: the types between `protocols` and `serving`."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from argosy.core.generation import GenerateRequest
from argosy.core.sampling import SamplingOverrides, TextParams
from argosy.text.tool_calls import ToolFormat


class ToolChoiceKind(StrEnum):
    """Whether the model may, must or must not call a tool. Source: OpenAI's `tool_choice`."""

    NONE = "none"
    AUTO = "auto"
    REQUIRED = "required"
    NAMED = "named"


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A choice of tools; `name` is set if and only if the kind is `named`."""

    kind: ToolChoiceKind = ToolChoiceKind.AUTO
    name: str | None = None


class ChatPrompt(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation and how to render it.

    messages: each with at least `role`; content already reduced to text. tools: OpenAI's form,
    `{"type": "function", "function": {"name", "description", "parameters"}}`.
    template_variables: extra names the chat template may read (already on an allow-list, D-10).
    """

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool = True
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    template_variables: dict[str, Any] = {}


class GenerateOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to answer one request.

    n: answers wanted; answer i uses seed + i. priority: smaller first, among the requests of one principal.
    deadline_seconds: from now to the last token; None = the server's own. principal: whom fairness counts it to.
    prefix_blocks: the prompt's beginning as gateways know it, for the record of what the cache holds.
    """

    request_id: str
    sampling: SamplingOverrides = SamplingOverrides()
    text: TextParams = TextParams()
    n: int = 1
    adapter: str | None = None
    priority: int = 0
    deadline_seconds: float | None = None
    principal: str = ""
    prefix_blocks: tuple[int, ...] = ()


class ToolParsing(msgspec.Struct, frozen=True, kw_only=True):
    """How tool calls are found in the answer.

    forced_name: the whole answer is the arguments of this tool (its schema constrains the sampling).
    tool_format: what to look for otherwise. max_calls: 1 if not parallel.
    keeps_special_tokens: the format's marks are special tokens, which must not be skipped.
    """

    forced_name: str | None = None
    tool_format: ToolFormat | None = None
    max_calls: int | None = None
    keeps_special_tokens: bool = False


class PreparedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that passed every check: what `ServedModel.generate` takes.

    requests: one per answer, differing in id and seed only. tools: None if no tool call is looked for.
    continues_text: the answers go on in the middle of a text, so a space at their front belongs to them.
    """

    options: GenerateOptions
    requests: tuple[GenerateRequest, ...]
    tools: ToolParsing | None = None
    continues_text: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt, counted once however many answers are wanted."""
        return len(self.requests[0].prompt_token_ids)

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        """The prompt as the engine sees it."""
        return self.requests[0].prompt_token_ids

    @property
    def max_tokens(self) -> int:
        """The most tokens one answer may have, after defaults."""
        return self.requests[0].sampling.max_tokens


class EmbedResult(msgspec.Struct, frozen=True, kw_only=True):
    """One unit-length vector per input, and the tokens all inputs had together."""

    vectors: list[list[float]]
    prompt_tokens: int
