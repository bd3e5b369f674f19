"""Tokens per second of a replica, as a table of what was reported when."""

from __future__ import annotations

import pytest

from argosy.control.token_rates import TokenRates
from argosy.core.load_report import ReplicaLoad, ReplicaReport


def load(tokens: int, *, epoch: str = "one", ago: float = 0.0) -> ReplicaLoad:
    report = ReplicaReport(epoch=epoch, phase="ready", generation_tokens=tokens)
    return ReplicaLoad(replica="a", revision="v1", reported_seconds_ago=ago, report=report)


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        pytest.param([], None, id="nothing"),
        pytest.param([(0, load(7))], None, id="one count proves nothing"),
        pytest.param([(0, load(0)), (0.25, load(9)), (2, load(100))], 50.0, id="over the seconds between"),
        pytest.param([(0, load(0)), (4, load(100, ago=2))], 50.0, id="when it was asked, not when it was told"),
        pytest.param([(s, load(10 * s)) for s in range(60)], 10.0, id="of the last seconds"),
        pytest.param([(s, load(min(s, 30))) for s in range(60)], 0.0, id="idle since a while"),
        pytest.param([(0, load(900)), (2, load(0, epoch="two"))], None, id="another process begins at zero"),
        pytest.param([(0, load(900)), (1, load(0, epoch="two")), (3, load(8, epoch="two"))], 4.0, id="and goes on"),
        pytest.param([(0, load(5)), (2, load(3)), (3, load(9))], 6.0, id="a count that fell"),
        pytest.param([(0, load(0)), (2, load(20)), (2.1, load(3, ago=1)), (4, load(40))], 10.0, id="an older answer"),
        pytest.param([(-40, load(0)), (-30, load(100))], None, id="long silent"),
    ],
)
def test_the_rate(told: list[tuple[float, ReplicaLoad]], rate: float | None) -> None:
    rates = TokenRates()
    for at, each in told:
        rates.record([each], at)
    assert rates.rate("a", max((at for at, _ in told), default=0.0) if told and told[0][0] >= 0 else 0.0) == rate


def test_replicas_nobody_reports_are_forgotten() -> None:
    rates = TokenRates()
    rates.record([load(0)], 0.0)
    rates.record([load(10)], 2.0)
    rates.forget_silent(16.0)
    assert rates.rate("a", 16.0) == 5.0
    rates.forget_silent(18.0)
    assert rates.rate("a", 16.0) is None
