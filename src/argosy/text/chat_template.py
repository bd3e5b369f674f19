"""A conversation → the prompt a model was trained on, as text (`render`) and as ids (`encode`).

The template is the model's own Jinja source, compiled once, in the sandbox of `template_sandbox.py`. `encode` is not
"render, then tokenize": it keeps apart the special tokens the template writes from those a user writes
(`user_text.py`).

A request chooses messages, tools and a few named switches such as `enable_thinking`. It can neither bring a template
nor set any other variable of the template (D-10).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError

from argosy.core.errors import ArgosyError, InvalidRequest, SpecError, UnsupportedParameter
from argosy.core.model import ModelFiles
from argosy.text.chat_messages import template_messages
from argosy.text.template_limits import TemplateLimit
from argosy.text.template_sandbox import TemplateEnvironment
from argosy.text.tokenizer import Tokenizer
from argosy.text.user_text import UserText

MAX_SOURCE_CHARACTERS = 256 * 1024
MAX_VARIABLE_CHARACTERS = 1000
TEMPLATE_VARIABLES = frozenset(
    {
        "add_vision_id", "builtin_tools", "clear_thinking", "date_string", "enable_thinking", "keep_past_thinking",
        "model_identity", "preserve_thinking", "reasoning_effort", "thinking", "thinking_budget", "thinking_mode",
        "tools_in_user_message",
    }
)  # fmt: skip
# What running a stranger's template on a stranger's messages may raise.
_RENDER_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
_COMPILE_ERRORS = (*_RENDER_ERRORS, SyntaxError, AssertionError)
_NO_VARIABLES: Mapping[str, Any] = MappingProxyType({})


class ChatTemplate:
    """The chat template of one model. Safe to share between threads."""

    def __init__(self, source: str) -> None:
        """Compile `source`. Raises: SpecError saying line and reason if it is wrong or not safe to run."""
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise SpecError(
                f"the model's chat template has {len(source):,} characters; at most {MAX_SOURCE_CHARACTERS:,} are read"
            )
        self.source = source
        self._environment = TemplateEnvironment()
        try:
            self._has_parts = _wants_parts(self._environment.parse(source))
            self._template, names = self._environment.compile_checked(source)
        except SecurityError as error:
            raise SpecError(f"the model's chat template is not safe to run: {error.message}") from error
        except _COMPILE_ERRORS as error:
            line = getattr(error, "lineno", None)
            place = f", line {line}" if line else ""
            raise SpecError(f"the model's chat template does not compile{place}: {error}") from error
        self.supports_tools = "tools" in names
        self.variables = frozenset(names & TEMPLATE_VARIABLES)

    def encode(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] = _NO_VARIABLES,
    ) -> list[int]:
        """The prompt as token ids. Special tokens written in messages, tools or variables stay plain text.

        Raises: InvalidRequest, UnsupportedParameter.
        """
        user = UserText(tokenizer.reserved_strings)
        given = _given(messages, tools, self._checked(variables), self._has_parts)
        rendered = self._render(user, given, tokenizer, add_generation_prompt, continue_final_message)
        if not user.has_masks:
            return tokenizer.encode(rendered, add_special_tokens=False)
        return tokenizer.encode_segments(user.segments(rendered))

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tokenizer: Tokenizer,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] = _NO_VARIABLES,
    ) -> str:
        """The prompt as text: to look at; `encode` alone tells whose special tokens are whose. Raises: as `encode`."""
        user = UserText(tokenizer.reserved_strings)
        given = _given(messages, tools, self._checked(variables), self._has_parts)
        return user.restored(self._render(user, given, tokenizer, add_generation_prompt, continue_final_message))

    def _render(
        self, user: UserText, given: dict[str, Any], tokenizer: Tokenizer, add_generation_prompt: bool, continues: bool
    ) -> str:
        if continues and add_generation_prompt:
            raise InvalidRequest(
                "Cannot set both `continue_final_message` and `add_generation_prompt` to True: choose one",
                param="continue_final_message",
            )
        try:
            given = {name: user.masked(value) for name, value in given.items()}
        except RecursionError as error:
            raise InvalidRequest("messages are nested too deeply: flatten them", param="messages") from error
        end = _mark_end(given["messages"]) if continues else ""
        rendered = self._run({**_special_strings(tokenizer), **given, "add_generation_prompt": add_generation_prompt})
        if not end:
            return rendered
        if end not in rendered:
            raise InvalidRequest(
                "the model's chat template does not show the final message, so it cannot be continued",
                param="continue_final_message",
            )
        return rendered[: rendered.index(end)]

    def _run(self, variables: dict[str, Any]) -> str:
        meter = self._environment.meter
        meter.start()
        pieces: list[str] = []
        try:
            for piece in self._template.root_render_func(self._template.new_context(variables)):
                meter.produce(len(piece))
                pieces.append(piece)
        except ArgosyError:
            raise
        except TemplateLimit as error:
            raise InvalidRequest(
                f"rendering these messages was stopped, {error}: shorten the messages", param="messages"
            ) from error
        except _RENDER_ERRORS as error:
            raise InvalidRequest(
                f"the model's chat template cannot render these messages: {error!s:.500}", param="messages"
            ) from error
        return "".join(pieces)

    def _checked(self, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        for name, value in variables.items():
            place = f"chat_template_kwargs.{name}"
            if name not in TEMPLATE_VARIABLES:
                known = ", ".join(sorted(self.variables)) or "none"
                raise InvalidRequest(
                    f"{place} is not accepted: this model's template knows {known}", param="chat_template_kwargs"
                )
            if not isinstance(value, bool | int | float | str | None) or len(str(value)) > MAX_VARIABLE_CHARACTERS:
                raise InvalidRequest(f"{place} must be a short string, a number or true or false", param=place)
            if name not in self.variables and value not in (None, False):
                raise UnsupportedParameter(
                    f"{place} is not a variable of this model's chat template: leave it out", param=place
                )
        return variables


def load_chat_template(files: ModelFiles, tokenizer: Tokenizer) -> ChatTemplate | None:
    """The template of a model; None for a base model, which has none. Raises: SpecError naming the model."""
    if not tokenizer.chat_template:
        return None
    try:
        return ChatTemplate(tokenizer.chat_template)
    except SpecError as error:
        raise SpecError(f"{files.ref}: {error.message}") from error


def _given(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None,
    variables: Mapping[str, Any],
    has_parts: bool,
) -> dict[str, Any]:
    """What the request gives the template."""
    return {
        **variables,
        "messages": template_messages(messages, has_parts=has_parts),
        "tools": list(tools) if tools else None,
        "documents": None,
    }


def _special_strings(tokenizer: Tokenizer) -> dict[str, Any]:
    """bos_token and its like, for templates that write them. Source: transformers' `special_tokens_map`."""
    facts = tokenizer.vocabulary
    named = {"bos_token": facts.bos_token_id, "unk_token": facts.unk_token_id, "pad_token": facts.pad_token_id}
    strings = {name: tokenizer.token_text(token_id) for name, token_id in named.items() if token_id is not None}
    if facts.eos_token_id is not None:
        strings["eos_token"] = tokenizer.token_text(facts.eos_token_id)
    return strings


def _mark_end(messages: list[dict[str, Any]]) -> str:
    """Put a mark nobody can write at the end of the last message, and return it."""
    mark = f"\ue0a6{secrets.randbelow(10**24)}\ue0a7"
    content = messages[-1]["content"]
    if isinstance(content, str):
        messages[-1]["content"] = content + mark
    else:
        content[-1]["text"] += mark
    return mark


def _wants_parts(tree: nodes.Template) -> bool:
    """Whether the template loops over `content` and never asks if it is a string: it must be given a list."""
    loops = any(_is_content(loop.iter) for loop in tree.find_all(nodes.For))
    return loops and not any(test.name == "string" for test in tree.find_all(nodes.Test))


def _is_content(node: nodes.Node) -> bool:
    if isinstance(node, nodes.Getattr):
        return node.attr == "content"
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and node.arg.value == "content"
