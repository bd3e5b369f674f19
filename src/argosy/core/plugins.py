"""The only dynamic import of Argosy: a name, looked up in a table of `module:attribute` strings."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any

from argosy.core.errors import NotFound


def resolve(table: Mapping[str, str], name: str, what: str) -> Any:
    """The attribute that `table[name]` points at, imported now. Raises: NotFound listing what there is."""
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise NotFound(f"no {what} is called {name!r}: {hint}there are {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
