from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from argosy.cli.main import run
from argosy.core.errors import ArgosyError, InvalidRequest, SpecError
from argosy.simulator.arrivals import Scales, drawn_requests, parse_arrivals, trace_requests
from argosy.simulator.command import spec_of, write_page
from argosy.simulator.study import DEFAULT_POLICIES, StudyResult, StudySpec, study

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,374,44
2023-11-16 18:17:04.0319600,396,109
2023-11-16 18:17:08.0319600,30000,10
"""
SHORT = StudySpec(arrivals="poisson:rate=8,seconds=90,prompt=200,output=30")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(AZURE)
    return path


@pytest.fixture(scope="module")
def everything() -> StudyResult:
    return study(SHORT)


def test_every_policy_meets_the_same_traffic(everything: StudyResult) -> None:
    assert [one.policy for one in everything.policies] == list(DEFAULT_POLICIES)
    assert all(0 <= one.attainment <= 1 for one in everything.policies)
    best = {one.policy: one for one in everything.policies}
    assert best["static"].attainment >= 0.99
    assert best["oracle"].attainment >= 0.99
    assert best["oracle"].over_oracle == 1.0
    assert best["oracle"].replica_hours <= best["static"].replica_hours
    for one in everything.policies:
        assert sum(point.requests_per_second * 10 for point in one.points) == pytest.approx(everything.requests)


def test_the_page_needs_nothing_outside_itself(everything: StudyResult, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_page(everything, path)
    page = path.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert page.count("<svg") >= 5
    for policy in DEFAULT_POLICIES:
        assert policy in page


def test_a_page_that_cannot_be_written_says_where_to(everything: StudyResult, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot write"):
        write_page(everything, tmp_path / "no" / "report.html")


def test_requests_that_no_replica_could_serve_in_time_count_apart(trace: Path) -> None:
    result = study(StudySpec(trace=trace, policies=("static:1",)))
    assert result.possible_ratio == pytest.approx(2 / 3)
    assert result.policies[0].attainment_of_possible == 1.0


def test_a_trace_is_scaled_in_length_and_in_number(trace: Path) -> None:
    shorter = trace_requests(trace, Scales(length_scale=0.25), 0)
    assert [one.prompt_tokens for one in shorter] == [94, 99, 7500]
    more = trace_requests(trace, Scales(rate_scale=4.0), 0)
    assert len(more) == 12
    assert [one.at_seconds for one in more] == sorted(one.at_seconds for one in more)
    assert more[-1].at_seconds <= 4.06 + 10.0
    assert trace_requests(trace, Scales(rate_scale=2.5), 1) != []


def test_copies_of_a_request_share_no_prefix_with_it(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    path.write_text('{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [0, 1]}\n')
    first, second = trace_requests(path, Scales(rate_scale=2.0), 0)
    assert not set(first.blocks) & set(second.blocks)
    assert 0 not in (*first.blocks, *second.blocks), "0 means: no block"


def test_a_step_load_rises_when_it_says() -> None:
    drawn = parse_arrivals("step:rate=2,to=20,at=100,seconds=200,prompt=10,output=10")
    times = [one.at_seconds for one in drawn_requests(drawn, 0)]
    assert sum(at < 100 for at in times) == pytest.approx(200, rel=0.3)
    assert sum(at >= 100 for at in times) == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("poisson", "rate"),
        ("poisson:rate=x", "poisson:rate=8"),
        ("poisson:rate=-1", "above 0"),
        ("poisson:speed=3,rate=1", "speed"),
        ("step:rate=2", "step:rate=2,to=8"),
        ("sine:rate=2", "poisson:rate=8"),
    ],
)
def test_arrivals_that_make_no_sense_are_refused_with_an_example(text: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        parse_arrivals(text)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"arrivals": "poisson:rate=1", "policies": "argosy,magic"}, "magic"),
        ({"arrivals": "poisson:rate=1", "profile": "nothing"}, "nothing"),
        ({}, "trace or arrivals"),
        ({"arrivals": "poisson:rate=1", "scaling": {"slo": {"ttft_seconds": "x"}}}, "ttft_seconds"),
    ],
)
def test_a_study_that_cannot_be_made_says_why(fields: dict[str, object], told: str) -> None:
    with pytest.raises(ArgosyError, match=told):
        study(spec_of(fields))


def test_the_command_prints_a_table_and_json(capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["simulate", "--arrivals", "poisson:rate=3,seconds=30,prompt=100,output=20", "--policies", "argosy,static"]
    assert run(flags) == 0
    shown = capfd.readouterr().out
    assert "REPLICA-HOURS" in shown
    assert "argosy" in shown
    assert run([*flags, "--json"]) == 0
    result = msgspec.json.decode(capfd.readouterr().out)
    assert [one["policy"] for one in result["policies"]] == ["argosy", "static"]
