"""`GET /replica/state`: in every phase, for those who may, and with the beginnings of prompts that were answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from argosy.core.engine import EngineFeature, EngineSettings
from argosy.core.load_report import ReplicaReport
from argosy.core.model import ModelFiles
from argosy.core.prefix import prefix_of
from argosy.core.principal import Scope
from argosy.engines.echo import EchoEngine
from argosy.observe.metrics import Metrics
from argosy.serving.served_model import Identity, Language, ServedModel
from argosy.text.chat_template import load_chat_template
from argosy.text.tokenizer import load_tokenizer
from argosy.web.api_keys import create_key
from argosy.web.lifecycle import Phase

pytestmark = pytest.mark.anyio


class CachingEngine(EchoEngine):
    """Says that it keeps the KV of prompts: 2200 tokens of it."""

    def __init__(self, files: ModelFiles) -> None:
        super().__init__(files, EngineSettings(max_num_seqs=8))
        features = self._info.features | {EngineFeature.PREFIX_CACHE}
        self._info = msgspec.structs.replace(self._info, features=features, kv_cache_tokens=2200, max_model_len=8192)


@pytest.fixture
def caching(live: Any, letters_files: ModelFiles) -> Any:
    """As `live`, with an engine that has a prefix cache."""

    @asynccontextmanager
    async def start() -> AsyncIterator[tuple[Any, httpx.AsyncClient]]:
        tokenizer = load_tokenizer(letters_files)
        served = ServedModel(
            Identity(name="letters", root="file:letters", created=1, info=letters_files.info),
            CachingEngine(letters_files),
            Language(tokenizer=tokenizer, chat_template=load_chat_template(letters_files, tokenizer)),
            metrics=Metrics(),
        )
        async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
            server.replica.registry.remove("letters")
            server.replica.registry.add(served)
            yield server, client

    return start


async def _report(client: httpx.AsyncClient, since: int = 0) -> ReplicaReport:
    answer = await client.get("/replica/state", params={"since": since})
    assert answer.status_code == 200
    return msgspec.json.decode(answer.content, type=ReplicaReport)


def _body(prompt: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"model": "letters", "prompt": prompt, "max_tokens": 1, **fields})


async def _ask(client: httpx.AsyncClient, body: bytes) -> httpx.Response:
    return await client.post("/v1/completions", content=body, headers={"content-type": "application/json"})


def _blocks(body: bytes) -> tuple[int, ...]:
    prefix = prefix_of(body)
    assert prefix is not None
    return prefix.blocks


async def test_it_answers_in_every_phase(live: Any) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        server.replica.start_seconds = lambda: {"listen": 0.01, "engine openvino": 1.23456}
        epochs = set()
        for phase in Phase:
            server.replica.phase = phase
            report = await _report(client)
            assert report.phase == phase.value
            assert report.start_seconds == {"listen": 0.01, "engine openvino": 1.2346}
            epochs.add(report.epoch)
        assert len(epochs) == 1


async def test_before_the_model_is_there_it_says_only_how_far_the_start_is(live: Any) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        server.replica.registry.remove("letters")
        report = await _report(client)
    assert (report.max_num_seqs, report.kv_cache_tokens, report.prefix.added) == (0, 0, ())


async def test_it_says_how_busy_the_replica_is(caching: Any) -> None:
    async with caching() as (_, client):
        report = await _report(client)
        assert (report.max_num_seqs, report.kv_cache_tokens) == (8, 2200)
        assert (report.in_flight, report.num_requests_running, report.num_requests_waiting) == (0, 0, 0)
        body = _body("ab" * 50, max_tokens=4000, stream=True, ignore_eos=True)
        async with client.stream("POST", "/v1/completions", content=body, headers={"content-type": "application/json"}):
            report = await _report(client)
            assert (report.in_flight, report.num_requests_running) == (1, 1)
            assert report.kv_cache_usage_ratio == 0.125


async def test_prompts_that_were_answered_are_held_and_the_oldest_give_way(caching: Any) -> None:
    """A letter is a token: two prompts of 900 fit into 2200, a third pushes out the first one's end."""
    first, second, third = (_body(letter * 900) for letter in "abc")
    async with caching() as (_, client):
        for body in (first, second):
            assert (await _ask(client, body)).status_code == 200
        report = await _report(client)
        assert report.prefix.is_whole
        assert set(report.prefix.added) == {*_blocks(first), *_blocks(second)}
        assert (await _ask(client, third)).status_code == 200
        changes = (await _report(client, since=report.prefix.sequence)).prefix
        assert not changes.is_whole
        assert set(changes.added) == {*_blocks(third)}
        assert set(changes.removed) == {*_blocks(first)[1:]}


