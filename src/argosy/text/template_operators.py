"""The operators of chat templates whose result may be much larger than its operands, paid for before they work."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

from jinja2.exceptions import SecurityError

from argosy.text.template_limits import Meter, TemplateLimit

MAX_INTEGER_BITS = 4096
_PERCENT_FORMAT = re.compile(r"(?:[^%]|%(?:\.[0-9])?[sdif%])*")


def _add(meter: Meter, left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        meter.produce(len(left) + len(right))
    elif isinstance(left, list | tuple) and isinstance(right, list | tuple):
        meter.charge(len(left) + len(right))
    return left + right


def _multiply(meter: Meter, left: Any, right: Any) -> Any:
    for values, times in ((left, right), (right, left)):
        if isinstance(values, str | list | tuple):
            size = len(values) * max(times, 0)
            meter.produce(size) if isinstance(values, str) else meter.charge(size)
    return _bounded_integer(left, right, operator.mul, lambda one, other: one + other)


def _power(meter: Meter, left: Any, right: Any) -> Any:
    meter.charge()
    return _bounded_integer(left, right, operator.pow, lambda bits, _: bits * max(int(right), 1))


def _bounded_integer(left: Any, right: Any, apply: Callable[[Any, Any], Any], bits: Callable[[int, int], int]) -> Any:
    if isinstance(left, int) and isinstance(right, int):
        size = bits(left.bit_length(), right.bit_length())
        if size > MAX_INTEGER_BITS:
            raise TemplateLimit(f"it makes a number of more than {MAX_INTEGER_BITS} bits")
    return apply(left, right)


def _modulo(meter: Meter, left: Any, right: Any) -> Any:
    if not isinstance(left, str):
        return left % right
    if not _PERCENT_FORMAT.fullmatch(left):
        raise SecurityError("string formatting with widths is not allowed")
    values = right if isinstance(right, list | tuple) else [right]
    texts = tuple(value if isinstance(value, int | float) else meter.text(value) for value in values)
    meter.produce(len(left) + sum(len(text) if isinstance(text, str) else 400 for text in texts))
    return left % texts


BINARY_OPERATORS: Mapping[str, Callable[[Meter, Any, Any], Any]] = {
    "+": _add,
    "*": _multiply,
    "**": _power,
    "%": _modulo,
}
