from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.evals.plots import Axis, Series, cumulative, line_plot, nice_ticks, thinned


def svg_of(figure: str) -> ElementTree.Element:
    return ElementTree.fromstring(figure[figure.index("<svg") : figure.index("</svg>") + 6])


@given(st.floats(0, 1e9), st.floats(1e-6, 1e9))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    ticks = nice_ticks(low, low + span)
    assert len(ticks) <= 8
    assert all(low - span * 1e-6 - low * 1e-9 <= tick <= (low + span) * (1 + 1e-9) for tick in ticks)


def test_ticks_of_a_plain_range() -> None:
    assert nice_ticks(0, 100) == [0, 20, 40, 60, 80, 100]


def test_cumulative_share() -> None:
    assert cumulative([3.0, 1.0]) == [(1.0, 50.0), (3.0, 100.0)]


def test_thinning_keeps_the_ends() -> None:
    points = [(float(n), 0.0) for n in range(1000)]
    kept = thinned(points, 10)
    assert (len(kept), kept[0], kept[-1]) == (10, points[0], points[-1])


@pytest.mark.parametrize("is_log", [False, True])
def test_a_plot_is_well_formed_and_inside_its_frame(is_log: bool) -> None:
    series = [Series(name="a<b>&", points=[(0.001, 0.0), (5.0, 3.0), (1000.0, 7.0)])]
    svg = svg_of(line_plot("T<i>", Axis(label="x", is_log=is_log), Axis(label="y"), series, is_marked=True))
    line = svg.find("polyline")
    assert line is not None
    for point in line.attrib["points"].split():
        x, y = map(float, point.split(","))
        assert 0 <= x <= 560
        assert 0 <= y <= 300
    assert len(svg.findall("circle")) == 3


def test_equal_and_missing_values_are_plots_too() -> None:
    assert "<polyline" in line_plot(
        "t", Axis(label="x", is_log=True), Axis(label="y"), [Series(name="a", points=[(0, 0), (0, 0)])]
    )
    assert "nothing was measured" in line_plot("t", Axis(label="x"), Axis(label="y"), [Series(name="a", points=[])])
