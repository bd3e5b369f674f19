"""Parameters as TorchServe reads them: what is no number becomes the default, what is no flag false; we also say so.

They come from the query, or, for a registration, from a JSON body with the same names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from argosy.core.errors import InvalidRequest

_WHOLE = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)  # Java's Integer.parseInt, less the last digit of its range.
_FLAGS = {"true": True, "false": False}
_SHOWN_CHARACTERS = 32


class Parameters:
    """The parameters of one call. `warnings`: what was taken for what, for a header of the answer."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.warnings: list[str] = []

    def has(self, name: str) -> bool:
        """Whether it was given at all."""
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """A text; a number or flag in a JSON body is one, too."""
        value = self._values.get(name)
        return default if value is None else _text(value)

    def whole(self, name: str, default: int | None = None, *, minimum: int | None = None) -> int | None:
        """A whole number. Raises: InvalidRequest if it is one, and below the least that makes sense."""
        given = self.text(name).strip()
        if not given:
            return default
        if not _WHOLE.fullmatch(given):
            self._warn(name, given, "a whole number", default)
            return default
        value = int(given)
        if minimum is not None and value < minimum:
            raise InvalidRequest(f"Parameter {name} is {value}: it cannot be less than {minimum}.", param=name)
        return value

    def seconds(self, name: str, *, per_unit: float = 1.0, minimum: int) -> float | None:
        """A duration given in whole units of so many seconds; None if it is not given."""
        value = self.whole(name, minimum=minimum)
        return None if value is None else value * per_unit

    def flag(self, name: str, default: bool) -> bool:
        """`true` or `false`, in any case; anything else is false, as in Java."""
        given = self.text(name).strip().lower()
        if not given:
            return default
        if given not in _FLAGS:
            self._warn(name, given, "true or false", "false")
        return _FLAGS.get(given, False)

    def headers(self) -> dict[str, str]:
        """The header that tells of the warnings, if there are any. Source: RFC 7234 §5.5, code 299."""
        if not self.warnings:
            return {}
        return {"warning": ", ".join(f'299 argosy "{warning}"' for warning in self.warnings)}

    def _warn(self, name: str, given: str, wanted: str, default: object) -> None:
        shown = re.sub(r"[^\x20-\x7e]|[\"\\]", "?", given[:_SHOWN_CHARACTERS])
        taken = "the model's own value" if default is None else default
        self.warnings.append(f"{name}='{shown}' is not {wanted}, {taken} is used")


def parameters_of(body: bytes) -> Parameters:
    """The parameters in a JSON body. Raises: InvalidRequest."""
    try:
        return Parameters(msgspec.json.decode(body, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidRequest(f"the body is not a JSON object: {exc}: send the parameters by their names") from exc


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)
