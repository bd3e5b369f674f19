"""Which rows are decoded together, and what becomes of a row: by hand and, for the choice, for any waiting rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import EngineError
from argosy.core.generation import FinishReason, GenerateRequest
from argosy.core.sampling import SamplingParams

pytest.importorskip("ctranslate2", reason="needs the extra [seq2seq]")

from argosy.engines.seq2seq.lanes import next_batch, usual_seconds
from argosy.engines.seq2seq.request_rows import Row, decoding_of


def row(name: str = "r", *, beam_size: int = 1, **sampling: object) -> Row:
    given_or_usual = {"max_tokens": 8, "temperature": 0.0, "stop_token_ids": (1,)} | sampling
    params = SamplingParams(**given_or_usual)  # type: ignore[arg-type]
    return Row(GenerateRequest(request_id=name, prompt_token_ids=(5, 1), sampling=params), beam_size)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ({"max_tokens": 3}, {"max_tokens": 60}, True),
        ({"top_p": 0.5, "seed": 3}, {"top_k": 7}, True),  # greedy: none of these changes a token
        ({"temperature": 1.0}, {}, False),
        ({"temperature": 1.0, "top_p": 0.5}, {"temperature": 1.0}, False),
        ({"stop_token_ids": ()}, {}, False),
        ({"min_tokens": 2}, {}, False),
        ({"repetition_penalty": 1.2}, {}, False),
        ({"logprobs": 0}, {}, False),
        ({"beam_size": 4, "max_tokens": 3}, {"beam_size": 4, "max_tokens": 60}, False),  # a beam is cut for all alike
        ({"beam_size": 4}, {"beam_size": 4}, True),
    ],
)
def test_rows_go_together_if_one_decoding_does_for_both(
    one: dict[str, object], other: dict[str, object], together: bool
) -> None:
    rows = [row(**one), row(**other)]  # type: ignore[arg-type]
    assert next_batch(rows, 8) == (rows if together else rows[:1])


def test_a_sampled_request_is_never_decoded_with_a_beam() -> None:
    assert decoding_of(SamplingParams(max_tokens=5, temperature=0.7), beam_size=4).beam_size == 1


@given(kinds=st.lists(st.integers(0, 3), max_size=40), batch_size=st.integers(1, 9))
def test_any_choice_is_the_oldest_of_one_kind_in_their_order(kinds: list[int], batch_size: int) -> None:
    waiting = [row(str(index), min_tokens=kind) for index, kind in enumerate(kinds)]
    chosen = next_batch(waiting, batch_size)
    assert chosen == [each for each, kind in zip(waiting, kinds, strict=True) if kind == kinds[0]][:batch_size]
    assert not waiting or chosen[0] is waiting[0]


def test_a_row_ends_with_its_stop_token_its_length_or_its_consumer() -> None:
    stopped, long, left = row(), row(max_tokens=2), row()
    assert [stopped.gain(7, None), stopped.gain(1, None)] == [False, True]
    assert stopped.ending is FinishReason.STOP
    assert [long.gain(7, None), long.gain(8, None)] == [False, True]
    assert long.ending is FinishReason.LENGTH
    left.is_cancelled = True
    assert left.gain(7, None)
    assert left.ending is FinishReason.ABORT
    long.end(EngineError("too late"))
    assert long.ending is FinishReason.LENGTH


@pytest.mark.anyio
async def test_a_slow_reader_gets_all_tokens_in_one_output() -> None:
    slow = row(logprobs=0)
    for token_id, logprob in ((7, -0.5), (8, -0.25), (1, -0.125)):
        slow.gain(token_id, logprob)
    output = await slow.take()
    assert output.token_ids == (7, 8, 1)
    assert [each.logprob for each in output.logprobs] == [-0.5, -0.25, -0.125]
    assert (output.finish_reason, output.stop_token_id) == (FinishReason.STOP, 1)


def test_one_long_batch_changes_little_and_many_change_much() -> None:
    once = usual_seconds(0.01, 60.0)
    assert 0.01 < once < 0.02
    often = 0.01
    for _ in range(200):
        often = usual_seconds(often, 60.0)
    assert often > 30
