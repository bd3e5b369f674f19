"""Messages as an API carries them → messages as chat templates expect them.

Templates were written for the dictionaries that `transformers` hands them, and differ from the API in three ways:
content is a string (lists of text parts are joined), never null, and a tool call's arguments are an object, not JSON
in a string. What a text model cannot take, an image or a sound, is refused by place (D-29).

Source: vLLM, entrypoints/chat_utils.py (parts joined by newlines; arguments decoded).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from argosy.core.errors import InvalidRequest

_TEXT_PARTS = {"text", "input_text", "output_text"}


def template_messages(messages: Sequence[Mapping[str, Any]], *, has_parts: bool) -> list[dict[str, Any]]:
    """The messages for a template. has_parts: it wants content as a list of parts.

    Raises: InvalidRequest naming the message and the field.
    """
    if not messages:
        raise InvalidRequest("messages must not be empty: send at least one message", param="messages")
    return [_message(message, f"messages[{index}]", has_parts) for index, message in enumerate(messages)]


def _message(message: Mapping[str, Any], place: str, has_parts: bool) -> dict[str, Any]:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise InvalidRequest(f"{place} must be an object with a role: send role and content", param=f"{place}.role")
    text = _content_text(message.get("content"), f"{place}.content")
    content = [{"type": "text", "text": text}] if has_parts else text
    result = {**message, "content": content}
    calls = message.get("tool_calls")
    if calls:
        result["tool_calls"] = [_tool_call(call, f"{place}.tool_calls[{at}]") for at, call in enumerate(calls)]
    elif "tool_calls" in result:
        del result["tool_calls"]
    return result


def _content_text(content: object, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list | tuple):
        raise InvalidRequest(f"{place} must be a string or a list of text parts", param=place)
    return "\n".join(_part_text(part, f"{place}[{index}]") for index, part in enumerate(content))


def _part_text(part: object, place: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get("text") if isinstance(part, Mapping) else None
    if kind not in _TEXT_PARTS or not isinstance(text, str):
        raise InvalidRequest(
            f"{place} has type {kind!r}; this model reads text only: send parts of type 'text'", param=place
        )
    return text


def _tool_call(call: object, place: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{place} must have a function with a name", param=place)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = msgspec.json.decode(arguments, type=dict[str, Any]) if arguments.strip() else {}
        except (msgspec.DecodeError, RecursionError) as error:
            name = f"{place}.function.arguments"
            raise InvalidRequest(
                f"{name} is not a JSON object: {error}; send the arguments as JSON", param=name
            ) from error
    return {**call, "function": {**function, "arguments": arguments or {}}}
