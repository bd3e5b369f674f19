"""The filters, tests and globals a chat template may use; what is not in these tables does not exist for it.

The selection covers every template of the model families we know; each entry whose result may be larger than its
input pays for it first. Left out on purpose: `attr`, `format`, `center`, `batch`, `slice`, `wordwrap`, `urlize`,
`random`, `pprint`, `xmlattr`, `sum`, and the globals `cycler`, `joiner`, `lipsum`: ways to unbounded work or to
Python objects, used by no template we found.

Source: names and results of Jinja 3.1; `tojson`, `raise_exception`, `strftime_now` as in transformers'
`_compile_jinja_template` (JSON that is neither HTML-escaped nor ASCII-only by default).
"""

from __future__ import annotations

import datetime
import html
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from jinja2 import Undefined, filters, pass_context, pass_environment, tests
from jinja2.runtime import Context
from jinja2.utils import Namespace

from argosy.core.errors import InvalidRequest
from argosy.text.template_limits import Meter, TemplateLimit

MAX_INDENT = 64
_TIME_FORMAT = re.compile(r"(?:[^%]|%-?[aAbBdHIjmMpSwyYZzfxXcGuVeBFTDRkl%]){0,64}")
_PLAIN_FILTERS = ("abs", "default", "d", "first", "last", "length", "count", "int", "float", "round", "items")
_LIST_FILTERS = ("map", "select", "reject", "selectattr", "rejectattr")
_ORDER_FILTERS = ("sort", "dictsort", "unique", "min", "max")
_CASE_FILTERS = ("upper", "lower", "capitalize", "title")
_TESTS = (
    "boolean", "defined", "divisibleby", "eq", "equalto", "==", "even", "false", "float", "ge", "gt", "greaterthan",
    ">", ">=", "in", "integer", "iterable", "le", "lower", "lt", "lessthan", "<", "<=", "mapping", "ne", "!=", "none",
    "number", "odd", "sameas", "sequence", "string", "true", "undefined", "upper",
)  # fmt: skip


class ChatTemplateError(InvalidRequest):
    """The template refused these messages through `raise_exception`."""


def template_filters(meter: Meter) -> dict[str, Callable[..., Any]]:
    """Every filter by name, charging `meter`. Names that begin with "_" are for our own rewriting of templates."""
    table: dict[str, Callable[..., Any]] = {name: filters.FILTERS[name] for name in _PLAIN_FILTERS}
    table.update({name: _lazy(meter, filters.FILTERS[name]) for name in _LIST_FILTERS})
    table.update({name: _ordering(meter, filters.FILTERS[name]) for name in _ORDER_FILTERS})
    table.update({name: _string_method(meter, name) for name in _CASE_FILTERS})
    text = meter.text
    table.update(
        {
            "_each": meter.each,
            "_flat": meter.flat,
            "_concat": lambda values: meter.joined([text(value) for value in values]),
            "string": text,
            "safe": text,
            "escape": lambda value: html.escape(text(value)),
            "e": lambda value: html.escape(text(value)),
            "list": lambda values: list(meter.each(values)),
            "trim": lambda value, chars=None: text(value).strip(chars),
            "reverse": lambda value: text(value)[::-1] if isinstance(value, str) else list(meter.each(value))[::-1],
            "join": lambda values, d="", attribute=None: _join(meter, values, d, attribute),
            "replace": lambda value, old, new, count=-1: bounded_replace(meter, text(value), old, new, count),
            "indent": lambda value, width=4, first=False, blank=False: _indent(meter, text(value), width, first, blank),
            "tojson": lambda value, **options: _to_json(meter, value, **options),
        }
    )
    return table


def template_tests(meter: Meter) -> dict[str, Any]:
    """Every test by name; operands are paid for, since comparing them may walk them."""

    def paid(test: Any) -> Callable[..., Any]:
        return lambda *operands: test(*[meter.flat(operand) for operand in operands])

    return {name: tests.TESTS[name] if name == "defined" else paid(tests.TESTS[name]) for name in _TESTS}


def template_globals(meter: Meter) -> dict[str, Any]:
    """Every global function by name."""

    def bounded_range(*limits: int) -> range:
        values = range(*limits)
        if len(values) > meter.steps:
            raise TemplateLimit(f"range({', '.join(map(str, limits))}) is too long")
        return values

    return {
        "range": bounded_range,
        "namespace": Namespace,
        "dict": lambda **members: members,
        "raise_exception": raise_exception,
        "strftime_now": strftime_now,
    }


def raise_exception(message: object) -> NoReturn:
    """How templates refuse: unknown roles, roles out of order, tools they cannot show."""
    raise ChatTemplateError(f"the model's chat template refuses these messages: {message!s:.500}", param="messages")


def strftime_now(form: str) -> str:
    """The local date and time. Raises: ValueError for formats with widths, which print as long as they like."""
    if not _TIME_FORMAT.fullmatch(form):
        raise ValueError(f"time format {form!r:.80} is not allowed")
    return datetime.datetime.now().astimezone().strftime(form)


def bounded_replace(meter: Meter, value: str, old: str, new: str, count: int = -1) -> str:
    """`value.replace(old, new, count)`, paid for first."""
    found = value.count(old) if count < 0 else min(value.count(old), count)
    meter.produce(len(value) + found * max(len(new) - len(old), 0))
    return value.replace(old, new, count)


def _lazy(meter: Meter, filter_: Callable[..., Any]) -> Callable[..., Any]:
    @pass_context
    def listed(context: Context, values: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return meter.listed(filter_(context, meter.each(values), *args, **kwargs))

    return listed


def _ordering(meter: Meter, filter_: Callable[..., Any]) -> Callable[..., Any]:
    @pass_environment
    def ordered(environment: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        result = filter_(*_leading(filter_, environment), meter.flat(values), *args, **kwargs)
        return result if isinstance(result, str | int | float | Mapping | Undefined) else list(result)

    return ordered


def _leading(filter_: Callable[..., Any], environment: Any) -> tuple[Any, ...]:
    return (environment,) if getattr(filter_, "jinja_pass_arg", None) is not None else ()


def _string_method(meter: Meter, name: str) -> Callable[[Any], str]:
    def change(value: Any) -> str:
        text = meter.text(value)
        meter.produce(len(text))
        return str(getattr(text, name)())

    return change


def _join(meter: Meter, values: Any, separator: str, attribute: str | int | None) -> str:
    if isinstance(values, str):
        values = list(meter.each(values))
    if attribute is not None:
        values = [value[attribute] for value in meter.each(values)]
    texts = [meter.text(value) for value in meter.each(values)]
    meter.produce(sum(map(len, texts)) + len(texts) * len(separator))
    return separator.join(texts)


def _indent(meter: Meter, value: str, width: int | str, first: bool, blank: bool) -> str:
    margin = width if isinstance(width, str) else " " * min(width, MAX_INDENT)
    lines = value.split("\n")
    meter.produce(len(value) + len(lines) * len(margin))
    indented = [margin + line if (blank or line) and (first or at) else line for at, line in enumerate(lines)]
    return "\n".join(indented)


def _to_json(
    meter: Meter,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | list[str] | None = None,
    sort_keys: bool = False,
) -> str:
    meter.flat(value)
    shape = None if separators is None else (str(separators[0]), str(separators[1]))
    width = None if indent is None else min(int(indent), MAX_INDENT)
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=width, separators=shape, sort_keys=sort_keys)
    meter.produce(len(text))
    return text
