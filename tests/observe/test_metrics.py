"""The metric table, its exposition, and its bounded size (D-35)."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from argosy.observe.metric import MetricKind
from argosy.observe.metrics import METRICS, Metrics
from argosy.observe.replica_metrics import TOKEN_BUCKETS

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"


def families(metrics: Metrics) -> dict[str, object]:
    return {family.name: family for family in text_string_to_metric_families(metrics.expose().decode())}


def test_a_histogram_counts_as_prometheus_reads_it() -> None:
    metrics = Metrics()
    histogram = metrics.histogram("vllm:inter_token_latency_seconds", "m", "0")
    for value in (0.005, 0.01, 0.02, 1000.0):
        histogram.observe(value)
    family = families(metrics)["vllm:inter_token_latency_seconds"]
    samples = {(sample.name.rpartition("_")[2], sample.labels.get("le")): sample.value for sample in family.samples}
    assert samples["bucket", "0.01"] == 2
    assert samples["bucket", "0.025"] == 3
    assert samples["bucket", "80.0"] == 3
    assert samples["bucket", "+Inf"] == samples["count", None] == 4
    assert samples["sum", None] == pytest.approx(1000.035)
    assert len([key for key in samples if key[0] == "bucket"]) == len(TOKEN_BUCKETS) + 1


def test_counters_and_gauges_are_exposed_under_their_names() -> None:
    metrics = Metrics()
    metrics.counter("http_requests", "/v1/models", "GET", "200").add(2)
    metrics.gauge("vllm:num_requests_waiting", "m", "0").set(3)
    shown = metrics.expose().decode()
    assert 'http_requests_total{handler="/v1/models",method="GET",status="200"} 2.0' in shown
    assert 'vllm:num_requests_waiting{engine="0",model_name="m"} 3.0' in shown


def test_d35_a_label_out_of_control_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(5000):
        metrics.counter("http_requests", f"/{number}", "GET", "200").add()
    family = families(metrics)["http_requests"]
    assert len(family.samples) == 1001
    others = [sample.value for sample in family.samples if sample.labels["handler"] == "other"]
    assert others == [4000]


def test_labels_must_fit_the_table() -> None:
    with pytest.raises(ValueError, match="has labels"):
        Metrics().counter("http_requests", "only one")


def test_names_are_unique_and_say_their_unit() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert metric.help.endswith(".")
        assert (metric.kind is MetricKind.HISTOGRAM) == bool(metric.buckets)
        assert tuple(sorted(metric.buckets)) == metric.buckets


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_documented(metric) -> None:
    suffix = "_total" if metric.kind is MetricKind.COUNTER else ""
    assert f"`{metric.name}{suffix}`" in DOCS.read_text(encoding="utf-8")
