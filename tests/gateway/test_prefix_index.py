"""The index says what the replicas said, plus what was just sent; it forgets, and it starts again when lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.core.load_report import PrefixChanges
from argosy.gateway.prefix_index import MARK_SECONDS, MAX_BLOCKS_PER_REPLICA, PrefixIndex


def _whole(*blocks: int, sequence: int = 5) -> PrefixChanges:
    return PrefixChanges(sequence=sequence, is_whole=True, added=blocks)


def _change(sequence: int, *, added: tuple[int, ...] = (), removed: tuple[int, ...] = ()) -> PrefixChanges:
    return PrefixChanges(sequence=sequence, is_whole=False, added=added, removed=removed)


def test_counts_leading_blocks_only() -> None:
    index = PrefixIndex()
    index.apply("a", _whole(1, 2, 4))
    index.apply("b", _whole(1))
    found = index.lookup((1, 2, 3, 4), 0.0)
    assert found.held == {"a": 2, "b": 1}
    assert found.first_new_block == 3
    assert index.held_blocks("a", (1, 2, 3, 4)) == 2
    assert index.held_blocks("nobody", (1, 2)) == 0


def test_a_prompt_held_to_its_end_has_no_new_block() -> None:
    index = PrefixIndex()
    index.apply("a", _whole(1, 2))
    assert index.lookup((1, 2), 0.0).first_new_block == 0
    assert index.lookup((), 0.0).held == {}
    assert index.lookup((9,), 0.0).first_new_block == 9


def test_changes_follow_the_sequence() -> None:
    index = PrefixIndex()
    assert index.since("a") == 0
    index.apply("a", _whole(1, 2, sequence=7))
    assert index.since("a") == 7
    index.apply("a", _change(9, added=(3,), removed=(1,)))
    assert index.since("a") == 9
    assert index.lookup((2, 3), 0.0).held == {"a": 2}
    assert index.lookup((1, 2), 0.0).held == {}


def test_a_lost_answer_is_asked_for_again() -> None:
    """The replica's answer from 7 to 9 never came: `since` is still 7, and the same change comes with the next."""
    index = PrefixIndex()
    index.apply("a", _whole(1, sequence=7))
    assert index.since("a") == 7
    index.apply("a", _change(11, added=(2, 3)))
    index.apply("a", _change(11, added=(2, 3)))
    assert index.lookup((1, 2, 3), 0.0).held == {"a": 3}


def test_a_sequence_that_went_back_empties_the_replica_and_asks_for_everything() -> None:
    index = PrefixIndex()
    index.apply("a", _whole(1, sequence=7))
    index.apply("b", _whole(1, sequence=7))
    index.apply("a", _change(3, added=(2,)))
    assert index.since("a") == 0
    assert index.lookup((1,), 0.0).held == {"b": 1}


def test_everything_replaces_what_was_known() -> None:
    index = PrefixIndex()
    index.apply("a", _whole(1, 2, 3))
    index.apply("a", _whole(3, 4, sequence=1))
    assert index.since("a") == 1
    assert index.num_blocks == 2


def test_a_mark_counts_until_it_ends() -> None:
    index = PrefixIndex()
    index.mark("a", (1, 2), 100.0)
    assert index.lookup((1, 2), 100.0).held == {"a": 2}
    assert index.lookup((1, 2), 100.0 + MARK_SECONDS).held == {}
    assert index.num_blocks == 0


def test_a_report_confirms_a_mark() -> None:
    index = PrefixIndex()
    index.mark("a", (1, 2), 100.0)
    index.apply("a", _whole(1))
    assert index.lookup((1, 2), 100.0).held == {"a": 2}
    assert index.lookup((1, 2), 100.0 + MARK_SECONDS).held == {"a": 1}


