r"""Java's `.properties` syntax: `key=value` lines, `#` and `!` comments, `\` at the end of a line goes on in the next.

Source: java.util.Properties.load of Java 17; `$$NAME$$` is TorchServe's own and stands for an environment variable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from argosy.core.errors import SpecError

MAX_PROPERTIES_BYTES = 4 * 2**20

_BLANKS = " \t\f"
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
# A key ends at the first blank, `=` or `:` that no backslash stands before.
_KEY = re.compile(r"(?:\\.|[^\\=: \t\f])*", re.DOTALL)
_SEPARATOR = re.compile(r"[ \t\f]*[=:]?[ \t\f]*")
_VARIABLE = re.compile(r"\$\$(\w+)\$\$")


class Property(msgspec.Struct, frozen=True, kw_only=True):
    """One key of a file. where: `file:line`, for messages."""

    key: str
    value: str
    where: str


def read_properties(path: Path) -> dict[str, Property]:
    """The properties in a file, the last of equal keys. Raises: SpecError."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PROPERTIES_BYTES + 1)
    except OSError as exc:
        raise SpecError(f"{path} cannot be read ({exc.strerror}): name the config.properties to serve") from exc
    if len(content) > MAX_PROPERTIES_BYTES:
        raise SpecError(f"{path} holds more than {MAX_PROPERTIES_BYTES:,} bytes: is it a config.properties?")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # what Java reads
    return parse_properties(text, str(path))


def parse_properties(text: str, name: str) -> dict[str, Property]:
    """The properties in a text; never fails. name: of the file, for messages."""
    found: dict[str, Property] = {}
    for number, line in _logical_lines(text):
        key = _KEY.match(line)
        raw_key = key.group() if key else ""
        separator = _SEPARATOR.match(line, len(raw_key))
        value = line[separator.end() if separator else len(line) :]
        prop = Property(key=_unescaped(raw_key), value=_unescaped(value).rstrip(), where=f"{name}:{number}")
        found[prop.key] = prop
    return found


def with_variables(prop: Property, variables: Mapping[str, str]) -> Property:
    """The property with each `$$NAME$$` replaced. Raises: SpecError if a variable is not set."""

    def value_of(found: re.Match[str]) -> str:
        if found[1] not in variables:
            raise SpecError(f"{prop.where}: {prop.key} needs the environment variable {found[1]}, which is not set")
        return variables[found[1]]

    return msgspec.structs.replace(prop, value=_VARIABLE.sub(value_of, prop.value))


def written(key: str, value: str) -> str:
    """One line that `parse_properties` reads back as the same."""
    return f"{_escaped(key, is_key=True)}={_escaped(value, is_key=False)}\n"


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """Lines joined where they end in an odd number of backslashes, without comments, with the number of the first."""
    lines: list[tuple[int, str]] = []
    pending: tuple[int, str] | None = None
    for number, raw in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        line = raw.lstrip(_BLANKS)
        if pending is None:
            if not line or line[0] in "#!":
                continue
            pending = (number, "")
        first, so_far = pending
        if (len(line) - len(line.rstrip("\\"))) % 2:
            pending = (first, so_far + line[:-1])
            continue
        lines.append((first, so_far + line))
        pending = None
    return lines if pending is None or not pending[1] else [*lines, pending]


def _unescaped(text: str) -> str:
    def meant(found: re.Match[str]) -> str:
        escape = found[1]
        return chr(int(escape[1:], 16)) if len(escape) == 5 else _LETTERS.get(escape, escape)

    return _ESCAPE.sub(meant, text)


def _escaped(text: str, *, is_key: bool) -> str:
    text = text.replace("\\", "\\\\")
    for letter, meant in _LETTERS.items():
        text = text.replace(meant, f"\\{letter}")
    if is_key:
        return re.sub(r"([=: #!])", r"\\\1", text)
    return re.sub(r"^ ", r"\\ ", text)
