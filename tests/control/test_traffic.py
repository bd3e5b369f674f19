"""Reports of gateways: what becomes a difference, what a baseline, and what is doubted (F-13)."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.control.traffic import ServiceTotals, TrafficLedger
from argosy.core.load_report import GatewayReport, ReplicaLoad, ReplicaReport, RevisionTraffic, ServiceTraffic


def report(requests: int, *, epoch: str = "one", errors: int = 0, held: int = 0, **fields: object) -> GatewayReport:
    traffic = RevisionTraffic(revision="v1", requests=requests, completions=requests, errors=errors)
    return GatewayReport(
        epoch=epoch,
        services=(
            ServiceTraffic(
                service="chat",
                arrivals=requests,
                held=held,
                revisions=(msgspec.structs.replace(traffic, **fields),),
            ),
        ),
    )


@pytest.fixture
def ledger() -> TrafficLedger:
    return TrafficLedger(stale_seconds=3.0)


def requests(ledger: TrafficLedger) -> int:
    return ledger.totals("chat").all_revisions().requests


def test_the_first_report_is_a_baseline_and_later_ones_add_up(ledger: TrafficLedger) -> None:
    ledger.record("a", report(1000), 0.0)
    assert requests(ledger) == 0
    ledger.record("a", report(1010), 1.0)
    ledger.record("a", report(1010), 1.5)
    ledger.record("a", report(1015), 2.0)
    assert requests(ledger) == 15
    assert ledger.totals("chat").arrivals == 15
    assert not ledger.is_stale(2.0)


def test_several_gateways_add_up(ledger: TrafficLedger) -> None:
    for gateway in ("a", "b"):
        ledger.record(gateway, report(100), 0.0)
        ledger.record(gateway, report(107), 1.0)
    assert requests(ledger) == 14


def test_f13_a_gateway_that_starts_anew_is_a_new_baseline_and_doubted_for_a_while(ledger: TrafficLedger) -> None:
    ledger.record("a", report(100), 0.0)
    ledger.record("a", report(105), 1.0)
    ledger.record("a", report(3, epoch="two"), 2.0)
    assert requests(ledger) == 5
    assert ledger.is_stale(2.0)
    ledger.record("a", report(4, epoch="two"), 6.0)
    assert (requests(ledger), ledger.is_stale(6.0)) == (6, False)


@pytest.mark.parametrize(
    "nonsense",
    [
        report(50),  # fewer than before
        report(200, errors=-1),
        report(200, queue_seconds=float("nan")),
        report(200, queue_seconds=float("inf")),
        report(200, generation_tokens=-5),
        report(200, ttft_counts=(1, 2, 3)),
    ],
)
def test_f13_what_makes_no_sense_counts_for_nothing(ledger: TrafficLedger, nonsense: GatewayReport) -> None:
    ledger.record("a", report(100), 0.0)
    ledger.record("a", nonsense, 10.0)
    assert requests(ledger) == 0
    assert ledger.is_stale(10.0)


def test_f13_silence_is_stale_and_a_gateway_gone_for_good_is_forgotten(ledger: TrafficLedger) -> None:
    assert ledger.is_stale(0.0)
    ledger.record("a", report(1), 0.0)
    ledger.record("b", report(1), 0.0)
    assert not ledger.is_stale(3.0)
    ledger.record("a", report(1), 4.0)
    assert ledger.is_stale(4.0)
    assert ledger.forget_silent(70.0, 60.0) == ("a", "b")
    ledger.record("a", report(1), 71.0)
    assert not ledger.is_stale(71.0)


def test_held_requests_are_told_at_once_and_summed_over_gateways(ledger: TrafficLedger) -> None:
    assert ledger.record("a", report(1, held=2), 0.0) == {"chat"}
    ledger.record("b", report(1, held=3), 0.0)
    assert ledger.record("b", report(1), 0.1) == frozenset()
    assert ledger.gauges("chat", 0.1).held == 2
    assert ledger.gauges("chat", 10.0).held == 0


def test_of_two_views_of_a_replica_the_fresher_counts() -> None:
    ledger = TrafficLedger(stale_seconds=3.0)
    for gateway, age, running, open_here in (("a", 0.5, 1, 2), ("b", 0.1, 4, 3)):
        state = ReplicaReport(epoch="x", phase="ready", num_requests_running=running)
        load = ReplicaLoad(
            replica="r",
            revision="v1",
            in_flight=open_here,
            reported_seconds_ago=age,
            report=state,
            is_ejected=age > 0.3,
        )
        traffic = ServiceTraffic(service="chat", replicas=(load,))
        ledger.record(gateway, GatewayReport(epoch="one", services=(traffic,)), 0.0)
    found = ledger.gauges("chat", 0.0).replicas["r"]
    assert found.report is not None
    assert (found.report.num_requests_running, found.in_flight, found.is_ejected) == (4, 5, True)


def test_copies_are_counted_apart(ledger: TrafficLedger) -> None:
    ledger.record("a", report(1, is_shadow=True), 0.0)
    ledger.record("a", report(6, is_shadow=True), 1.0)
    totals = ledger.totals("chat")
    assert (totals.all_revisions().requests, totals.shadows["v1"].requests) == (0, 5)


def test_the_last_seconds(ledger: TrafficLedger) -> None:
    ledger.record("a", report(0), 0.0)
    for second in range(30):
        ledger.snapshot("chat", float(second))
        ledger.record("a", report(10 * (second + 1)), second + 0.5)
    seconds, recent = ledger.recent("chat", 29.5)
    assert 8 <= seconds <= 13
    assert recent.arrivals / seconds == pytest.approx(10, rel=0.1)


def test_a_service_the_gateway_had_before_us_is_a_baseline(ledger: TrafficLedger) -> None:
    ledger.record("a", GatewayReport(epoch="one"), 0.0)
    ledger.record("a", report(500), 1.0)
    ledger.record("a", report(501), 2.0)
    assert requests(ledger) == 1


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50), st.booleans()), max_size=40))
def test_totals_never_fall_and_never_exceed_what_was_served(steps: list[tuple[str, int, bool]]) -> None:
    ledger = TrafficLedger(stale_seconds=3.0)
    counts, epochs, served, before = {"a": 0, "b": 0}, {"a": 0, "b": 0}, 0, ServiceTotals()
    for now, (gateway, more, restarts) in enumerate(steps):
        if restarts:
            counts[gateway], epochs[gateway] = 0, epochs[gateway] + 1
        counts[gateway] += more
        served += more
        ledger.record(gateway, report(counts[gateway], epoch=str(epochs[gateway])), float(now))
        after = ledger.totals("chat")
        assert before.arrivals <= after.arrivals <= served
        assert after.of("v1", before).requests >= 0
        before = after
