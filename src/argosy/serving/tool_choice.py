"""From a client's tools and tool_choice to what the sampler must obey and what the parser must look for. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from argosy.core.errors import InvalidRequest, UnsupportedParameter
from argosy.core.sampling import Constraint, ConstraintKind
from argosy.serving.options import ChatPrompt, ToolChoiceKind, ToolParsing
from argosy.text.tool_calls import ToolFormat

_ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}


class ToolPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool choice comes down to. template_tools: the tools the chat template is shown."""

    template_tools: tuple[dict[str, Any], ...] = ()
    parsing: ToolParsing | None = None
    constraint: Constraint | None = None


def plan_tools(prompt: ChatPrompt, tool_format: ToolFormat | None, *, has_constraint: bool) -> ToolPlan:
    """How to honour the prompt's tools and tool_choice.

    With `required` or a named tool, the tool's own JSON schema constrains the sampling, so that the call is valid
    by construction, whatever the chat template knows of tools.
    has_constraint: the request has a response format of its own.
    Raises: InvalidRequest, UnsupportedParameter.
    """
    kind = prompt.tool_choice.kind
    if not prompt.tools or kind is ToolChoiceKind.NONE:
        if kind in (ToolChoiceKind.REQUIRED, ToolChoiceKind.NAMED):
            raise InvalidRequest("When using `tool_choice`, `tools` must be set.", param="tool_choice")
        return ToolPlan(template_tools=prompt.tools)
    max_calls = None if prompt.parallel_tool_calls else 1
    if kind is ToolChoiceKind.AUTO:
        if tool_format is None:
            raise UnsupportedParameter(
                "this model's chat template knows no tool calls: set tool_choice to 'required' or to a named tool, "
                "or use a model made for tools",
                param="tools",
            )
        return ToolPlan(
            template_tools=prompt.tools,
            parsing=ToolParsing(
                tool_format=tool_format,
                max_calls=max_calls,
                keeps_special_tokens=tool_format.needs_special_tokens,
            ),
        )
    if has_constraint:
        raise InvalidRequest(
            f"tool_choice {kind.value!r} and a response format both dictate the answer: use one of them",
            param="tool_choice",
        )
    functions = {tool["function"]["name"]: tool["function"] for tool in prompt.tools}
    return _forced(prompt, functions)


def _forced(prompt: ChatPrompt, functions: dict[str, dict[str, Any]]) -> ToolPlan:
    """The plan when a call must come out: arguments alone if the tool is known, else name and arguments."""
    name = prompt.tool_choice.name
    if prompt.tool_choice.kind is ToolChoiceKind.NAMED and name not in functions:
        raise InvalidRequest(f"tool_choice names {name!r}, but tools are {', '.join(functions)}", param="tool_choice")
    if name is not None and name in functions:
        return ToolPlan(
            template_tools=prompt.tools,
            parsing=ToolParsing(forced_name=name),
            constraint=_schema_constraint(_arguments(functions[name])),
        )
    calls = [_call_schema(known, function) for known, function in functions.items()]
    return ToolPlan(
        template_tools=prompt.tools,
        parsing=ToolParsing(tool_format=ToolFormat.LLAMA3, max_calls=1),
        constraint=_schema_constraint(calls[0] if len(calls) == 1 else {"anyOf": calls}),
    )


def _call_schema(name: str, function: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "parameters": _arguments(function)},
        "required": ["name", "parameters"],
        "additionalProperties": False,
    }


def _arguments(function: dict[str, Any]) -> dict[str, Any]:
    return function.get("parameters") or _ANY_ARGUMENTS


def _schema_constraint(schema: dict[str, Any]) -> Constraint:
    return Constraint(kind=ConstraintKind.JSON_SCHEMA, text=msgspec.json.encode(schema).decode())
