"""What a prompt's prefix is, whatever JSON it comes in."""

from __future__ import annotations

import msgspec
import pytest

from argosy.core.prefix import BLOCK_BYTES, MAX_BLOCKS, prefix_of


def body(**fields: object) -> bytes:
    return msgspec.json.encode({"model": "chat", **fields})


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


def test_equal_beginnings_have_equal_blocks_and_others_none_in_common() -> None:
    first = prefix_of(body(messages=turns("a" * 600, "b" * 600)))
    second = prefix_of(body(messages=turns("a" * 600, "c" * 600)))
    other_model = prefix_of(msgspec.json.encode({"model": "x", "messages": turns("a" * 600, "b" * 600)}))
    assert first is not None
    assert second is not None
    assert other_model is not None
    assert len(first.blocks) == first.prompt_bytes // BLOCK_BYTES
    assert first.blocks[:2] == second.blocks[:2]
    assert not set(first.blocks[2:]) & set(second.blocks[2:])
    assert not set(first.blocks) & set(other_model.blocks)


@pytest.mark.parametrize(
    ("sent", "is_stream", "user", "max_tokens"),
    [
        ({}, False, "", None),
        ({"stream": True, "user": "ann", "max_tokens": 7}, True, "ann", 7),
        ({"max_tokens": 7, "max_completion_tokens": 9}, False, "", 9),
        ({"stream": "yes", "user": 5, "max_tokens": True}, False, "", None),
    ],
)
def test_what_a_gateway_needs_is_read_on_the_way_and_never_refused(sent, is_stream, user, max_tokens) -> None:
    found = prefix_of(body(prompt="hello", **sent))
    assert found is not None
    assert (found.is_stream, found.user, found.max_tokens) == (is_stream, user, max_tokens)


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ({"prompt": "a"}, 1),
        ({"prompt": "a", "n": 5}, 5),
        ({"prompt": ["a", "b", "c"], "n": 2}, 6),
        ({"prompt": [[1, 2], [3]]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [], "n": -4}, 1),
        ({"prompt": "a", "n": "many"}, 1),
        ({"messages": [{"role": "user", "content": "a"}], "n": 3}, 3),
    ],
)
def test_every_answer_a_body_asks_for_is_counted(sent: dict[str, object], expected: int) -> None:
    found = prefix_of(body(**sent))
    assert found is not None
    assert found.num_answers == expected


@pytest.mark.parametrize(
    "sent",
    [b"", b"[1]", b"{", b"[" * 100_000, b'{"model":"\xff"}', b'{"model":"a","tools":' + b"[" * 9999 + b"]" * 9999],
)
def test_d25_a_body_that_is_no_request_has_no_prefix(sent) -> None:
    assert prefix_of(sent) is None


@pytest.mark.parametrize("counts", [(100, 200), (300, 999)], ids=["messages one by one", "a long body as a whole"])
def test_d25_a_crowd_of_messages_counts_in_full_and_is_hashed_in_part(counts) -> None:
    few, many = (prefix_of(body(messages=turns(*["x" * 4096] * count))) for count in counts)
    assert few is not None
    assert many is not None
    assert few.blocks == many.blocks[: len(few.blocks)]
    assert len(many.blocks) == MAX_BLOCKS
    assert counts[1] * 4096 < many.prompt_bytes < counts[1] * 4200


def test_d25_the_messages_of_a_long_body_are_not_taken_apart() -> None:
    found = prefix_of(
        b'{"model":"m","stream":true,"tools":[1],"messages":[' + b"5," * BLOCK_BYTES * MAX_BLOCKS + b"5]}"
    )
    assert found is not None  # messages they are not: a replica will say so
    assert (found.model, found.is_stream, len(found.blocks)) == ("m", True, MAX_BLOCKS)
    assert prefix_of(body(prompt="x" * 3 * BLOCK_BYTES * MAX_BLOCKS)) is not None
