"""The alert rules and the dashboard name only metrics and labels that exist, and their queries can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from argosy.cli.main import COMMANDS
from argosy.control.reasons import ConditionReason, EventReason
from argosy.core.inference_service import RolloutPhase, ServicePhase
from argosy.core.workload import ReplicaPhase
from argosy.observe.metric import MetricKind
from argosy.observe.metrics import METRICS

DEPLOY = Path(__file__).parents[2] / "deploy" / "observability"
RULES = [rule for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text())

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>"(?:[^"\\]|\\.)*") | (?P<range>\[\d+[smhd]\]) | (?P<number>\d+(?:\.\d+)?) |
    (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) | (?P<operator>=~|!~|!=|==|>=|<=|[-+*/=<>(){},])
    )""",
    re.VERBOSE,
)
_AGGREGATIONS = {"sum", "max", "min", "count", "avg"}
_FUNCTIONS = {"rate": True, "increase": True, "histogram_quantile": False, "time": False, "absent": False}
_WORDS = {"by", "and", "on", "or", "unless"}
_ENUMS = {
    "argosy_control_service_phase": {"phase": {each.value for each in ServicePhase}},
    "argosy_control_rollout_phase": {"phase": {each.value for each in RolloutPhase}},
    "argosy_control_replicas": {"phase": {each.value for each in ReplicaPhase}},
    "argosy_control_events_total": {"reason": {each.value for each in EventReason}},
    "argosy_control_reconcile_errors_total": {"reason": {each.value for each in ConditionReason}},
}


def exposed() -> dict[str, set[str]]:
    """Every sample name of the merged scrape, with its labels."""
    found = {"up": {"job"}}
    for metric in METRICS:
        labels = set(metric.labels)
        if metric.name.startswith("argosy_gateway_"):
            labels.add("gateway")
        elif not metric.name.startswith(("argosy_control_", "argosy_scrape_")):
            labels |= {"service", "revision", "replica"}
        if metric.kind is MetricKind.HISTOGRAM:
            found[f"{metric.name}_bucket"] = labels | {"le"}
            found |= {f"{metric.name}{suffix}": labels for suffix in ("_sum", "_count")}
        else:
            found[metric.exposed_name] = labels
    return found


EXPOSED = exposed()


class Query(NamedTuple):
    """metrics: sample names. grouped: labels of `by`. matched: (sample name, label, value) of the selectors."""

    metrics: list[str]
    grouped: set[str]
    matched: list[tuple[str, str, str]]


def tokens(expression: str) -> list[tuple[str, str]]:
    found, at = [], 0
    expression = expression.strip()
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        assert match, f"cannot be read from here: {expression[at : at + 30]}"
        found.append((str(match.lastgroup), str(match.group(str(match.lastgroup)))))
        at = match.end()
    return found


def parse(expression: str) -> Query:
    """A reader of as much PromQL as we write. Fails on unknown names, and on a counter without rate or increase."""
    query, read, depth, windows = Query([], set(), []), tokens(expression), [], []
    at = 0
    while at < len(read):
        kind, text = read[at]
        if text in "({":
            depth.append(text)
        elif text in ")}":
            assert depth, "one bracket too many"
            assert depth.pop() == {")": "(", "}": "{"}[text]
        elif kind == "name" and text in ("by", "on"):
            end = read.index(("operator", ")"), at)
            query.grouped.update(word for word_kind, word in read[at + 2 : end] if word_kind == "name")
            at = end
        elif kind == "name" and text in _AGGREGATIONS | _FUNCTIONS.keys():
            assert read[at + 1][1] in ("(", "by"), f"{text} needs brackets"
        elif kind == "name" and text not in _WORDS:
            assert text in EXPOSED, f"there is no metric {text}"
            query.metrics.append(text)
            at = selector(read, at, query)
            needs_window = text.endswith(("_total", "_bucket"))
            has_window = at + 1 < len(read) and read[at + 1][0] == "range"
            assert needs_window == has_window, f"{text} must be read over time, gauges must not"
            windows.append(has_window)
        at += 1
    assert not depth, "a bracket is not closed"
    return query


def selector(read: list[tuple[str, str]], at: int, query: Query) -> int:
    """Past the braces behind a metric, if there are any."""
    metric = read[at][1]
    if read[at + 1 : at + 2] != [("operator", "{")]:
        return at
    end = read.index(("operator", "}"), at)
    assert all(kind == "name" for kind, _ in read[at + 2 : end : 4])
    for label, operator, value in zip(*(read[at + 2 + offset : end : 4] for offset in range(3)), strict=True):
        assert operator[1] in ("=", "=~", "!=", "!~")
        query.matched.append((metric, label[1], json.loads(value[1])))
    return end


def dashboard_queries() -> Iterator[Any]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield pytest.param(target["expr"], target["legendFormat"], id=f"{panel['title']} {target['refId']}")
    for note in DASHBOARD["annotations"]["list"]:
        yield pytest.param(note["expr"], note["titleFormat"], id=note["name"])


def check(expression: str) -> set[str]:
    """The labels a result may have. Fails if the query names what does not exist."""
    query = parse(expression)
    assert query.metrics
    for metric in query.metrics:
        if metric != "up":
            assert query.grouped <= EXPOSED[metric], f"{metric} has no label {query.grouped - EXPOSED[metric]}"
    for metric, label, value in query.matched:
        assert label in EXPOSED[metric], f"{metric} has no label {label}"
        allowed = _ENUMS.get(metric, {}).get(label)
        if allowed is not None:
            assert set(value.split("|")) <= allowed
    return query.grouped or set.intersection(*(EXPOSED[metric] for metric in query.metrics))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_can_fire(rule: dict[str, Any]) -> None:
    labels = check(rule["expr"])
    told = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", told)) <= labels
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))
    assert rule["annotations"]["summary"].endswith(".")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_names_a_command_that_exists(rule: dict[str, Any]) -> None:
    program, *rest = rule["annotations"]["action"].split()
    assert program == "df" or (program == "argosy" and rest[0] in COMMANDS)


@pytest.mark.parametrize(("expression", "legend"), [*dashboard_queries()])
def test_a_plot_can_be_drawn(expression: str, legend: str) -> None:
    labels = check(expression.replace('"$service"', '"chat"').replace('"$revision"', '"v1"'))
    assert set(re.findall(r"{{(\w+)}}", legend)) <= labels


def test_the_dashboard_is_one() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for variable in DASHBOARD["templating"]["list"][1:]:
        assert re.match(r"label_values\((\w+)", variable["query"]["query"]).group(1) in EXPOSED  # type: ignore[union-attr]
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels lie over each other"
    assert max(x for x, _ in cells) < 24


def test_alert_names_are_unique_and_each_is_documented() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    assert {name for name in names if f"`{name}`" not in page} == set()


@pytest.mark.parametrize(
    "wrong",
    [
        "sum(argosy_gateway_errors_total)",
        "rate(argosy_gateway_nothing_total[5m])",
        "sum by (colour) (argosy_control_desired_replicas)",
        'argosy_control_service_phase{phase="sleeping"}',
        'argosy_control_desired_replicas{colour="red"}',
        "sum(argosy_control_desired_replicas",
        "argosy_control_desired_replicas[5m]",
        "argosy_control_desired_replicas ? 1",
    ],
)
def test_the_reader_refuses_what_is_wrong(wrong: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check(wrong)
