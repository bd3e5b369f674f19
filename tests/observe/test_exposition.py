"""Merging scrapes: what Prometheus reads of the result is what the sources said, once each, under the given labels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from argosy.core.load_report import GatewayReport, ReplicaLoad, RevisionTraffic, ServiceTraffic
from argosy.observe.exposition import Merged, Scrape, merge
from argosy.observe.metrics import Metrics
from argosy.observe.traffic_cells import report_metrics

V1 = {"service": "chat", "revision": "v1", "replica": "chat-v1-aaaaa"}
V2 = {"service": "chat", "revision": "v2", "replica": "chat-v2-bbbbb"}


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every series, as prometheus-client reads it; a series that comes twice fails."""
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    names: list[str] = []
    for family in text_string_to_metric_families(text):
        names.append(family.name)
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    assert len(names) == len(set(names)), "a family comes twice"
    return found


def replica_text(waiting: int) -> str:
    metrics = Metrics()
    metrics.gauge("vllm:num_requests_waiting", "m", "0").set(waiting)
    metrics.counter("vllm:generation_tokens", "m", "0").add(7)
    metrics.histogram("vllm:time_to_first_token_seconds", "m", "0").observe(0.3)
    return metrics.expose().decode()


def test_two_replicas_stay_apart_and_each_family_comes_once() -> None:
    merged = merge([Scrape(text=replica_text(3), labels=V1), Scrape(text=replica_text(4), labels=V2)])
    assert merged.problems == {}
    assert merged.dropped == 0
    assert merged.text.count("# TYPE vllm:num_requests_waiting gauge") == 1
    assert merged.text.count("# HELP vllm:generation_tokens_total ") == 1
    waiting = {
        dict(labels)["replica"]: value
        for (name, labels), value in read(merged.text).items()
        if name == "vllm:num_requests_waiting"
    }
    assert waiting == {"chat-v1-aaaaa": 3, "chat-v2-bbbbb": 4}


@pytest.mark.parametrize(
    "garbage",
    [
        "no value",
        "x{",
        'x{a="1"',
        'x{a="1",a="2"} 1',
        "x nonsense",
        "x 1 2 3",
        "1x 1",
        'x{a="\\q"} 1',
        'x{__name__="y"} 1',
        "# TYPE x flower\nx 1",
        "x 1\n# TYPE x gauge",
        "# TYPE x gauge\n# TYPE x counter\nx 1",
        "<html>502 Bad Gateway</html>",
        "x" * 20_000 + " 1",
        "x 1_000",
        "x 1\x00",
    ],
)
def test_a_source_that_cannot_be_read_is_named_and_the_others_stay(garbage: str) -> None:
    merged = merge([Scrape(text=garbage, labels=V1), Scrape(text=replica_text(4), labels=V2)])
    assert set(merged.problems) == {0}
    assert {dict(labels).get("replica") for _, labels in read(merged.text)} == {"chat-v2-bbbbb"}


def test_d35_a_source_cannot_speak_in_anothers_name() -> None:
    merged = merge([Scrape(text='up{service="other",exported_service="third"} 1\n', labels=V1)])
    ((_, labels),) = read(merged.text)
    assert dict(labels) == {**V1, "exported_service": "third", "exported_exported_service": "other"}


def test_a_series_never_comes_twice() -> None:
    merged = merge([Scrape(text="x 1\nx 2\n", labels=V1), Scrape(text="x 3\n", labels=V1)])
    assert list(read(merged.text).values()) == [1]
    assert merged.dropped == 2


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("# TYPE x gauge\nx 1\n", "# TYPE x counter\nx 1\n"),
        ("# TYPE x histogram\nx_count 1\n", "# TYPE x_count gauge\nx_count 1\n"),
        ("# TYPE x_sum gauge\nx_sum 1\n", "# TYPE x summary\nx_sum 1\n"),
    ],
)
def test_of_two_types_the_first_stays(first: str, second: str) -> None:
    merged = merge([Scrape(text=first, labels=V1), Scrape(text=second, labels=V2)])
    assert len(read(merged.text)) == 1
    assert merged.dropped == 1


