"""The calls recorded of TorchServe 0.12, played against `argosy serve --torchserve`: same status, headers and shape.

Where we mean to differ stands in differences.yaml, each with its reason. The recording is made anew by
`python -m benchmarks torchserve_calls --torchserve BIN/torchserve --record tests/wire/torchserve/recordings`.
One server per profile answers all its cases in turn: they are written so that each leaves what it found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest
from benchmarks.torchserve_calls import case_faults, play_case, read_recording
from benchmarks.torchserve_profiles import WIRE, served
from benchmarks.wire_calls import Case, Ports, load_cases
from benchmarks.wire_compare import load_differences

CASES = [case for cases in load_cases(WIRE / "cases").values() for case in cases]
RECORDING = read_recording(WIRE / "recordings")
RIGHT, STRICT = (load_differences(WIRE / "differences.yaml", compat) for compat in ("right", "strict"))
RESTORED = {one.case for one in RIGHT if one.compat}


@pytest.fixture(scope="module")
def ports_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], Ports]]:
    """Where the server of a profile answers, started when it is first asked for."""
    started: dict[tuple[str, str], Ports] = {}
    with contextlib.ExitStack() as stack:

        def start(profile: str, compat: str) -> Ports:
            if (profile, compat) not in started:
                folder = tmp_path_factory.mktemp("server")
                running = served(profile, folder, torchserve=None, compat=compat)
                started[profile, compat] = stack.enter_context(running)
            return started[profile, compat]

        yield start


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
def test_answers_as_recorded(case: Case, ports_of: Callable[[str, str], Ports]) -> None:
    got = play_case(case, ports_of(case.profile, "right"))
    assert case_faults(case, RECORDING[case.case], got, RIGHT) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", [one for one in CASES if one.case in RESTORED], ids=lambda case: case.case)
def test_strict_answers_as_torchserve_does(case: Case, ports_of: Callable[[str, str], Ports]) -> None:
    got = play_case(case, ports_of(case.profile, "strict"))
    assert case_faults(case, RECORDING[case.case], got, STRICT) == []


def test_every_case_is_recorded_and_every_recording_is_of_a_case() -> None:
    assert {case.case: len(case.steps) for case in CASES} == {name: len(steps) for name, steps in RECORDING.items()}


def test_every_difference_is_of_a_case_and_has_a_reason() -> None:
    steps = {case.case: len(case.steps) for case in CASES}
    for one in RIGHT + STRICT:
        assert one.case in (*steps, "*"), f"{one.case} is no case"
        assert all(number < steps[one.case] for number in one.steps), f"{one.case} has no steps {one.steps}"
        assert len(one.reason.split()) > 3
