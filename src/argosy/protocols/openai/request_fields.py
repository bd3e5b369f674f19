"""The fields chat and text completions share, and what they become: `SamplingOverrides`, `TextParams`, options.

Types are checked by decoding; the ranges of sampling values by `core.sampling.resolve_sampling`, for every protocol
alike. Here stay the rules that belong to this wire: which fields exclude each other, and the bounds of lists.

Source: rules and texts of vLLM 0.32 (`SamplingParams`, `CompletionRequest`); OpenAI's API reference.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from argosy.core.errors import InvalidRequest
from argosy.core.sampling import (
    MAX_LOGPROBS,
    Constraint,
    ConstraintKind,
    SamplingOverrides,
    TextParams,
)
from argosy.protocols.openai.decode import require_shallow

MAX_STOP_STRINGS = 4  # OpenAI's limit of `stop`.
MAX_STOP_LENGTH = 256
MAX_CONSTRAINT_LENGTH = 65_536

TokenId = Annotated[int, Meta(ge=0, lt=2**31)]


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a stream carries besides text. include_obfuscation: only `false`; nothing is padded."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class StructuredOutputs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """vLLM's `structured_outputs`: exactly one rule the whole answer obeys."""

    json: str | dict[str, Any] | None = None
    regex: Annotated[str, Meta(min_length=1, max_length=MAX_CONSTRAINT_LENGTH)] | None = None
    choice: Annotated[list[str], Meta(min_length=1, max_length=1024)] | None = None
    grammar: Annotated[str, Meta(min_length=1, max_length=MAX_CONSTRAINT_LENGTH)] | None = None
    json_object: bool | None = None


class JsonSchemaFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named JSON schema. strict: accepted either way; the answer always obeys the schema."""

    name: str
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OpenAI's `response_format`: text, json_object or json_schema."""

    type: str
    json_schema: JsonSchemaFormat | None = None


