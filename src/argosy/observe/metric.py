"""What a metric is: one row of the tables beside this file, and how a row is written down."""

from __future__ import annotations

from enum import StrEnum

import msgspec

MAX_SERIES = 1_000


class MetricKind(StrEnum):
    """How a metric's value moves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table. max_series: sets of label values it keeps apart; what comes after is counted as `other`.

    is_bare: a counter whose exposed name does not end in `_total`, because others have named it so.
    """

    name: str
    kind: MetricKind
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    max_series: int = MAX_SERIES
    is_bare: bool = False

    @property
    def exposed_name(self) -> str:
        """What a scrape shows: a counter's name ends in `_total`, as Prometheus wants it, unless it is bare."""
        return f"{self.name}_total" if self.kind is MetricKind.COUNTER and not self.is_bare else self.name


def counter(name: str, unit: str, help_: str, labels: tuple[str, ...]) -> Metric:
    """A row that only grows. Its exposed name ends in `_total`."""
    return Metric(name=name, kind=MetricKind.COUNTER, unit=unit, help=help_, labels=labels)


def bare_counter(name: str, unit: str, help_: str, labels: tuple[str, ...]) -> Metric:
    """A row that only grows and is exposed under just this name."""
    return Metric(name=name, kind=MetricKind.COUNTER, unit=unit, help=help_, labels=labels, is_bare=True)


def gauge(name: str, unit: str, help_: str, labels: tuple[str, ...]) -> Metric:
    """A row that moves both ways."""
    return Metric(name=name, kind=MetricKind.GAUGE, unit=unit, help=help_, labels=labels)


def histogram(name: str, unit: str, help_: str, buckets: tuple[float, ...], labels: tuple[str, ...]) -> Metric:
    """A row that counts observations by bucket."""
    return Metric(name=name, kind=MetricKind.HISTOGRAM, unit=unit, help=help_, labels=labels, buckets=buckets)
