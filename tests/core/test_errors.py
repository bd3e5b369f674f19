"""The error tree: every leaf has a code of its own and a status the docstring draws."""

from __future__ import annotations

import inspect

from argosy.core import errors
from argosy.core.errors import ArgosyError

LEAVES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, ArgosyError) and value is not ArgosyError
]


def test_codes_are_unique() -> None:
    codes = [leaf.code for leaf in LEAVES]
    assert len(set(codes)) == len(codes)


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = errors.__doc__ or ""
    for leaf in LEAVES:
        line = next(line for line in drawn.splitlines() if leaf.__name__ in line)
        own_status = [word for word in line.split() if word.isdigit()]
        inherited = str(leaf.__mro__[1].status)
        assert str(leaf.status) == (own_status[0] if own_status else inherited), leaf
