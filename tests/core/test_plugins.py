"""The one dynamic import: finds what a table names, and says what there is when it does not."""

from __future__ import annotations

import pytest

from argosy.core.errors import NotFound
from argosy.core.plugins import resolve

TABLE = {"errors": "argosy.core.errors:NotFound", "names": "argosy.core.model:is_name"}


def test_a_known_name_becomes_its_attribute() -> None:
    assert resolve(TABLE, "errors", "thing") is NotFound


def test_an_unknown_name_gets_a_suggestion_and_the_list() -> None:
    with pytest.raises(NotFound, match=r"no thing is called 'error': did you mean 'errors'\? there are errors, names"):
        resolve(TABLE, "error", "thing")
