"""docs/torchserve-api.md lists exactly what the code has: routes, differences, types of errors, metrics."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from argosy.core.torchserve_spec import MetricsSet
from argosy.observe.torchserve_metrics import BUILT_IN, torchserve_metrics
from argosy.protocols.torchserve import Api, Parts, WireSettings, errors, routes_of
from argosy.protocols.torchserve.settings import ALWAYS_DIFFERENT, DIFFERENCES

pytestmark = pytest.mark.anyio

PAGE = (Path(__file__).parents[3] / "docs" / "torchserve-api.md").read_text(encoding="utf-8")


def listed(after: str) -> list[tuple[str, ...]]:
    """The rows of the first table after a text."""
    table = PAGE.split(after, 1)[1].split("|--", 1)[-1].split("\n\n", 1)[0]
    return [tuple(cell.strip() for cell in row.strip("|").split(" | ")) for row in table.splitlines()[1:]]


async def test_every_route_is_on_the_page_and_no_other(server) -> None:
    parts = Parts(
        administration=server.administration,
        lifecycle=server.lifecycle,
        metrics=server.metrics,
        settings=WireSettings(open_inference=True),
    )
    routes = {re.sub(r":\w+}", "}", route.path).rstrip("/") or "/" for route in routes_of(frozenset(Api), parts)}
    tables = PAGE.split("## Errors")[0].split("## Inference")[1]
    rows = re.findall(r"^\| (`/.*?) \|", tables, re.MULTILINE)
    shown = {path for row in rows for path in re.findall(r"`(/[^`]*)`", row)}
    hidden = {path for path in routes if "/versions/" in path} | {"/metrics"}
    assert routes - hidden == shown


def test_every_difference_is_on_the_page_word_for_word() -> None:
    assert listed("brings TorchServe's answer back:") == [(row.what, row.original, row.ours) for row in DIFFERENCES]
    assert listed("These stay, with `strict` too:") == [(row.what, row.original, row.ours) for row in ALWAYS_DIFFERENT]


def test_every_type_of_error_is_on_the_page_and_no_other() -> None:
    source = "".join(path.read_text() for path in Path(errors.__file__).parent.glob("*.py"))
    made = set(re.findall(r'"(\w+Exception)"', source))
    shown = set(re.findall(r"`(\w+Exception)`", PAGE.split("## Errors")[1].split("## Where")[0]))
    assert made == shown - {"PredictionException"}  # what handlers raise


def test_every_metric_is_on_the_page_with_its_labels() -> None:
    rows = [*torchserve_metrics(MetricsSet.NEW), *(row for row in BUILT_IN if row is not None)]
    wanted = [
        (f"`{row.exposed_name}`", row.kind.value, row.unit, ", ".join(f"`{label}`" for label in row.labels))
        for row in rows
    ]
    assert listed("only their rate means anything.") == wanted
