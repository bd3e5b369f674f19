"""How much one rendering of a chat template may do: a meter that every loop, call and growing string is charged to.

A template comes with a model from a stranger and runs on the serving path, in a thread, where nothing can interrupt
it (D-09). So it is metered from inside: *steps* bound time, *characters* bound memory, and the thread's own CPU time
is a second line behind the steps. A real template rendering a long chat spends some thousand steps and a few times
its output in characters.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from jinja2 import TemplateError, Undefined

MAX_STEPS = 500_000
MAX_CHARACTERS = 32 * 2**20
MAX_CPU_SECONDS = 2.0
MAX_DEPTH = 64
_CHARGES_PER_CLOCK = 32
_ATOMS = frozenset({str, int, float, bool, type(None)})


class TemplateLimit(TemplateError):
    """The template did more than one rendering may do."""


class Meter(threading.local):
    """What is left of one rendering's allowance, in the thread that renders. `start` fills it."""

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin a rendering with a full allowance."""
        self.steps = MAX_STEPS
        self.characters = MAX_CHARACTERS
        self._cpu_end_seconds = time.thread_time() + MAX_CPU_SECONDS
        self._charges = 0

    def charge(self, num_steps: int = 1) -> None:
        """Spend steps. Raises: TemplateLimit when they, or the CPU time, are used up."""
        self.steps -= num_steps
        if self.steps < 0:
            raise TemplateLimit(f"it takes more than {MAX_STEPS:,} steps")
        self._charges += 1
        if self._charges % _CHARGES_PER_CLOCK == 0 and time.thread_time() > self._cpu_end_seconds:
            raise TemplateLimit(f"it takes more than {MAX_CPU_SECONDS:g} seconds of CPU time")

    def produce(self, num_characters: int) -> None:
        """Spend characters, before they are made. Raises: TemplateLimit when they are used up."""
        self.characters -= num_characters
        if self.characters < 0:
            raise TemplateLimit(f"it makes more than {MAX_CHARACTERS:,} characters")
        self.charge(1 + num_characters // 1024)

    def each(self, values: Any, weight: int = 1) -> Any:
        """`values`, ready to be looped over. weight: steps to pay for one round."""
        if isinstance(values, Undefined):
            return values
        if not hasattr(values, "__len__"):
            values = self.listed(values)
        self.charge(len(values) * weight)
        return values

    def listed(self, values: Iterable[Any]) -> list[Any]:
        """The items of an iterator of unknown length, as far as the allowance goes."""
        items = list(islice(values, self.steps + 1))
        self.charge(len(items))
        return items

    def flat(self, value: Any) -> Any:
        """`value`, paid for as a whole tree, so that comparing or printing it can cost no more than was paid.

        Lists that share members print exponentially larger than they are; here each printed member is counted.
        """
        if type(value) not in _ATOMS and not isinstance(value, Undefined):
            self._charge_tree(value, 0)
        return value

    def text(self, value: Any) -> str:
        """What printing `value` gives. Raises: TemplateLimit; TemplateError for what is no data (functions, loops)."""
        if type(value) is str:
            return value
        if isinstance(value, list | tuple | dict):
            self._charge_tree(value, 0)
        elif not isinstance(value, str | int | float | Undefined | None):
            raise TemplateError(f"a {type(value).__name__} cannot be printed")
        printed = str(value)
        self.produce(len(printed))
        return printed

    def joined(self, parts: Iterable[str]) -> str:
        """The parts as one string, paid for before it is made."""
        pieces = parts if isinstance(parts, list) else self.listed(parts)
        self.produce(sum(map(len, pieces)))
        return "".join(pieces)

    def _charge_tree(self, value: Any, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise TemplateLimit(f"it nests values deeper than {MAX_DEPTH}")
        if type(value) is str:
            self.produce(len(value))
        elif isinstance(value, Mapping):
            self.charge(1 + len(value))
            for key, member in value.items():
                self._charge_tree(key, depth + 1)
                self._charge_tree(member, depth + 1)
        elif isinstance(value, list | tuple):
            self.charge(1 + len(value))
            for member in value:
                self._charge_tree(member, depth + 1)
