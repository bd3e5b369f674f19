"""Reports of gateways become totals that only grow, and what was seen between two moments.

A report carries counts since its gateway started. Here they become differences, added to totals of our own. A gateway
seen for the first time, or anew after its restart, is a baseline: its counts mean nothing yet. Counts that fall or are
negative are nonsense; they make a new baseline, and the time they cover is doubtful (F-13).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

import msgspec

from argosy.control.token_rates import TokenRates
from argosy.core.load_report import LATENCY_BOUNDS_SECONDS, GatewayReport, ReplicaLoad, RevisionTraffic, ServiceTraffic

_BUCKETS = len(LATENCY_BOUNDS_SECONDS) + 1
_EMPTY_COUNTS = (0,) * _BUCKETS
_COUNTERS = (
    "requests", "errors", "completions", "slo_good", "started", "queue_seconds", "prompt_tokens", "generation_tokens",
)  # fmt: skip
_SNAPSHOTS = 12
_SNAPSHOT_SECONDS = 1.0


class TrafficWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What a revision did over some time, or since the beginning. The counts are those of `RevisionTraffic`."""

    requests: int = 0
    errors: int = 0
    completions: int = 0
    slo_good: int = 0
    started: int = 0
    queue_seconds: float = 0.0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    ttft_counts: tuple[int, ...] = _EMPTY_COUNTS
    tpot_counts: tuple[int, ...] = _EMPTY_COUNTS

    @property
    def answers(self) -> int:
        """Requests that have ended, well or not."""
        return self.completions

    def since(self, earlier: TrafficWindow) -> TrafficWindow:
        """This total less an earlier one."""
        return self._combined(earlier, -1)

    def plus(self, other: TrafficWindow) -> TrafficWindow:
        """Both together."""
        return self._combined(other, 1)

    def _combined(self, other: TrafficWindow, sign: int) -> TrafficWindow:
        return TrafficWindow(
            **{name: getattr(self, name) + sign * getattr(other, name) for name in _COUNTERS},
            ttft_counts=tuple(a + sign * b for a, b in zip(self.ttft_counts, other.ttft_counts, strict=True)),
            tpot_counts=tuple(a + sign * b for a, b in zip(self.tpot_counts, other.tpot_counts, strict=True)),
        )


NOTHING = TrafficWindow()


class ServiceTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Everything seen of a service so far. revisions: without copies (shadows), which stand in `shadows`."""

    arrivals: int = 0
    retries: int = 0
    cache_hits: int = 0
    revisions: dict[str, TrafficWindow] = {}
    shadows: dict[str, TrafficWindow] = {}

    def all_revisions(self) -> TrafficWindow:
        """The sum over the revisions."""
        total = NOTHING
        for window in self.revisions.values():
            total = total.plus(window)
        return total

    def of(self, revision: str, since: ServiceTotals) -> TrafficWindow:
        """What a revision did since an earlier total."""
        return self.revisions.get(revision, NOTHING).since(since.revisions.get(revision, NOTHING))


class ServiceGauges(msgspec.Struct, frozen=True, kw_only=True):
    """What gateways say of a service now. replicas: of each the load, by the gateway that asked it last."""

    held: int = 0
    in_flight: int = 0
    revision_in_flight: dict[str, int] = {}
    replicas: dict[str, ReplicaLoad] = {}


class _GatewayView:
    """The last report of one gateway."""

    def __init__(self, report: GatewayReport, now: float) -> None:
        self.report, self.at = report, now
        self.services = {each.service: each for each in report.services}


class TrafficLedger:
    """Adds up what gateways report. Deterministic: it knows the time only as it is told."""

    def __init__(self, stale_seconds: float) -> None:
        self._stale_seconds = stale_seconds
        self._gateways: dict[str, _GatewayView] = {}
        self._totals: dict[str, ServiceTotals] = {}
        self._snapshots: dict[str, deque[tuple[float, ServiceTotals]]] = {}
        self._doubtful_at = -math.inf
        self.token_rates = TokenRates()

    def record(self, gateway: str, report: GatewayReport, now: float) -> frozenset[str]:
        """Take a report; the names of the services for which requests are held at that gateway."""
        before = self._gateways.get(gateway)
        view = _GatewayView(report, now)
        self._gateways[gateway] = view
        is_comparable = before is not None and before.report.epoch == report.epoch
        if before is not None and not is_comparable:
            self._doubtful_at = now
        if is_comparable and before is not None:
            for name, traffic in view.services.items():
                if name in before.services:  # Else a baseline, too: it may have been known to the gateway before.
                    self._add(name, before.services[name], traffic, now)
        for traffic in report.services:
            self.token_rates.record(traffic.replicas, now)
        for name in view.services.keys() & self._snapshots.keys():
            self.snapshot(name, now)  # Also while the loop has nothing to look at: `recent` is to mean seconds.
        return frozenset(name for name, traffic in view.services.items() if traffic.held > 0)

    def totals(self, service: str) -> ServiceTotals:
        """Everything so far."""
        return self._totals.get(service, ServiceTotals())

    def gauges(self, service: str, now: float) -> ServiceGauges:
        """Now, from the gateways that are not silent."""
        held = in_flight = 0
        by_revision: dict[str, int] = {}
        replicas: dict[str, ReplicaLoad] = {}
        for view in self._fresh(now):
            traffic = view.services.get(service)
            if traffic is None:
                continue
            held += max(traffic.held, 0)
            for each in traffic.revisions:
                if not each.is_shadow:
                    in_flight += each.in_flight
                    by_revision[each.revision] = by_revision.get(each.revision, 0) + each.in_flight
            for load in traffic.replicas:
                replicas[load.replica] = _fresher(replicas.get(load.replica), load)
        return ServiceGauges(held=held, in_flight=in_flight, revision_in_flight=by_revision, replicas=replicas)

    def is_stale(self, now: float) -> bool:
        """Whether a known gateway is silent, none reports at all, or one has just begun anew."""
        views = self._gateways.values()
        silent = not views or any(now - view.at > self._stale_seconds for view in views)
        return silent or now - self._doubtful_at < self._stale_seconds

    def recent(self, service: str, now: float) -> tuple[float, ServiceTotals]:
        """Seconds and differences of about the last ten seconds."""
        rows = self._snapshots.get(service)
        if not rows:
            return 0.0, ServiceTotals()
        at, first = rows[0]
        return now - at, _difference(self.totals(service), first)

    def reports(self, now: float) -> dict[str, GatewayReport]:
        """The last report of each gateway that is not silent."""
        return {name: view.report for name, view in self._gateways.items() if now - view.at <= self._stale_seconds}

    def snapshot(self, service: str, now: float) -> None:
        """Remember the totals of now, for `recent`."""
        rows = self._snapshots.setdefault(service, deque(maxlen=_SNAPSHOTS))
        if not rows or now - rows[-1][0] >= _SNAPSHOT_SECONDS:
            rows.append((now, self.totals(service)))

    def forget_silent(self, now: float, after_seconds: float) -> tuple[str, ...]:
        """Drop gateways that have been silent for so long that they are gone; their names."""
        self.token_rates.forget_silent(now)
        gone = tuple(name for name, view in self._gateways.items() if now - view.at > after_seconds)
        for name in gone:
            del self._gateways[name]
        return gone

    def forget_service(self, service: str) -> None:
        """A service that is deleted starts from nothing if it comes back."""
        self._totals.pop(service, None)
        self._snapshots.pop(service, None)

    def _fresh(self, now: float) -> Iterable[_GatewayView]:
        return (view for view in self._gateways.values() if now - view.at <= self._stale_seconds)

    def _add(self, name: str, before: ServiceTraffic, after: ServiceTraffic, now: float) -> None:
        if before == after:
            return
        grown = _grown(before, after)
        if grown is None:
            self._doubtful_at = now
            return
        self._totals[name] = _sum(self.totals(name), grown)


def _fresher(one: ReplicaLoad | None, other: ReplicaLoad) -> ReplicaLoad:
    """Of two gateways' views of a replica the one that asked it last; in flight and ejected by either."""
    if one is None:
        return other
    ages = [math.inf if each.reported_seconds_ago is None else each.reported_seconds_ago for each in (one, other)]
    newer = one if ages[0] <= ages[1] else other
    return msgspec.structs.replace(
        newer, in_flight=one.in_flight + other.in_flight, is_ejected=one.is_ejected or other.is_ejected
    )


