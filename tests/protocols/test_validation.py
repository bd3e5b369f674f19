"""Every rule of the wire, one row each: what is sent, which field is named, how the message begins."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.anyio

SCHEMA = {"name": "x", "schema": {"type": "object"}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}

# Fields beside model and messages; the field that must be named; the beginning of the message.
CHAT_ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": -1}, "temperature", "temperature must be non-negative"),
    ({"temperature": 2.5}, "temperature", "temperature must be in [0, 2]"),
    ({"temperature": "hot"}, "temperature", "Expected `float | null`, got `str` - at `$.temperature`"),
    ({"top_p": 0}, "top_p", "top_p must be in (0, 1]"),
    ({"top_p": 1.1}, "top_p", "top_p must be in (0, 1]"),
    ({"min_p": -0.1}, "min_p", "min_p must be in [0, 1]"),
    ({"top_k": -2}, "top_k", "top_k must be 0 (disable), or at least 1"),
    ({"top_k": 1.5}, "top_k", "Expected `int | null`, got `float` - at `$.top_k`"),
    ({"presence_penalty": 3}, "presence_penalty", "presence_penalty must be in [-2, 2]"),
    ({"frequency_penalty": -3}, "frequency_penalty", "frequency_penalty must be in [-2, 2]"),
    ({"repetition_penalty": 0}, "repetition_penalty", "repetition_penalty must be greater than zero"),
    ({"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1"),
    ({"max_tokens": 5, "min_tokens": 6}, "min_tokens", "min_tokens must be at least 0 and at most max_tokens=5"),
    ({"min_tokens": -1}, "min_tokens", "min_tokens must be at least 0"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "max_completion_tokens is 6 and"),
    ({"n": 0}, "n", "n must be in [1, "),
    ({"n": 2, "temperature": 0}, "n", "n must be 1 when using greedy sampling"),
    ({"n": 2, "best_of": 3}, "best_of", "best_of must equal n"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "stop holds at most 4 strings, got 5."),
    ({"stop": ["a", ""]}, "stop", "stop cannot contain an empty string."),
    ({"stop": "x" * 257}, "stop", "a stop string holds at most 256 characters"),
    ({"stop": [1]}, "stop[0]", "Expected `str`, got `int`"),
    ({"stop_token_ids": [-1]}, "stop_token_ids[0]", "Expected `int` >= 0"),
    ({"stop_token_ids": [257]}, "stop_token_ids", "stop_token_ids holds 257"),
    ({"stream_options": {}}, "stream_options", "Stream options can only be defined when `stream=True`."),
    ({"top_logprobs": 2}, "top_logprobs", "when using `top_logprobs`, `logprobs` must be set to true."),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "top_logprobs must be in [0, 20]"),
    ({"logprobs": True, "top_logprobs": -1}, "top_logprobs", "top_logprobs must be in [0, 20]"),
    ({"prompt_logprobs": 1}, "prompt_logprobs", "`prompt_logprobs` is not supported"),
    ({"logit_bias": {"x": 1}}, "logit_bias", "Expected `int`, got `str` - at `key` in `$.logit_bias`"),
    ({"logit_bias": {"1": 101}}, "logit_bias", "logit_bias values must be in [-100, 100]"),
    ({"logit_bias": {"9999": 1}}, "logit_bias", "logit_bias holds 9999"),
    ({"tools": []}, "tools", "`tools` must not be an empty array."),
    ({"tool_choice": "auto"}, "tool_choice", "When using `tool_choice`, `tools` must be set."),
    ({"tool_choice": "maybe", "tools": [TOOL]}, "tool_choice", "tool_choice must be none, auto, required"),
    (
        {"tool_choice": {"type": "function", "function": {"name": "sub"}}, "tools": [TOOL]},
        "tool_choice",
        "tool_choice names 'sub'",
    ),
    (
        {"tool_choice": "required", "tools": [TOOL], "response_format": {"type": "json_object"}},
        "tool_choice",
        "tool_choice 'required' and a response format",
    ),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type", "Invalid enum value 'web_search'"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "When response_format type is"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
        "response_format.json_schema.schema is missing",
    ),
    ({"response_format": {"type": "xml"}}, "response_format.type", "response_format.type must be text"),
    ({"structured_outputs": {}}, "structured_outputs", "structured_outputs needs one of"),
    (
        {"structured_outputs": {"regex": "a", "json_object": True}},
        "structured_outputs.json_object",
        "You can only use one kind of constraints for structured outputs",
    ),
    ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice", "You can only use one kind of constraints"),
    ({"guided_json": "{"}, "guided_json", "guided_json is not a JSON schema"),
    ({"guided_choice": [""]}, "guided_choice", "guided_choice cannot contain an empty string."),
    (
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}, "guided_json": {}},
        "guided_json",
        "You can only use one kind of constraints",
    ),
    (
        {"continue_final_message": True, "add_generation_prompt": True},
        "continue_final_message",
        "Cannot set both `continue_final_message` and `add_generation_prompt` to True.",
    ),
    ({"echo": True}, "echo", "`echo` repeats the message that is being continued"),
    ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "`truncate_prompt_tokens` is not supported for chats"),
    ({"request_id": "a b"}, "request_id", "Expected `str` matching regex"),
    ({"temprature": 1}, "temprature", "Object contains unknown field `temprature`: did you mean `temperature`?"),
    ({"zzz": 1}, "zzz", "Object contains unknown field `zzz`: remove it"),
    ({"messages": []}, "messages", "Expected `array` of length >= 1 - at `$.messages`"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "Invalid enum value 'king'"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "messages[0].content is missing"),
    (
        {"messages": [{"role": "user", "content": "x", "mood": 1}]},
        "messages[0].mood",
        "Object contains unknown field `mood`",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        "messages[0].content[0].text",
        "messages[0].content[0].text is missing",
    ),
    ({"model": "nobody"}, "model", "The model `nobody` does not exist."),
    ({"max_tokens": 600}, "max_tokens", "This model's maximum context length is 512 tokens. However, you requested"),
]

COMPLETION_ROWS: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": []}, "prompt", "Expected `array` of length >= 1"),
    ({"prompt": [1, "a"]}, "prompt", "prompt mixes token ids"),
    ({"prompt": ["a"] * 1025}, "prompt", "prompt holds at most 1024 prompts, got 1025."),
    ({"prompt": [300]}, "prompt", "prompt holds 300"),
    ({"logprobs": 21}, "logprobs", "logprobs must be in [0, 20]"),
    ({"logprobs": 1, "echo": True}, "logprobs", "`logprobs` together with `echo` is not supported"),
    ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "truncate_prompt_tokens must be -1"),
    ({"suffix": "end"}, "suffix", "`suffix` is not supported"),
    ({"messages": []}, "messages", "Object contains unknown field `messages`"),
]


async def refused(client: httpx.AsyncClient, path: str, body: Any) -> dict[str, Any]:
    response = await client.post(path, json=body)
    assert response.status_code in (400, 404), response.text
    answer = response.json()
    assert answer["object"] == "error"
    assert answer["message"] == answer["error"]["message"]
    assert answer["error"]["code"] == response.status_code
    return dict(answer["error"])


@pytest.mark.parametrize(("fields", "param", "begins"), CHAT_ROWS)
async def test_chat_refuses(
    client: httpx.AsyncClient, chat_body: dict[str, Any], fields: dict[str, Any], param: str, begins: str
) -> None:
    error = await refused(client, "/v1/chat/completions", chat_body | fields)
    assert error["message"].startswith(begins)
    assert error["param"] == param
    assert error["type"] == ("NotFoundError" if param == "model" else "BadRequestError")


@pytest.mark.parametrize(("fields", "param", "begins"), COMPLETION_ROWS)
async def test_completions_refuse(client: httpx.AsyncClient, fields: dict[str, Any], param: str, begins: str) -> None:
    error = await refused(client, "/v1/completions", {"model": "echo", "prompt": "a", **fields})
    assert error["message"].startswith(begins)
    assert error["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 16384}, "n"),
        ({"best_of": 16384}, "best_of"),
        ({"logprobs": True, "top_logprobs": 10**6}, "top_logprobs"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 2**63}, "max_tokens"),
        ({"max_tokens": 2**64}, "max_tokens"),
        ({"seed": 2**64}, "seed"),
        ({"seed": -2}, "seed"),
        ({"stop": ["x"] * 10_000}, "stop"),
        ({"n_discard": -1}, "n_discard"),
        ({"guided_regex": "a" * 70_000}, "guided_regex"),
        ({"allowed_token_ids": [0] * 10_001}, "allowed_token_ids"),
    ],
)
async def test_d26_absurd_numbers_are_refused_by_name(
    client: httpx.AsyncClient, chat_body: dict[str, Any], fields: dict[str, Any], param: str
) -> None:
    assert (await refused(client, "/v1/chat/completions", chat_body | fields))["param"] == param


async def test_d26_an_empty_prompt_is_refused(client: httpx.AsyncClient) -> None:
    error = await refused(client, "/v1/completions", {"model": "echo", "prompt": ""})
    assert error["param"] == "prompt"
    assert error["message"].startswith("the prompt has no tokens")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_d26_numbers_that_are_none_are_refused(client: httpx.AsyncClient, literal: str) -> None:
    body = b'{"model":"echo","messages":[{"role":"user","content":"x"}],"temperature":%s}' % literal.encode()
    response = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    "kind", ["image_url", "input_audio", "audio_url", "video_url", "file", "image_embeds", "hologram"]
)
async def test_d29_images_and_sounds_are_refused_by_place(client: httpx.AsyncClient, kind: str) -> None:
    part = {"type": kind} if kind == "hologram" else {"type": kind, kind: {"url": "http://169.254.169.254/"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "look"}, part]}]
    error = await refused(client, "/v1/chat/completions", {"model": "echo", "messages": messages})
    assert error["reason"] == "unsupported_parameter"
    assert error["param"] == "messages[0].content[1]"
    assert kind in error["message"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_d30_prompt_embeds_are_refused(client: httpx.AsyncClient, path: str) -> None:
    body: dict[str, Any] = {"model": "echo", "prompt_embeds": "gASVAAA="}
    body |= {"messages": [{"role": "user", "content": "x"}]} if "chat" in path else {"prompt": "x"}
    error = await refused(client, path, body)
    assert (error["param"], error["reason"]) == ("prompt_embeds", "unsupported_parameter")


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template": "{{ cycler }}"},
        {"chat_template_kwargs": {"tokenize": True}},
        {"chat_template_kwargs": {"chat_template": "x"}},
        {"chat_template_kwargs": {"enable_thinking": {"a": 1}}},
        {"chat_template_kwargs": {"reasoning_effort": "high"}},
        {"reasoning_effort": "high"},
    ],
)
async def test_d10_a_request_brings_no_template_and_sets_only_known_variables(
    client: httpx.AsyncClient, chat_body: dict[str, Any], fields: dict[str, Any]
) -> None:
    error = await refused(client, "/v1/chat/completions", chat_body | fields)
    assert error["param"].startswith("chat_template")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'"x"',
        b"\xef\xbb\xbf{}",
        b'{"model":"echo","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"echo","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"echo","messages":[{"role":"user","content":"\\udc00 x"}]}',
        b'{"model":"echo","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"echo","messages":[{"role":"user","content":"a\nb"}]}',
        b'{"model":"echo","messages":[{"role":"user","content":"a"}]} trailing',
        b'{"model":"echo","messages":[{"role":"user","content":"a"}],"seed":1' + b"0" * 5000 + b"}",
        b'{"\\ud800":1,"messages":[]}',
        b'{"' + b"x" * 100_000 + b'":1}',
        b'{"model":"echo","messages":[{"role":"user","content":"a"}],"guided_json":'
        + b'{"a":' * 500
        + b"1"
        + b"}" * 500
        + b"}",
        b'{"model":"echo","messages":[{"role":"user","content":"a"}],"metadata":'
        + b'{"a":' * 500
        + b"1"
        + b"}" * 500
        + b"}",
        b'{"model":"echo","messages":[{"role":"user","content":"a","annotations":'
        + b"[" * 300
        + b"]" * 300
        + b'}],"zz":1}',
    ],
)
async def test_d25_broken_json_is_a_400_with_a_bounded_message(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert len(response.content) < 2000


async def test_d25_of_duplicate_keys_the_last_one_counts(client: httpx.AsyncClient) -> None:
    body = b'{"model":"echo","messages":[{"role":"user","content":"a"}],"max_tokens":5,"max_tokens":0}'
    response = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.json()["error"]["message"].startswith("max_tokens must be at least 1")


async def test_d25_a_million_messages_are_refused(client: httpx.AsyncClient) -> None:
    body = (
        b'{"model":"echo","messages":[' + b'{"role":"user","content":""},' * 999_999 + b'{"role":"user","content":""}]}'
    )
    response = await client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert "`array` of length <= 4096" in response.json()["message"]


async def test_d26_prompts_times_n_are_bounded(client: httpx.AsyncClient) -> None:
    body = {"model": "echo", "prompt": ["a"] * 1024, "n": 3, "temperature": 1}
    response = await client.post("/v1/completions", json=body)
    assert response.status_code == 400
    assert "1024 prompts with n=3 make 3072 answers" in response.json()["message"]


@pytest.mark.parametrize("content_type", ["text/plain", "", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_d17_only_json_is_read(client: httpx.AsyncClient, content_type: str) -> None:
    response = await client.post("/v1/completions", content=b'{"prompt":"a"}', headers={"content-type": content_type})
    assert response.status_code == 400
    assert "Only 'application/json' is allowed" in response.json()["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "u-1", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "safety_identifier": "x"},
        {"modalities": ["text"], "prompt_cache_key": "k", "prompt_cache_retention": None, "verbosity": "medium"},
        {"use_beam_search": False, "length_penalty": 1.0, "best_of": 1, "bad_words": [], "stream_interval": 1},
        {"audio": None, "functions": None, "store": None, "logit_bias": None, "tools": None, "stop": None},
        {"top_k": -1, "seed": -1, "logprobs": False, "top_logprobs": 0, "stream": False, "n": 1},
        {"add_special_tokens": False, "spaces_between_special_tokens": True, "include_reasoning": True},
        {"response_format": {"type": "text"}, "tool_choice": "none", "parallel_tool_calls": True},
    ],
)
async def test_values_that_ask_for_nothing_are_accepted(
    client: httpx.AsyncClient, chat_body: dict[str, Any], fields: dict[str, Any]
) -> None:
    response = await client.post("/v1/chat/completions", json=chat_body | fields)
    assert response.status_code == 200, response.text
    assert response.json()["choices"][0]["message"]["content"] == "Hi"


@pytest.mark.parametrize(
    ("name", "value"),
    [("store", True), ("service_tier", "flex"), ("modalities", ["text", "audio"]), ("audio", {"voice": "x"})],
)
async def test_values_that_ask_for_what_we_lack_are_refused(
    client: httpx.AsyncClient, chat_body: dict[str, Any], name: str, value: object
) -> None:
    error = await refused(client, "/v1/chat/completions", chat_body | {name: value})
    assert (error["param"], error["reason"]) == (name, "unsupported_parameter")


async def test_a_base_model_refuses_chat_with_advice(client: httpx.AsyncClient, chat_body: dict[str, Any]) -> None:
    error = await refused(client, "/v1/chat/completions", chat_body | {"model": "base"})
    assert "use /v1/completions" in error["message"]


async def test_a_constraint_the_engine_lacks_is_refused_by_name(client: httpx.AsyncClient) -> None:
    error = await refused(client, "/v1/completions", {"model": "base", "prompt": "a", "guided_regex": "a"})
    assert error["reason"] == "unsupported_parameter"
    assert "regex" in error["message"]


async def test_without_a_model_name_several_models_are_listed(client: httpx.AsyncClient) -> None:
    error = await refused(client, "/v1/completions", {"prompt": "a"})
    assert error["message"] == "model is missing, and this server has 3: name one of echo, base, vectors"


async def test_embeddings_of_a_model_that_makes_none_are_refused(client: httpx.AsyncClient) -> None:
    error = await refused(client, "/v1/embeddings", {"model": "echo", "input": "a"})
    assert (error["reason"], error["param"]) == ("unsupported_parameter", "model")
