"""The record behaves as the cache it stands for: newest kept, ends before beginnings; askers catch up from anywhere."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from argosy.core.load_report import PrefixChanges
from argosy.serving import prefix_record
from argosy.serving.prefix_record import PrefixRecord


def _record(capacity: int = 1000) -> PrefixRecord:
    return PrefixRecord(capacity, first_sequence=100)


def _all(record: PrefixRecord) -> set[int]:
    changes = record.changes(0)
    assert changes.is_whole
    assert changes.removed == ()
    return set(changes.added)


def test_a_prompt_is_held_with_all_its_blocks() -> None:
    record = _record()
    record.enter((1, 2, 3), 300)
    assert _all(record) == {1, 2, 3}
    assert record.num_tokens == 300


def test_a_shared_beginning_counts_once() -> None:
    record = _record()
    record.enter((1, 2), 200)
    record.enter((1, 2, 3), 300)
    assert record.num_tokens == 300


def test_the_oldest_go_first_and_of_a_prompt_its_end() -> None:
    record = _record(500)
    record.enter((1, 2, 3), 300)
    record.enter((4, 5), 200)
    record.enter((6,), 100)
    assert _all(record) == {1, 2, 4, 5, 6}
    record.enter((1, 7), 200)
    assert _all(record) == {1, 4, 5, 6, 7}


def test_answers_and_short_prompts_take_room_without_a_name() -> None:
    record = _record(500)
    record.enter((1, 2, 3), 300)
    record.add_answer(250)
    assert _all(record) == {1, 2}
    record.enter((), 150)
    assert _all(record) == {1}
    record.add_answer(0)
    assert record.num_tokens == 500


def test_a_prompt_larger_than_the_cache_leaves_its_beginning() -> None:
    record = _record(250)
    record.enter((1, 2, 3), 300)
    assert _all(record) == {1, 2}


def test_an_asker_gets_what_differs() -> None:
    record = _record(300)
    record.enter((1, 2), 200)
    known = record.changes(0).sequence
    assert record.changes(known) == PrefixChanges(sequence=known, is_whole=False)
    record.enter((3, 4), 200)
    changes = record.changes(known)
    assert not changes.is_whole
    assert (set(changes.added), set(changes.removed)) == ({3, 4}, {2})


def test_what_came_and_went_in_between_is_told_as_it_is_now() -> None:
    record = _record(100)
    record.enter((1,), 100)
    known = record.changes(0).sequence
    record.enter((2,), 100)
    record.enter((1,), 100)
    changes = record.changes(known)
    assert (set(changes.added), set(changes.removed)) == ({1}, {2})


def test_a_sequence_of_another_process_gets_everything() -> None:
    """Each run counts from somewhere else, so what an asker learnt from the run before is unknown, not mistaken."""
    first, second = PrefixRecord(1000), PrefixRecord(1000)
    first.enter((1,), 10)
    second.enter((2,), 10)
    assert second.changes(first.changes(0).sequence).is_whole


def test_who_was_away_too_long_gets_everything() -> None:
    record = _record(10**9)
    record.enter((1,), 10)
    known = record.changes(0).sequence
    chunk = prefix_record.LOGGED_CHANGES // 16
    for number in range(1, 17):
        record.enter(tuple(range(number * 10**6, number * 10**6 + chunk)), 10)
    assert len(record.changes(known).added) == prefix_record.LOGGED_CHANGES
    record.enter((2, 3), 10)
    whole = record.changes(known)
    assert whole.is_whole
    assert len(whole.added) == prefix_record.LOGGED_CHANGES + 3


_prompts = st.lists(st.integers(1, 15), max_size=6, unique=True).map(tuple)
_steps = st.lists(st.tuples(st.booleans(), _prompts, st.integers(0, 300)), max_size=40)


@given(steps=_steps)
def test_an_asker_that_comes_now_and_then_knows_what_the_record_knows(
    steps: list[tuple[bool, tuple[int, ...], int]],
) -> None:
    record = _record(500)
    known: set[int] = set()
    sequence = 0
    for asks, blocks, tokens in steps:
        record.enter(blocks, tokens)
        assert record.num_tokens <= 500
        if asks:
            changes = record.changes(sequence)
            if changes.is_whole:
                known = set()
            known -= set(changes.removed)
            known |= set(changes.added)
            sequence = changes.sequence
            assert known == _all(record)
