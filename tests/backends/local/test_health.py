"""Probe answers, round by round, on a clock of our own."""

from __future__ import annotations

import msgspec
import pytest

from argosy.backends.local import health
from argosy.backends.local.health import Answers, Health, Verdict
from argosy.core.workload import Workload

WORKLOAD = Workload(name="w", argv=("a",), start_timeout_seconds=60.0)
YES, NO, SICK = Answers(ready=True), Answers(ready=False, live=True), Answers(ready=False, live=False)
SILENCE = Answers()


def verdicts(rounds: list[tuple[float, Answers]], workload: Workload = WORKLOAD) -> list[Verdict]:
    """What a replica that starts at 0 is after each round at a time, with as long as it took allowed for it."""
    state, now, found = health.fresh(0.0), 0.0, []
    for at, answers in rounds:
        state = health.after(state, msgspec.structs.replace(answers, allowed_seconds=at - now), workload, at)
        now = at
        found.append(health.verdict(state, workload, at))
    return found


@pytest.mark.parametrize(
    ("rounds", "last"),
    [
        ([(1, SILENCE), (20, SILENCE)], Verdict.STARTING),  # a start may be silent
        ([(1, SILENCE), (59.9, NO)], Verdict.STARTING),
        ([(1, SILENCE), (60, NO)], Verdict.LATE),
        ([(1, YES)], Verdict.READY),
        ([(1, YES), (2, NO)], Verdict.READY),  # two failures are forgiven
        ([(1, YES), (2, NO), (3, NO), (4, NO)], Verdict.UNREADY),
        ([(1, YES), (2, NO), (3, YES), (4, NO), (5, NO)], Verdict.READY),
        ([(1, YES), (2, NO), (3, NO), (4, NO), (5, YES)], Verdict.READY),
        ([(1, YES), (2, SICK), (3, SICK), (4, SICK)], Verdict.SICK),
        ([(1, YES), (2, SICK), (3, NO), (4, SICK), (5, SICK)], Verdict.UNREADY),
        ([(1, YES), (3, SILENCE)], Verdict.READY),
        ([(1, YES), (4, SILENCE)], Verdict.HUNG),
        ([(1, YES), (2, SILENCE), (3, NO), (5, SILENCE)], Verdict.UNREADY),  # any answer ends a silence
    ],
)
def test_table(rounds: list[tuple[float, Answers]], last: Verdict) -> None:
    assert verdicts(rounds)[-1] is last


def test_f04_a_hang_is_seen_three_seconds_after_the_last_answer() -> None:
    state = health.after(health.fresh(0.0), YES, WORKLOAD, 10.0)
    began = 11.0  # the next round, a period later
    allowed = health.probe_seconds(state, WORKLOAD.readiness, WORKLOAD, began)
    assert began + allowed == pytest.approx(13.0)
    assert health.verdict(health.after(state, Answers(allowed_seconds=allowed), WORKLOAD, 13.0), WORKLOAD, 13.0) is (
        Verdict.HUNG
    )


@pytest.mark.parametrize("gap", [30.0, 3600.0])
def test_f11_a_round_in_which_we_were_held_up_ourselves_says_nothing(gap: float) -> None:
    state = health.after(health.fresh(0.0), YES, WORKLOAD, 1.0)
    state = health.after(state, Answers(allowed_seconds=3.0), WORKLOAD, 1.0 + gap)
    assert health.verdict(state, WORKLOAD, 1.0 + gap) is Verdict.READY
    state = health.after(state, Answers(allowed_seconds=2.0), WORKLOAD, 1.0 + gap + 3.0)
    assert health.verdict(state, WORKLOAD, 1.0 + gap + 3.0) is Verdict.HUNG


def test_a_start_is_looked_at_more_often_than_a_ready_replica() -> None:
    starting = health.fresh(0.0)
    ready: Health = health.after(starting, YES, WORKLOAD, 1.0)
    assert health.pause_seconds(starting, WORKLOAD) == 0.1
    assert health.pause_seconds(ready, WORKLOAD) == 1.0