def _grown(before: ServiceTraffic, after: ServiceTraffic) -> ServiceTotals | None:
    """The difference of two reports of one gateway; None if anything fell or makes no sense."""
    earlier = {(each.revision, each.is_shadow): each for each in before.revisions}
    real: dict[str, TrafficWindow] = {}
    shadows: dict[str, TrafficWindow] = {}
    for each in after.revisions:
        window = _window(each)
        was = earlier.get((each.revision, each.is_shadow))
        base = _window(was) if was is not None else NOTHING
        if window is None or base is None:
            return None
        grown = window.since(base)
        if not _is_growth(grown):
            return None
        (shadows if each.is_shadow else real)[each.revision] = grown
    counts = (
        after.arrivals - before.arrivals, after.retries - before.retries, after.cache_hits - before.cache_hits
    )  # fmt: skip
    if min(counts) < 0:
        return None
    return ServiceTotals(arrivals=counts[0], retries=counts[1], cache_hits=counts[2], revisions=real, shadows=shadows)


def _window(traffic: RevisionTraffic) -> TrafficWindow | None:
    histograms = [tuple(counts) or _EMPTY_COUNTS for counts in (traffic.ttft_counts, traffic.tpot_counts)]
    if any(len(counts) != _BUCKETS for counts in histograms):
        return None
    return TrafficWindow(
        **{name: getattr(traffic, name) for name in _COUNTERS}, ttft_counts=histograms[0], tpot_counts=histograms[1]
    )


def _is_growth(grown: TrafficWindow) -> bool:
    counted = [getattr(grown, name) for name in _COUNTERS]
    return (
        all(math.isfinite(value) and value >= 0 for value in counted)
        and min(grown.ttft_counts) >= 0
        and min(grown.tpot_counts) >= 0
    )


def _merged(
    one: Mapping[str, TrafficWindow], other: Mapping[str, TrafficWindow], sign: int
) -> dict[str, TrafficWindow]:
    merged = dict(one)
    for name, window in other.items():
        base = merged.get(name, NOTHING)
        merged[name] = base.plus(window) if sign > 0 else base.since(window)
    return merged


def _combined(one: ServiceTotals, other: ServiceTotals, sign: int) -> ServiceTotals:
    return ServiceTotals(
        arrivals=one.arrivals + sign * other.arrivals,
        retries=one.retries + sign * other.retries,
        cache_hits=one.cache_hits + sign * other.cache_hits,
        revisions=_merged(one.revisions, other.revisions, sign),
        shadows=_merged(one.shadows, other.shadows, sign),
    )


def _sum(one: ServiceTotals, other: ServiceTotals) -> ServiceTotals:
    return _combined(one, other, 1)


def _difference(later: ServiceTotals, earlier: ServiceTotals) -> ServiceTotals:
    return _combined(later, earlier, -1)