def test_a_later_request_keeps_a_mark_alive() -> None:
    index = PrefixIndex()
    index.mark("a", (1,), 100.0)
    index.mark("a", (1,), 105.0)
    assert index.lookup((1,), 100.0 + MARK_SECONDS).held == {"a": 1}
    assert index.lookup((1,), 105.0 + MARK_SECONDS).held == {}


def test_an_eviction_does_not_take_a_block_that_is_on_its_way_back() -> None:
    index = PrefixIndex()
    index.apply("a", _whole(1, 2, sequence=1))
    index.apply("a", _change(2, removed=(1, 2)))
    index.mark("a", (1, 2), 10.0)
    index.apply("a", _change(3, removed=(1, 2)))
    assert index.lookup((1, 2), 10.0).held == {"a": 2}
    assert index.lookup((1, 2), 10.0 + MARK_SECONDS).held == {}


def test_a_replica_that_goes_takes_only_its_own_with_it() -> None:
    index = PrefixIndex()
    index.apply("a", _whole(1, 2))
    index.apply("b", _whole(2, 3))
    index.mark("a", (8,), 0.0)
    index.keep_only(["b", "c"])
    assert index.lookup((2, 3), 0.0).held == {"b": 2}
    assert index.num_blocks == 2
    index.apply("c", _whole(2))
    assert index.lookup((2,), 0.0).held == {"b": 1, "c": 1}
    assert index.lookup((8,), MARK_SECONDS).held == {}
    index.forget("nobody")


def test_a_replica_that_reports_without_end_is_followed_to_a_bound() -> None:
    index = PrefixIndex()
    index.apply("a", _whole(*range(1, MAX_BLOCKS_PER_REPLICA + 100)))
    index.apply("a", _change(6, added=tuple(range(10**6, 10**6 + 100))))
    assert index.num_blocks == MAX_BLOCKS_PER_REPLICA
    index.mark("a", tuple(range(2 * 10**6, 2 * 10**6 + MAX_BLOCKS_PER_REPLICA)), 0.0)
    index.mark("a", (3 * 10**6,), 0.0)
    assert index.num_blocks == 2 * MAX_BLOCKS_PER_REPLICA


_blocks = st.lists(st.integers(1, 12), max_size=8, unique=True).map(tuple)
_steps = st.one_of(
    st.tuples(st.just("whole"), st.sampled_from("abc"), _blocks),
    st.tuples(st.just("added"), st.sampled_from("abc"), _blocks),
    st.tuples(st.just("removed"), st.sampled_from("abc"), _blocks),
    st.tuples(st.just("forget"), st.sampled_from("abc"), st.just(())),
)


@settings(max_examples=200)
@given(steps=st.lists(_steps, max_size=30), prompt=_blocks)
def test_agrees_with_plain_sets_whatever_is_reported(
    steps: list[tuple[str, str, tuple[int, ...]]], prompt: tuple[int, ...]
) -> None:
    index = PrefixIndex()
    plain: dict[str, set[int]] = {}
    for sequence, (kind, replica, blocks) in enumerate(steps, start=1):
        known = plain.setdefault(replica, set())
        if kind == "whole":
            index.apply(replica, _whole(*blocks, sequence=sequence))
            plain[replica] = set(blocks)
        elif kind == "added":
            index.apply(replica, _change(sequence, added=blocks))
            known.update(blocks)
        elif kind == "removed":
            index.apply(replica, _change(sequence, removed=blocks))
            known.difference_update(blocks)
        else:
            index.forget(replica)
            del plain[replica]
    expected = {replica: _leading(held, prompt) for replica, held in plain.items()}
    assert index.lookup(prompt, 0.0).held == {replica: count for replica, count in expected.items() if count}
    assert all(index.held_blocks(replica, prompt) == count for replica, count in expected.items())
    assert index.num_blocks == len(set().union(*plain.values()))


def _leading(held: set[int], prompt: tuple[int, ...]) -> int:
    return next((at for at, block in enumerate(prompt) if block not in held), len(prompt))
