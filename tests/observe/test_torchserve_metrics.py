"""The `ts_*` metrics in both label sets, handlers' own metrics, the host's figures, and a part of a scrape."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from argosy.core.errors import QueueFull, SpecError
from argosy.core.prediction import HandlerMetric, PredictRequest
from argosy.core.torchserve_spec import MetricsSet
from argosy.observe.exposition import Scrape, merge
from argosy.observe.host_metrics import HostFigures
from argosy.observe.metrics import METRICS, Metrics
from argosy.observe.metrics_file import read_metrics_file
from argosy.observe.torchserve_metrics import (
    MAX_DETECTED,
    TorchServeMeters,
    handler_row,
    only,
    torchserve_metrics,
)


def meters_of(label_set: MetricsSet = MetricsSet.NEW, **options: Any) -> TorchServeMeters:
    return TorchServeMeters(Metrics((*METRICS, *torchserve_metrics(label_set))), label_set, **options)


def samples(meters: TorchServeMeters, name: str) -> dict[str, float]:
    """Label text → value, of one metric; without the labels nobody can know beforehand."""
    text = meters.metrics.expose().decode()
    found = re.findall(rf"^{name}{{(.*)}} (\S+)$", text, re.MULTILINE)
    unknown = re.compile(r',?(?:[Hh]ostname|uuid)="[^"]*"')
    return {unknown.sub("", labels).strip(","): float(value) for labels, value in found}


def asking(version: str = "") -> PredictRequest:
    return PredictRequest(request_id="r", parts=(), requested_version=version)


@pytest.mark.parametrize("label_set", MetricsSet)
def test_requests_and_latencies_are_counted_under_the_version_the_client_named(label_set: MetricsSet) -> None:
    meters = meters_of(label_set)
    version = meters.of_version("m", "1.0")
    default, named = 'model_name="m",model_version="default"', 'model_name="m",model_version="1.0"'
    assert samples(meters, "ts_inference_requests_total") == {default: 0, named: 0}
    version.arrived(asking())
    version.arrived(asking("1.0"))
    version.ended(asking("1.0"), 0.002, 0.05, None)
    version.ended(asking("1.0"), 0.001, 0.01, None)
    assert samples(meters, "ts_inference_requests_total") == {default: 1, named: 1}
    assert samples(meters, "ts_queue_latency_microseconds") == pytest.approx({default: 0, named: 3000})
    assert samples(meters, "ts_inference_latency_microseconds") == pytest.approx({default: 0, named: 60_000})


HELP = {
    MetricsSet.OLD: "Cumulative queue duration in microseconds",
    MetricsSet.NEW: "Torchserve prometheus counter metric with unit: Microseconds",
}
LABELS = {
    MetricsSet.OLD: {"uuid", "model_name", "model_version"},
    MetricsSet.NEW: {"model_name", "model_version", "hostname"},
}


@pytest.mark.parametrize("label_set", MetricsSet)
def test_names_types_helps_and_labels_are_torchserves(label_set: MetricsSet) -> None:
    meters = meters_of(label_set)
    meters.of_version("m", "1.0")
    text = meters.metrics.expose().decode()
    name = "ts_queue_latency_microseconds"
    assert f"# HELP {name} {HELP[label_set]}\n# TYPE {name} counter\n{name}{{" in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {*families[name].samples[0].labels} == LABELS[label_set]
    assert ("Requests2XX" in text) == (label_set is MetricsSet.NEW)


def test_the_queues_length_is_a_gauge_that_goes_with_its_version() -> None:
    meters = meters_of()
    queues = [("m", "1.0", 7), ("m", "2.0", 0)]
    meters.watch_queues(lambda: queues)
    assert [*samples(meters, "ts_queue_length").values()] == [7, 0]
    del queues[1]
    assert samples(meters, "ts_queue_length") == {'model_name="m",model_version="1.0"': 7}


def test_workers_and_queues_show_their_last_times() -> None:
    meters = meters_of()
    version = meters.of_version("m", "1.0")
    version.ended(asking(), 0.25, 0.5, None)
    version.ended(asking(), 0.0, 0.0, QueueFull("full", retry_after_seconds=1.0))
    version.batch(4, 0.5)
    version.worker_loaded(9000, 1.5)
    assert samples(meters, "QueueTime") == {'Level="Host"': 250}
    assert samples(meters, "WorkerThreadTime") == {'Level="Host"': 500}
    assert samples(meters, "WorkerLoadTime") == {'Level="Host",WorkerName="W-9000-m_1.0"': 1500}


def test_d35_what_is_gone_is_shown_no_more() -> None:
    meters = meters_of()
    old, new = meters.of_version("m", "1.0"), meters.of_version("m", "2.0")
    old.worker_loaded(9000, 1.5)
    old.worker_left(9000)
    assert samples(meters, "WorkerLoadTime") == {}
    old.version_left(is_last=False)
    shown = {'model_name="m",model_version="default"': 0, 'model_name="m",model_version="2.0"': 0}
    assert samples(meters, "ts_inference_requests_total") == shown
    new.version_left(is_last=True)
    assert samples(meters, "ts_inference_requests_total") == {}


def test_responses_are_counted_by_class() -> None:
    meters = meters_of()
    for status, count in (("200", 3), ("202", 1), ("404", 2), ("503", 1), ("499", 1), ("302", 9)):
        meters.metrics.counter("http_requests", "/predictions/{model}", "POST", status).add(count)
    shown = {name: [*samples(meters, name).values()] for name in ("Requests2XX", "Requests4XX", "Requests5XX")}
    assert shown == {"Requests2XX": [4], "Requests4XX": [3], "Requests5XX": [1]}


def seen(name: str = "Words", value: float = 1, **fields: Any) -> HandlerMetric:
    return HandlerMetric(name=name, value=value, **fields)


def test_declared_metrics_of_handlers_are_shown_as_declared() -> None:
    rows = (
        handler_row("Words", "count", "counter", ("ModelName", "language")),
        handler_row("Size", "MB", "gauge", ()),
        handler_row("Time", "ms", "histogram", ()),
    )
    meters = meters_of(declared=rows)
    version = meters.of_version("m", "1.0")
    for value in (2, 3, -1, float("nan")):
        version.handler_metric(seen(value=value, dimensions={"language": "en", "extra": "x"}))
    version.handler_metric(seen("Size", 4))
    version.handler_metric(seen("Size", 2))
    version.handler_metric(seen("Time", 0.3, kind="histogram"))
    version.handler_metric(seen("Undeclared"))
    assert samples(meters, "Words") == {'ModelName="",language="en"': 5}
    assert samples(meters, "Size") == {"": 2}
    assert samples(meters, "Time_count") == {"": 1}
    assert "# HELP Words Torchserve prometheus counter metric with unit: count\n" in meters.metrics.expose().decode()
    declared = only(meters_of(declared=rows).metrics.expose(), ["Size", "Words", "Time"])
    assert declared.count(b"# TYPE") == len(declared.splitlines()) / 2 == 3
    assert "Undeclared" not in meters.metrics.expose().decode()


def test_handler_time_needs_no_declaration() -> None:
    meters = meters_of()
    meters.of_version("m", "1").handler_metric(
        seen("HandlerTime", 3.5, kind="gauge", unit="ms", dimensions={"ModelName": "m", "Level": "Model"})
    )
    assert samples(meters, "HandlerTime") == {'Level="Model",ModelName="m"': 3.5}


@pytest.mark.parametrize(
    "metric",
    [
        seen("ts_inference_requests_total"),
        seen("vllm:num_requests_running", kind="gauge"),
        seen("Requests2XX"),
        seen("no spaces"),
        seen('x{a="1"} 1\nfake'),
        seen("Fine", dimensions={"bad label": "x"}),
        seen("Fine", kind="summary"),
        seen(""),
    ],
)
def test_d35_a_handler_cannot_take_or_break_the_servers_own_metrics(metric: HandlerMetric) -> None:
    meters = meters_of(auto_detect=True)
    version = meters.of_version("m", "1.0")
    before = meters.metrics.expose_own()
    version.handler_metric(metric)
    version.handler_metric(metric)
    assert meters.metrics.expose_own() == before


def test_d35_found_metrics_are_bounded_in_names_and_series() -> None:
    meters = meters_of(auto_detect=True)
    version = meters.of_version("m", "1.0")
    for number in range(MAX_DETECTED + 50):
        version.handler_metric(seen(f"Metric{number}"))
    for number in range(1_500):
        version.handler_metric(seen("Metric0", dimensions={}))
        version.handler_metric(seen("Metric1", value=1, dimensions={"user": str(number)}))
    text = meters.metrics.expose().decode()
    assert len(set(re.findall(r"^Metric\d+", text, re.MULTILINE))) <= MAX_DETECTED


def test_d35_values_are_escaped_and_bounded() -> None:
    meters = meters_of(declared=(handler_row("Words", "", "counter", ("user",)),))
    version = meters.of_version("m", "1.0")
    for number in range(1_200):
        version.handler_metric(seen(dimensions={"user": f'"\n{number}\\'}))
    text = meters.metrics.expose_own().decode()
    assert len(re.findall(r"^Words{", text, re.MULTILINE)) == 1_001
    merged = merge([Scrape(text=text, labels={"replica": "r"})])
    assert not merged.problems


def test_a_scrape_can_be_cut_down_to_names() -> None:
    meters = meters_of()
    meters.of_version("m", "1.0").arrived(asking())
    text = meters.metrics.expose()
    cut = only(text, ["ts_inference_requests_total", "nothing"]).decode()
    assert [line.partition("{")[0].split(" ")[0] for line in cut.splitlines()] == [
        "#", "#", "ts_inference_requests_total", "ts_inference_requests_total",
    ]  # fmt: skip
    assert only(text, []) == b""


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_hosts_figures_are_read_once_per_interval(tmp_path: Path) -> None:
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n")
    (proc / "meminfo").write_text("MemTotal: 1048576 kB\nMemFree: 1 kB\nMemAvailable: 786432 kB\n")
    seen: dict[str, float] = {}
    clock = Clock()
    figures = HostFigures(seen.__setitem__, interval_seconds=60, clock=clock, root=tmp_path)
    (proc / "stat").write_text("cpu  150 0 100 850 100 0 0 0 0 0\n")
    figures.sample()
    assert seen.pop("DiskAvailable") > 0
    assert seen.keys() >= {"DiskUsage", "DiskUtilization"}
    assert {name: seen[name] for name in ("CPUUtilization", "MemoryUsed", "MemoryAvailable", "MemoryUtilization")} == {
        "CPUUtilization": 25.0, "MemoryUsed": 256, "MemoryAvailable": 768, "MemoryUtilization": 25.0,
    }  # fmt: skip
    seen.clear()
    clock.now += 59
    figures.sample()
    assert seen == {}
    clock.now += 1
    figures.sample()
    assert seen["CPUUtilization"] == 0


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    seen: dict[str, float] = {}
    HostFigures(seen.__setitem__, interval_seconds=60, root=tmp_path).sample()
    assert {*seen} == {"DiskUsage", "DiskAvailable", "DiskUtilization"}


def test_a_metrics_file_declares_what_handlers_report(tmp_path: Path) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(
        "dimensions:\n  - &name ModelName\nts_metrics:\n  counter: [{name: Requests2XX, unit: Count}]\n"
        "model_metrics:\n  gauge:\n    - {name: Size, unit: MB, dimensions: [*name]}\n  counter:\n    - name: Words\n"
    )
    assert [(row.name, row.kind, row.labels) for row in read_metrics_file(path)] == [
        ("Words", "counter", ("Hostname",)),
        ("Size", "gauge", ("ModelName", "Hostname")),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("model_metrics: 3", "model_metrics"),
        ("model_metrics: {gauges: []}", "gauges"),
        ("model_metrics: {gauge: [{unit: ms}]}", "name"),
        ("model_metrics: {gauge: [{name: ts_mine}]}", "ts_mine"),
        ("model_metrics: {gauge: [{name: a}], counter: [{name: a}]}", "comes twice"),
        ("a: [", "wrong"),
        ("\xff\xfe: \x00", "wrong"),
    ],
)
def test_a_wrong_metrics_file_is_refused_and_named(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "metrics.yaml"
    path.write_text(text, "latin-1")
    with pytest.raises(SpecError, match=problem) as raised:
        read_metrics_file(path)
    assert str(path) in raised.value.message


def test_a_metrics_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        read_metrics_file(tmp_path / "none.yaml")