def test_d35_the_size_is_bounded() -> None:
    many = "".join(f'x{{n="{number}"}} 1\n' for number in range(100))
    merged = merge([Scrape(text=many, labels=V1), Scrape(text=many, labels=V2)], max_samples=150)
    assert len(read(merged.text)) == 150
    assert merged.dropped == 50


_NAMES = st.from_regex(r"[a-z_:][a-z0-9_:]{0,8}", fullmatch=True)
_LABELS = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_]{0,5}", fullmatch=True) | st.sampled_from(["service", "replica"]),
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8),
    max_size=3,
)
_VALUES = st.floats(allow_nan=True, allow_infinity=True)
_SAMPLES = st.lists(st.tuples(_NAMES, _LABELS, _VALUES), max_size=8)


def written(samples: list[tuple[str, dict[str, str], float]]) -> str:
    lines = []
    for name, labels, value in samples:
        escaped = (f'{k}="{_escape(v)}"' for k, v in labels.items())
        shown = {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, "NaN" if value != value else repr(value))
        lines.append(f"{name}{{{','.join(escaped)}}} {shown}\n")
    return "".join(lines)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@given(one=_SAMPLES, other=_SAMPLES)
def test_every_series_survives_with_its_value(
    one: list[tuple[str, dict[str, str], float]], other: list[tuple[str, dict[str, str], float]]
) -> None:
    merged = merge([Scrape(text=written(one), labels=V1), Scrape(text=written(other), labels=V2)])
    assert merged.problems == {}
    found = read(merged.text)
    told = {
        (name, frozenset(labels.items()), origin): value
        for origin, samples in ((0, one), (1, other))
        for name, labels, value in reversed(samples)
    }
    assert len(found) == len(told)
    assert sorted(map(str, found.values())) == sorted(map(str, told.values()))
    for _, labels in found:
        given_labels = dict(labels)
        assert any(all(given_labels[name] == value for name, value in source.items()) for source in (V1, V2))


@given(st.lists(st.text(max_size=200), max_size=3))
def test_whatever_comes_is_either_readable_or_named(texts: list[str]) -> None:
    merged: Merged = merge([Scrape(text=text, labels={"replica": str(n)}) for n, text in enumerate(texts)])
    read(merged.text)
    assert set(merged.problems) <= set(range(len(texts)))


def test_a_merge_merged_again_is_the_same() -> None:
    once = merge([Scrape(text=replica_text(3), labels=V1)])
    assert merge([Scrape(text=once.text, labels={})]).text == once.text


def test_a_gateways_report_becomes_metrics() -> None:
    counts = [0] * 35
    counts[20], counts[-1] = 3, 1
    traffic = RevisionTraffic(revision="v1", requests=4, errors=1, ttft_counts=tuple(counts), ttft_seconds=130.0)
    shadow = RevisionTraffic(revision="v2", is_shadow=True, requests=2)
    load = ReplicaLoad(replica="chat-v1-aaaaa", revision="v1", in_flight=2, is_ejected=True)
    service = ServiceTraffic(service="chat", arrivals=9, held=5, revisions=(traffic, shadow), replicas=(load,))
    found = read(
        report_metrics(
            GatewayReport(epoch="e", routes_version=3, routes_stale_seconds=4.0, services=(service,))
        ).decode()
    )
    v1 = {("service", "chat"), ("revision", "v1")}
    assert found["argosy_gateway_routes_stale_seconds", frozenset()] == 4
    assert found["argosy_gateway_arrivals_total", frozenset({("service", "chat")})] == 9
    assert found["argosy_gateway_requests_held", frozenset({("service", "chat")})] == 5
    assert found["argosy_gateway_errors_total", frozenset(v1)] == 1
    assert found["argosy_gateway_ttft_seconds_count", frozenset(v1)] == 4
    assert found["argosy_gateway_ttft_seconds_sum", frozenset(v1)] == 130.0
    assert found["argosy_gateway_ttft_seconds_bucket", frozenset(v1 | {("le", "120.0")})] == 3
    assert found["argosy_gateway_replica_ejected", frozenset(v1 | {("replica", "chat-v1-aaaaa")})] == 1
    assert ("argosy_gateway_requests_total", frozenset({("service", "chat"), ("revision", "v2")})) not in found
