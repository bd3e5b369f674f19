"""`POST /v1/chat/completions` as it arrives, and what it becomes: a `ChatPrompt` and `GenerateOptions`.

Source: OpenAI's API reference; vLLM 0.32 `ChatCompletionRequest` and its message parsing (parts joined by a newline).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from argosy.core.errors import InvalidRequest, UnsupportedParameter
from argosy.protocols.openai.decode import require_shallow
from argosy.protocols.openai.request_fields import GenerationFields, check_logprobs
from argosy.serving.options import ChatPrompt, ToolChoice, ToolChoiceKind

MAX_MESSAGES = 4096
MAX_TOOLS = 128  # OpenAI's limit of `tools`.


class ContentPart(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a message. Only `text` (and a refusal said earlier) can be read; the rest is known to be refused."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    image_embeds: Any = None
    input_audio: Any = None
    audio_url: Any = None
    video_url: Any = None
    file: Any = None
    uuid: str | None = None


class CalledFunction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a tool call calls; `arguments` is JSON in a string. parsed_arguments: the official client adds them."""

    name: str
    arguments: str = "{}"
    parsed_arguments: Any = None


class MessageToolCall(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call the assistant made in an earlier turn. index: clients that copy it from a stream send it along."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One turn. Fields that a response of ours carries may be sent back as they came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Meta(max_length=1024)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[MessageToolCall], Meta(max_length=MAX_TOOLS)] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    annotations: list[Any] | None = None
    audio: Any = None
    function_call: Any = None
    parsed: Any = None


class FunctionDefinition(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A function the model may call. strict: a forced call always obeys the schema, a free one tries to."""

    name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:/-]{1,128}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The name inside a named tool choice."""

    name: str


class NamedToolChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tool_choice` as an object: this function must be called."""

    type: Literal["function"]
    function: NamedFunction


class ChatCompletionRequest(GenerationFields, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: Annotated[list[Tool], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | NamedToolChoice | None = None
    parallel_tool_calls: bool | None = None
    echo: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    add_special_tokens: bool | None = None
    truncate_prompt_tokens: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    reasoning_effort: Annotated[str, Meta(max_length=64)] | None = None


def max_completion_tokens(request: ChatCompletionRequest) -> int | None:
    """The limit under either of its names. Raises: InvalidRequest if they disagree."""
    new, old = request.max_completion_tokens, request.max_tokens
    if new is not None and old is not None and new != old:
        raise InvalidRequest(
            f"max_completion_tokens is {new} and max_tokens is {old}: send one of them", param="max_completion_tokens"
        )
    return old if new is None else new


def wanted_logprobs(request: ChatCompletionRequest) -> int | None:
    """How many alternatives per token; None = no log probabilities. Raises: InvalidRequest."""
    if request.top_logprobs is not None:
        check_logprobs("top_logprobs", request.top_logprobs)
        if request.top_logprobs and not request.logprobs:
            raise InvalidRequest("when using `top_logprobs`, `logprobs` must be set to true.", param="top_logprobs")
    return (request.top_logprobs or 0) if request.logprobs else None


def chat_prompt(request: ChatCompletionRequest) -> ChatPrompt:
    """The conversation, with content reduced to text. Raises: InvalidRequest, UnsupportedParameter."""
    _refuse_prompt_edits(request)
    continues = bool(request.continue_final_message)
    if continues and request.add_generation_prompt:
        raise InvalidRequest(
            "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
            param="continue_final_message",
        )
    return ChatPrompt(
        messages=template_messages(request.messages),
        tools=template_tools(request.tools),
        tool_choice=_tool_choice(request),
        parallel_tool_calls=request.parallel_tool_calls is not False,
        add_generation_prompt=not continues and request.add_generation_prompt is not False,
        continue_final_message=continues,
        template_variables=_template_variables(request),
    )


def echoed_text(request: ChatCompletionRequest) -> str:
    """What `echo` puts before each answer: the final message that is being continued.

    Raises: InvalidRequest if nothing is continued.
    """
    if not request.echo:
        return ""
    if not request.continue_final_message:
        raise InvalidRequest(
            "`echo` repeats the message that is being continued: set `continue_final_message` too", param="echo"
        )
    return _text(request.messages[-1], len(request.messages) - 1) or ""


def template_messages(messages: list[Message]) -> tuple[dict[str, Any], ...]:
    """Messages as chat templates read them. Raises: InvalidRequest, UnsupportedParameter."""
    return tuple(_template_message(message, position) for position, message in enumerate(messages))


def template_tools(tools: list[Tool] | None) -> tuple[dict[str, Any], ...]:
    """Tools as chat templates read them. Raises: InvalidRequest."""
    if tools is None:
        return ()
    if not tools:
        raise InvalidRequest("`tools` must not be an empty array.", param="tools")
    for position, tool in enumerate(tools):
        require_shallow(tool.function.parameters, f"tools[{position}].function.parameters")
    return tuple(_template_tool(tool.function) for tool in tools)


def _template_variables(request: ChatCompletionRequest) -> dict[str, Any]:
    """What the template may read; `text` has the allow-list and knows what the model's template reads (D-10)."""
    variables = dict(request.chat_template_kwargs or {})
    if request.reasoning_effort is not None:
        variables["reasoning_effort"] = request.reasoning_effort
    require_shallow(variables, "chat_template_kwargs")
    return variables


def _refuse_prompt_edits(request: ChatCompletionRequest) -> None:
    if request.truncate_prompt_tokens is not None:
        raise UnsupportedParameter(
            "`truncate_prompt_tokens` is not supported for chats: cutting a rendered conversation breaks its "
            "turns; drop the oldest messages instead",
            param="truncate_prompt_tokens",
        )
    if request.add_special_tokens:
        raise UnsupportedParameter(
            "`add_special_tokens` is not supported for chats: the chat template writes them; leave it out",
            param="add_special_tokens",
        )


def _template_message(message: Message, position: int) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role  # templates know only the older word
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise UnsupportedParameter(
                f"`messages[{position}].{name}` is not supported: send text and tool_calls",
                param=f"messages[{position}].{name}",
            )
    rendered: dict[str, Any] = {"role": role, "content": _text(message, position)}
    for name in ("name", "tool_call_id", "reasoning_content"):
        value = getattr(message, name)
        if value is not None:
            rendered[name] = value
    if message.reasoning is not None:
        rendered["reasoning_content"] = message.reasoning
    if message.tool_calls:
        rendered["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function.name, "arguments": call.function.arguments},
            }
            for call in message.tool_calls
        ]
    return rendered


def _text(message: Message, position: int) -> str | None:
    if message.content is None:
        if message.role == "assistant" and (message.tool_calls or message.refusal):
            return message.refusal or ""
        raise InvalidRequest(
            f"messages[{position}].content is missing: send text, or tool_calls of an assistant",
            param=f"messages[{position}].content",
        )
    if isinstance(message.content, str):
        return message.content
    return "\n".join(
        _part_text(part, f"messages[{position}].content[{index}]") for index, part in enumerate(message.content)
    )


def _part_text(part: ContentPart, param: str) -> str:
    text = {"text": part.text, "refusal": part.refusal}.get(part.type)
    if part.type not in ("text", "refusal"):
        raise UnsupportedParameter(
            f"`{param}` is of type {part.type[:64]!r}, which is not supported: this server reads text only; "
            "send parts of type 'text'",
            param=param,
        )
    if text is None:
        raise InvalidRequest(f"{param}.{part.type} is missing: send a string", param=f"{param}.{part.type}")
    return text


def _template_tool(function: FunctionDefinition) -> dict[str, Any]:
    definition: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        definition["description"] = function.description
    definition["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return {"type": "function", "function": definition}


def _tool_choice(request: ChatCompletionRequest) -> ToolChoice:
    choice = request.tool_choice
    if choice is None:
        return ToolChoice(kind=ToolChoiceKind.AUTO if request.tools else ToolChoiceKind.NONE)
    if choice == "none":
        return ToolChoice(kind=ToolChoiceKind.NONE)
    if not request.tools:
        raise InvalidRequest("When using `tool_choice`, `tools` must be set.", param="tool_choice")
    if isinstance(choice, NamedToolChoice):
        return ToolChoice(kind=ToolChoiceKind.NAMED, name=choice.function.name)
    if choice not in ("auto", "required"):
        raise InvalidRequest(
            f"tool_choice must be none, auto, required or one function, got {choice[:64]!r}.", param="tool_choice"
        )
    return ToolChoice(kind=ToolChoiceKind(choice))