class GenerationFields(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What both kinds of completion take. Unset fields fall to the model's own defaults."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    best_of: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: Annotated[list[TokenId], Meta(max_length=256)] | None = None
    include_stop_str_in_output: bool | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    logit_bias: dict[int, float] | None = None
    allowed_token_ids: Annotated[list[TokenId], Meta(max_length=10_000)] | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: Annotated[str, Meta(min_length=1, max_length=MAX_CONSTRAINT_LENGTH)] | None = None
    guided_choice: Annotated[list[str], Meta(min_length=1, max_length=1024)] | None = None
    guided_grammar: Annotated[str, Meta(min_length=1, max_length=MAX_CONSTRAINT_LENGTH)] | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    return_timings: bool | None = None
    priority: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    request_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


def answers_wanted(fields: GenerationFields) -> int:
    """`n`; its range depends on the engine and is checked by `serving`. Raises: InvalidRequest."""
    n = 1 if fields.n is None else fields.n
    if fields.best_of is not None and fields.best_of != n:
        raise InvalidRequest(
            f"best_of must equal n, got best_of={fields.best_of} and n={n}: it was removed from the API; use n",
            param="best_of",
        )
    return n


def check_stream_options(fields: GenerationFields) -> None:
    """Raises: InvalidRequest if options of a stream come without one."""
    options = fields.stream_options
    if options is None:
        return
    if not fields.stream:
        raise InvalidRequest("Stream options can only be defined when `stream=True`.", param="stream_options")
    if options.include_obfuscation:
        raise InvalidRequest(
            "`include_obfuscation` is not supported: chunks are not padded; leave it out",
            param="stream_options.include_obfuscation",
        )


def sampling_overrides(fields: GenerationFields, *, max_tokens: int | None, logprobs: int | None) -> SamplingOverrides:
    """What the request says of sampling. Raises: InvalidRequest."""
    return SamplingOverrides(
        max_tokens=max_tokens,
        min_tokens=fields.min_tokens,
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k,
        min_p=fields.min_p,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        repetition_penalty=fields.repetition_penalty,
        seed=fields.seed,
        ignore_eos=fields.ignore_eos,
        stop_token_ids=_optional_tuple(fields.stop_token_ids),
        logprobs=logprobs,
        logit_bias=fields.logit_bias,
        allowed_token_ids=_optional_tuple(fields.allowed_token_ids),
        constraint=constraint(fields),
    )


def text_params(fields: GenerationFields) -> TextParams:
    """What happens to the text. Raises: InvalidRequest."""
    stop = [fields.stop] if isinstance(fields.stop, str) else fields.stop or []
    if len(stop) > MAX_STOP_STRINGS:
        raise InvalidRequest(f"stop holds at most {MAX_STOP_STRINGS} strings, got {len(stop)}.", param="stop")
    for text in stop:
        if not text:
            raise InvalidRequest("stop cannot contain an empty string.", param="stop")
        if len(text) > MAX_STOP_LENGTH:
            raise InvalidRequest(
                f"a stop string holds at most {MAX_STOP_LENGTH} characters, got {len(text)}.", param="stop"
            )
    return TextParams(
        stop=tuple(stop),
        include_stop=bool(fields.include_stop_str_in_output),
        skip_special_tokens=fields.skip_special_tokens is not False,
    )


def check_logprobs(name: str, value: int) -> int:
    """`value`, if so many alternatives can be asked for. Raises: InvalidRequest."""
    if not 0 <= value <= MAX_LOGPROBS:
        raise InvalidRequest(f"{name} must be in [0, {MAX_LOGPROBS}], got {value}.", param=name)
    return value


def constraint(fields: GenerationFields) -> Constraint | None:
    """The one rule the answer must obey, from any of the four places a client may put it.

    Raises: InvalidRequest if there are two, or one that says nothing.
    """
    rules = [*_from_response_format(fields.response_format), *_from_structured_outputs(fields)]
    if len(rules) > 1:
        names = ", ".join(name for name, _ in rules)
        raise InvalidRequest(
            f"You can only use one kind of constraints for structured outputs, got {names}.", param=rules[1][0]
        )
    return rules[0][1] if rules else None


def _from_response_format(wanted: ResponseFormat | None) -> list[tuple[str, Constraint]]:
    if wanted is None or wanted.type == "text":
        return []
    if wanted.type == "json_object":
        return [("response_format", Constraint(kind=ConstraintKind.JSON_OBJECT))]
    if wanted.type != "json_schema":
        raise InvalidRequest(
            f"response_format.type must be text, json_object or json_schema, got {wanted.type[:64]!r}.",
            param="response_format.type",
        )
    if wanted.json_schema is None:
        raise InvalidRequest(
            "When response_format type is 'json_schema', the 'json_schema' field must be provided.",
            param="response_format.json_schema",
        )
    if wanted.json_schema.schema is None:
        raise InvalidRequest(
            "response_format.json_schema.schema is missing: send the schema, or use json_object",
            param="response_format.json_schema.schema",
        )
    return [("response_format", _schema(wanted.json_schema.schema, "response_format.json_schema.schema"))]


def _from_structured_outputs(fields: GenerationFields) -> list[tuple[str, Constraint]]:
    wanted = fields.structured_outputs or StructuredOutputs()
    if fields.structured_outputs is not None and wanted in (StructuredOutputs(), StructuredOutputs(json_object=False)):
        raise InvalidRequest(
            "structured_outputs needs one of json, regex, choice, grammar, json_object.", param="structured_outputs"
        )
    rules: list[tuple[str, Constraint]] = []
    sources: list[tuple[str, Any, ConstraintKind]] = [
        ("structured_outputs.json", wanted.json, ConstraintKind.JSON_SCHEMA),
        ("structured_outputs.regex", wanted.regex, ConstraintKind.REGEX),
        ("structured_outputs.choice", wanted.choice, ConstraintKind.CHOICE),
        ("structured_outputs.grammar", wanted.grammar, ConstraintKind.GRAMMAR),
        ("structured_outputs.json_object", wanted.json_object or None, ConstraintKind.JSON_OBJECT),
        ("guided_json", fields.guided_json, ConstraintKind.JSON_SCHEMA),
        ("guided_regex", fields.guided_regex, ConstraintKind.REGEX),
        ("guided_choice", fields.guided_choice, ConstraintKind.CHOICE),
        ("guided_grammar", fields.guided_grammar, ConstraintKind.GRAMMAR),
    ]
    for name, value, kind in sources:
        if value is not None:
            rules.append((name, _rule(name, value, kind)))
    return rules


def _rule(name: str, value: Any, kind: ConstraintKind) -> Constraint:
    if kind is ConstraintKind.JSON_OBJECT:
        return Constraint(kind=kind)
    if kind is ConstraintKind.CHOICE:
        if not all(value):
            raise InvalidRequest(f"{name} cannot contain an empty string.", param=name)
        return Constraint(kind=kind, choices=tuple(value))
    if kind is ConstraintKind.JSON_SCHEMA:
        return _schema(value, name)
    return Constraint(kind=kind, text=value)


def _schema(schema: str | dict[str, Any], param: str) -> Constraint:
    if isinstance(schema, str):
        try:
            schema = msgspec.json.decode(schema, type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as exc:
            raise InvalidRequest(f"{param} is not a JSON schema: {exc}: send one JSON object", param=param) from exc
    require_shallow(schema, param)
    text = msgspec.json.encode(schema).decode()
    if len(text) > MAX_CONSTRAINT_LENGTH:
        raise InvalidRequest(
            f"{param} is {len(text)} characters long; at most {MAX_CONSTRAINT_LENGTH} are accepted", param=param
        )
    return Constraint(kind=ConstraintKind.JSON_SCHEMA, text=text)


def _optional_tuple(values: list[int] | None) -> tuple[int, ...] | None:
    return None if values is None else tuple(values)
