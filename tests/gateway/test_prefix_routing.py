"""Through a whole gateway: conversations go to the replica that says it holds them, or that was just asked them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from scripted import LiveGateway, ScriptedReplica, eventually, route

from argosy.core.load_report import PrefixChanges, ReplicaReport
from argosy.core.prefix import prefix_of

pytestmark = pytest.mark.anyio

_DOCUMENT = "the same long document " * 100


def _conversation(*turns: str) -> bytes:
    roles = ("user", "assistant")
    messages = [{"role": roles[at % 2], "content": text} for at, text in enumerate(turns)]
    return msgspec.json.encode({"model": "chat", "messages": messages})


def _state(sequence: int, *, is_whole: bool = True, **changes: tuple[int, ...]) -> ReplicaReport:
    prefix = PrefixChanges(sequence=sequence, is_whole=is_whole, **changes)
    return ReplicaReport(epoch="e", phase="ready", max_num_seqs=64, prefix=prefix)


def _blocks(body: bytes) -> tuple[int, ...]:
    found = prefix_of(body)
    assert found is not None
    return found.blocks


async def _ask(gateway: LiveGateway, body: bytes) -> str:
    """The replica that answered."""
    got = await gateway.client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert got.status_code == 200
    return got.headers["x-argosy-replica"]


async def _learn(gateway: LiveGateway, replica: ScriptedReplica, state: ReplicaReport) -> None:
    """Return once the gateway has taken in the replica's state."""
    replica.state = state
    prefixes = gateway.service().prefixes
    await eventually(lambda: prefixes.since(replica.name) == state.prefix.sequence)


async def test_conversations_go_to_their_holders_and_to_nobody_who_gave_them_up(live: Any, replicas: Any) -> None:
    a, b = await replicas("a", "b")
    texts = [f"document {number} {_DOCUMENT}" for number in range(12)]
    held = [_blocks(_conversation(text)) for text in texts]
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint()))
        everything = tuple(block for blocks in held for block in blocks)
        await _learn(gateway, a, _state(5, added=everything))
        gone = tuple(block for blocks in held[6:] for block in blocks)
        await _learn(gateway, a, _state(6, is_whole=False, removed=gone))
        await _learn(gateway, b, _state(9, added=gone))
        for number, text in enumerate(texts):
            asked = await _ask(gateway, _conversation(text, "yes", "and then?"))
            assert asked == ("a" if number < 6 else "b")


async def test_what_was_just_sent_counts_before_any_report(live: Any, replicas: Any) -> None:
    """Ten questions about a new document, and no replica that says what it holds: all to the first one's."""
    a, b, c = await replicas("a", "b", "c")
    async with live() as gateway:
        await gateway.publish(route(a.endpoint(), b.endpoint(), c.endpoint()))
        asked = [await _ask(gateway, _conversation(f"{_DOCUMENT} question {number}?")) for number in range(10)]
        assert len(set(asked)) == 1
        others = {await _ask(gateway, _conversation(f"document {number} {_DOCUMENT}")) for number in range(30)}
        assert others == {"a", "b", "c"}