async def test_a_chat_and_its_next_turn_share_their_beginning(caching: Any) -> None:
    question = {"role": "user", "content": "why " * 150}
    bodies = [
        msgspec.json.encode({"model": "letters", "messages": messages, "max_tokens": 1})
        for messages in (
            [question],
            [question, {"role": "assistant", "content": "so"}, {"role": "user", "content": "?"}],
        )
    ]
    async with caching() as (_, client):
        for body in bodies:
            answer = await client.post(
                "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 200
        assert set((await _report(client)).prefix.added) == {*_blocks(bodies[1])}
    assert _blocks(bodies[0]) == _blocks(bodies[1])[: len(_blocks(bodies[0]))] != ()


async def test_of_several_prompts_the_first_one_is_noted(caching: Any) -> None:
    body = msgspec.json.encode({"model": "letters", "prompt": ["a" * 300, "b" * 300], "max_tokens": 1})
    async with caching() as (_, client):
        assert (await _ask(client, body)).status_code == 200
        assert (await _report(client)).prefix.added == _blocks(_body("a" * 300))


async def test_an_engine_without_a_prefix_cache_holds_nothing(live: Any) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await _ask(client, _body("a" * 300))).status_code == 200
        assert (await _report(client)).prefix.added == ()


@pytest.mark.parametrize("since", ["-1", "x", "1" * 40, "٣", "1.5"])
async def test_a_sequence_that_is_none_is_refused(live: Any, since: str) -> None:
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.get("/replica/state", params={"since": since})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "since")


async def test_d15_it_takes_the_scope_metrics(live: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    keys = {scope: create_key(path, scope.value, (scope,)) for scope in Scope}
    async with live(api_keys_file=path) as server, httpx.AsyncClient(base_url=server.url) as client:
        statuses = {
            scope: (await client.get("/replica/state", headers={"authorization": f"Bearer {key}"})).status_code
            for scope, key in keys.items()
        }
        assert statuses == {Scope.INFER: 403, Scope.METRICS: 200, Scope.ADMIN: 200}
        assert (await client.get("/replica/state")).status_code == 401


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_a_gateway_learns_the_usage_from_a_comment(live: Any, path: str) -> None:
    """In front of the end; a client that did not ask never sees it."""
    prompt = {"messages": [{"role": "user", "content": "hello"}]} if "chat" in path else {"prompt": "hello"}
    body = {"model": "letters", "stream": True, "max_tokens": 7, "ignore_eos": True, **prompt}
    async with live() as server, httpx.AsyncClient(base_url=server.url) as client:
        asked = await client.post(path, json=body, headers={"x-argosy-usage": "1"})
        plain = await client.post(path, json=body)
    events = asked.text.removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    usage = msgspec.json.decode(events[-2].removeprefix(": usage "))
    assert (usage["completion_tokens"], usage["cached_tokens"]) == (7, 0)
    assert usage["prompt_tokens"] >= 5
    assert ": usage" not in plain.text


async def test_it_counts_the_tokens_it_generated(caching: Any) -> None:
    async with caching() as (_, client):
        assert (await _report(client)).generation_tokens == 0
        await _ask(client, _body("hello", max_tokens=3))
        await _ask(client, _body("hello", max_tokens=2))
        assert (await _report(client)).generation_tokens == 5
