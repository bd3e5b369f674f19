"""The official `openai` client, unchanged, over a real socket: what its own examples do works here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
import uvicorn
from pydantic import BaseModel

from argosy.serving.registry import ModelRegistry

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = '<tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>'


@pytest.fixture
def base_url(registry: ModelRegistry, make_app: Any) -> Iterator[str]:
    config = uvicorn.Config(make_app(registry), port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/v1"
    server.should_exit = True
    thread.join()


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(base_url: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
        yield client


def say(text: str) -> Any:
    return [{"role": "system", "content": ""}, {"role": "user", "content": text}]


def test_chat(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="echo", messages=say("Hello"), temperature=0.5, seed=7, user="u")
    choice = completion.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "Hello", "stop")
    assert choice.message.tool_calls is None
    assert completion.object == "chat.completion"
    assert completion.usage is not None
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 6
    assert completion.usage.prompt_tokens_details is not None
    assert completion.usage.prompt_tokens_details.cached_tokens == 0


def test_a_conversation_goes_on_with_the_answer_sent_back(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="echo", messages=say("a"))
    messages = [*say("a"), first.choices[0].message, {"role": "user", "content": "b"}]
    second = client.chat.completions.create(model="echo", messages=messages)
    assert second.choices[0].message.content == "aab"


def test_stream(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="echo", messages=say("Grüße 🙂"), stream=True)
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Grüße 🙂"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.usage for chunk in chunks} == {None}


def test_stream_with_usage(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo", messages=say("Hello"), stream=True, stream_options={"include_usage": True}, max_tokens=3
    )
    *chunks, last = stream
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == 3
    assert chunks[-1].choices[0].finish_reason == "length"


def test_several_answers(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="echo", messages=say("ab"), n=3, temperature=1)
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    assert {choice.message.content for choice in completion.choices} == {"ab"}
    stream = client.chat.completions.create(model="echo", messages=say("ab"), n=2, temperature=1, stream=True)
    texts = ["", ""]
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == ["ab", "ab"]


def test_logprobs(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="echo", messages=say("Hé"), logprobs=True, top_logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [entry.token for entry in logprobs.content] == ["H", "\ufffd", "\ufffd"]
    assert bytes(byte for entry in logprobs.content for byte in entry.bytes or []).decode() == "Hé"
    assert logprobs.content[0].top_logprobs[0].token == "H"
    assert logprobs.content[0].logprob == 0.0
    stream = client.chat.completions.create(model="echo", messages=say("Hé"), logprobs=True, stream=True)
    entries = [
        entry for chunk in stream for entry in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or []
    ]
    assert bytes(byte for entry in entries for byte in entry.bytes or []).decode() == "Hé"


def test_tools_with_a_free_choice(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="echo", messages=say(f"Let me see. {CALL}"), tools=[WEATHER])  # type: ignore[list-item]
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    messages: Any = [*say("x"), choice.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = client.chat.completions.create(model="echo", messages=messages, tools=[WEATHER])  # type: ignore[list-item]
    assert second.choices[0].message.content is not None
    assert second.choices[0].message.content.endswith("rain")


@pytest.mark.parametrize("text", [CALL, f"Two. {CALL}\n{CALL}"])
def test_streamed_tool_calls_say_id_and_name_once(client: openai.OpenAI, text: str) -> None:
    stream = client.chat.completions.create(model="echo", messages=say(text), tools=[WEATHER], stream=True)  # type: ignore[list-item]
    ids: dict[int, list[str]] = {}
    names: dict[int, list[str]] = {}
    arguments: dict[int, str] = {}
    finish = None
    for chunk in stream:
        finish = chunk.choices[0].finish_reason or finish
        for piece in chunk.choices[0].delta.tool_calls or []:
            assert piece.function is not None
            ids.setdefault(piece.index, []).extend([piece.id] if piece.id else [])
            names.setdefault(piece.index, []).extend([piece.function.name] if piece.function.name else [])
            arguments[piece.index] = arguments.get(piece.index, "") + (piece.function.arguments or "")
    assert finish == "tool_calls"
    assert len(arguments) == text.count("<tool_call>")
    assert all(len(each) == 1 for each in ids.values())
    assert all(each == ["get_weather"] for each in names.values())
    assert [json.loads(each) for each in arguments.values()] == [{"city": "Oslo"}] * len(arguments)


def test_a_named_tool_is_called_with_the_whole_answer(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="echo",
        messages=say('{"city": "Rome"}'),
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    message = completion.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].function.name == "get_weather"  # type: ignore[union-attr]
    assert json.loads(message.tool_calls[0].function.arguments) == {"city": "Rome"}  # type: ignore[union-attr]


def test_a_required_tool_is_called(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="echo",
        messages=say('{"name": "get_weather", "arguments": {"city": "Bern"}}'),
        tools=[WEATHER],  # type: ignore[list-item]
        tool_choice="required",
    )
    assert completion.choices[0].message.tool_calls is not None
    assert json.loads(completion.choices[0].message.tool_calls[0].function.arguments) == {"city": "Bern"}  # type: ignore[union-attr]


class Event(BaseModel):
    name: str
    year: int


def test_parse_into_a_pydantic_model(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="echo", messages=say('{"name": "Launch", "year": 1969}'), response_format=Event
    )
    assert completion.choices[0].message.parsed == Event(name="Launch", year=1969)


def test_parse_while_streaming(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="echo", messages=say('{"name": "Launch", "year": 1969}'), response_format=Event
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "content.done" in kinds
    assert final.choices[0].message.parsed == Event(name="Launch", year=1969)


def test_parse_a_tool_call(client: openai.OpenAI) -> None:
    completion = client.chat.completions.parse(
        model="echo",
        messages=say('<tool_call>{"name": "Event", "arguments": {"name": "x", "year": 1}}</tool_call>'),
        tools=[openai.pydantic_function_tool(Event)],
    )
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == Event(name="x", year=1)
    tool_answer: Any = {"role": "tool", "tool_call_id": calls[0].id, "content": "noted"}
    messages = [*say(""), completion.choices[0].message, tool_answer]
    again = client.chat.completions.create(model="echo", messages=messages)
    assert again.choices[0].message.content == "noted"


def test_completions(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="echo", prompt="abc", max_tokens=5, logprobs=1)
    choice = completion.choices[0]
    assert (choice.text, choice.finish_reason) == ("abcab", "length")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens == ["a", "b", "c", "a", "b"]
    assert choice.logprobs.text_offset == [0, 1, 2, 3, 4]
    assert choice.logprobs.top_logprobs == [{"a": 0.0}, {"b": 0.0}, {"c": 0.0}, {"a": 0.0}, {"b": 0.0}]


def test_completions_of_many_prompts(client: openai.OpenAI) -> None:
    completion = client.completions.create(
        model="echo", prompt=["ab", "cd"], max_tokens=3, n=2, echo=True, temperature=1
    )
    assert [choice.text for choice in completion.choices] == ["ababa", "ababa", "cdcdc", "cdcdc"]
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 12)
    by_ids = client.completions.create(model="echo", prompt=[[97, 98], [99]], max_tokens=2)
    assert [choice.text for choice in by_ids.choices] == ["ab", "cc"]
    fifty = client.completions.create(model="echo", prompt=[f"{number:02}" for number in range(50)], max_tokens=2)
    assert [choice.text for choice in fifty.choices] == [f"{number:02}" for number in range(50)]


def test_streamed_completions(client: openai.OpenAI) -> None:
    stream = client.completions.create(model="echo", prompt=["ab", "cd"], max_tokens=3, stream=True)
    texts, finished = ["", ""], 0
    for chunk in stream:
        texts[chunk.choices[0].index] += chunk.choices[0].text
        finished += chunk.choices[0].finish_reason is not None
    assert (texts, finished) == (["aba", "cdc"], 2)


def test_default_of_max_tokens_gives_way_to_the_context(client: openai.OpenAI) -> None:
    assert len(client.completions.create(model="echo", prompt="a").choices[0].text) == 16
    assert len(client.completions.create(model="echo", prompt="a" * 507).choices[0].text) == 5


def test_stop_and_its_reason(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(model="echo", messages=say("one. two. three"), stop=[". t"])
    choice = completion.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("one", "stop")
    assert choice.model_extra == {"stop_reason": ". t"}
    kept = client.chat.completions.create(
        model="echo", messages=say("one. two"), stop=".", extra_body={"include_stop_str_in_output": True}
    )
    assert kept.choices[0].message.content == "one."


def test_extra_fields_of_vllm(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="echo",
        messages=say("abc"),
        extra_body={
            "top_k": 5,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "ignore_eos": True,
            "min_tokens": 2,
            "stop_token_ids": [99],
            "return_token_ids": True,
            "return_timings": True,
            "guided_choice": ["abc", "abd"],
            "request_id": "mine",
        },
    )
    assert completion.id == "chatcmpl-mine"
    assert completion.model_extra is not None
    assert completion.model_extra["prompt_token_ids"] == [97, 98, 99, 256]
    assert completion.choices[0].model_extra == {"stop_reason": 99, "token_ids": [97, 98, 99]}
    assert set(completion.model_extra["timings"]) == {"queue_ms", "prompt_ms", "predicted_ms", "tokens_per_second"}


def test_truncated_prompts_and_bare_ones(client: openai.OpenAI) -> None:
    cut = client.completions.create(
        model="echo", prompt="abcdef", max_tokens=3, extra_body={"truncate_prompt_tokens": 2}
    )
    assert cut.choices[0].text == "efe"
    fitting = client.completions.create(
        model="echo", prompt="x" * 600 + "y", max_tokens=2, extra_body={"truncate_prompt_tokens": -1, "echo": False}
    )
    assert fitting.usage is not None
    assert fitting.usage.prompt_tokens == 510


def test_a_message_is_continued_and_echoed(client: openai.OpenAI) -> None:
    completion = client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "bc"}],
        max_tokens=3,
        extra_body={"continue_final_message": True, "add_generation_prompt": False, "echo": True},
    )
    assert completion.choices[0].message.content == "bcabc"


def test_models(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert list(listed) == ["echo", "polite", "base", "vectors"]
    assert listed["polite"].model_extra == {"root": "/adapters/polite", "parent": "echo", "max_model_len": 512}
    one = client.models.retrieve("echo")
    assert (one.object, one.owned_by, one.created) == ("model", "argosy", 1_700_000_000)
    with pytest.raises(openai.NotFoundError, match=r"The model `ecco` does not exist\. Did you mean 'echo'"):
        client.models.retrieve("ecco")


def test_an_adapter_answers_under_its_name(client: openai.OpenAI) -> None:
    assert client.chat.completions.create(model="polite", messages=say("a")).model == "polite"


def test_embeddings(client: openai.OpenAI) -> None:
    answer = client.embeddings.create(model="vectors", input=["abc", "d"])
    assert [each.embedding for each in answer.data] == [[3.0, 0.5], [1.0, 0.5]]
    assert answer.usage.prompt_tokens == 4
    plain = client.embeddings.create(model="vectors", input=[1, 2], encoding_format="float")
    assert plain.data[0].embedding == [2.0, 0.5]
    with pytest.raises(openai.BadRequestError, match="gives no embeddings"):
        client.embeddings.create(model="echo", input="a")


def test_errors_are_the_clients_own_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=say("a"), temperature=3)
    assert caught.value.param == "temperature"
    assert caught.value.type == "BadRequestError"
    with pytest.raises(openai.BadRequestError, match="prompt_logprobs"):
        client.chat.completions.create(model="echo", messages=say("a"), extra_body={"prompt_logprobs": 2})


def test_tokenize_and_back(base_url: str) -> None:
    root = base_url.removesuffix("/v1")
    body = {"model": "echo", "prompt": "hé", "return_token_strs": True}
    answer = httpx.post(f"{root}/tokenize", json=body).json()
    assert answer == {"count": 3, "max_model_len": 512, "tokens": [104, 195, 169], "token_strs": ["h", "Ã", "©"]}
    assert httpx.post(f"{root}/detokenize", json={"model": "echo", "tokens": answer["tokens"]}).json() == {
        "prompt": "hé"
    }
    chat = {"model": "echo", "messages": say("a")}
    assert httpx.post(f"{root}/tokenize", json=chat).json()["tokens"] == [97, 256]
    both = httpx.post(f"{root}/tokenize", json=body | chat)
    assert both.status_code == 400


@pytest.mark.anyio
async def test_the_async_client(async_client: openai.AsyncOpenAI) -> None:
    completion = await async_client.chat.completions.create(model="echo", messages=say("Hello"))
    assert completion.choices[0].message.content == "Hello"
    stream = await async_client.chat.completions.create(model="echo", messages=say("Hello"), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello"
    assert await anext(aiter(async_client.models.list())) is not None
