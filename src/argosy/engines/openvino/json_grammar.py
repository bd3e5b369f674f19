"""A JSON schema as a grammar that leaves no room for endless white space. Pure.

The library's own conversion allows any amount of white space between tokens, and a small model that has nothing to say
fills its answer with it. There is no switch for it, so schemas made of the usual keywords (those of OpenAI's strict
mode, and what Pydantic writes) become a grammar here: one optional space after a comma or a colon, none elsewhere.
A schema that says anything else is left to the library: `schema_grammar` returns None.
Source: RFC 8259; EBNF of xgrammar; as there, an object has no properties beyond those its schema names.
"""

from __future__ import annotations

import json
from typing import Any

_BASE = r"""
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" (string colon value (comma string colon value)*)? "}"
array ::= "[" (value (comma value)*)? "]"
comma ::= "," " "?
colon ::= ":" " "?
string ::= "\"" char* "\""
char ::= [^"\\\0-\x1f] | "\\" ["\\/bfnrt] | "\\u" [0-9A-Fa-f]{4}
integer ::= "-"? ("0" | [1-9] [0-9]{0,17})
number ::= integer ("." [0-9]{1,17})? ([eE] [+\-]? [0-9]{1,3})?
"""
OBJECT_GRAMMAR = f"root ::= object\n{_BASE}"
_ATOMS = {"integer": "integer", "number": "number", "boolean": '("true" | "false")', "null": '"null"'}
_REMARKS = {"$schema", "$id", "$comment", "$defs", "definitions", "title", "description", "default", "examples"}
_MAX_DEPTH = 64
# A thousand characters counted one by one took 4 s a token; the library took 0.5 s, which the trial refuses.
_MAX_COUNT = 64


class _Foreign(Exception):
    """The schema says something this file does not know."""


def schema_grammar(schema: str) -> str | None:
    """The grammar of the schema's documents, or None if only the library can tell."""
    try:
        return _Writer(json.loads(schema)).grammar()
    except (_Foreign, ValueError, RecursionError):
        return None


def literal(text: str) -> str:
    """`text` as a string of xgrammar's EBNF."""
    plain = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(plain.get(c) or (c if c.isprintable() else _escape(c)) for c in text) + '"'


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


class _Writer:
    """Rules as they come up; each part of the schema becomes an expression over them."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._rules: list[str] = []
        self._references: dict[str, str] = {}

    def grammar(self) -> str:
        root = self._expression(self._schema, 0)
        return "\n".join([f"root ::= {root}", *self._rules]) + "\n" + _BASE

    def _rule(self, body: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name} ::= {body}")
        return name

    def _expression(self, schema: Any, depth: int) -> str:
        if schema is True:
            return "value"
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            raise _Foreign
        said = {key: value for key, value in schema.items() if key not in _REMARKS}
        if not said:
            return "value"
        for key, write in (("$ref", self._reference), ("anyOf", self._any_of), ("enum", self._enum)):
            if key in said:
                _require(said.keys() <= {key, "type"} and (key == "enum" or "type" not in said))
                return write(said[key], depth)
        if "const" in said:
            _require(said.keys() <= {"const", "type"})
            return self._enum([said["const"]], depth)
        kind = said.pop("type", None)
        if isinstance(kind, list):
            return self._any_of([{**said, "type": one} for one in kind] if not said else None, depth)
        if kind in _ATOMS:
            _require(not said)
            return _ATOMS[kind]
        writers = {"string": self._string, "array": self._array, "object": self._object}
        _require(isinstance(kind, str) and kind in writers)
        return writers[str(kind)](said, depth)

    def _reference(self, target: Any, depth: int) -> str:
        _require(isinstance(target, str) and target.startswith("#/"))
        if target not in self._references:
            name = self._references[target] = f"d{len(self._references)}"
            found = self._schema
            for step in target[2:].split("/"):
                _require(isinstance(found, dict) and step in found)
                found = found[step]
            self._rules.append(f"{name} ::= {self._expression(found, depth + 1)}")
        return self._references[target]

    def _any_of(self, options: Any, depth: int) -> str:
        _require(isinstance(options, list) and bool(options))
        return "(" + " | ".join(self._expression(option, depth + 1) for option in options) + ")"

    def _enum(self, values: Any, depth: int) -> str:
        _require(isinstance(values, list) and bool(values))
        return "(" + " | ".join(literal(json.dumps(value, ensure_ascii=False)) for value in values) + ")"

    def _string(self, said: dict[str, Any], depth: int) -> str:
        if not said:
            return "string"
        _require(said.keys() <= {"minLength", "maxLength"})
        return f'"\\"" char{_counts(said.get("minLength", 0), said.get("maxLength"))} "\\""'

    def _array(self, said: dict[str, Any], depth: int) -> str:
        _require(said.keys() <= {"items", "minItems", "maxItems"})
        least, most = said.get("minItems", 0), said.get("maxItems")
        _counts(least, most)
        if most == 0:
            return '"[]"'
        item = self._rule(self._expression(said.get("items", True), depth + 1))
        more = _counts(max(least - 1, 0), None if most is None else most - 1)
        return f'"[" ({item} (comma {item}){more}){"" if least else "?"} "]"'

    def _object(self, said: dict[str, Any], depth: int) -> str:
        _require(said.keys() <= {"properties", "required", "additionalProperties"})
        properties = said.get("properties", {})
        others = said.get("additionalProperties", not properties)
        required = said.get("required", [])
        _require(isinstance(properties, dict) and isinstance(required, list) and set(required) <= set(properties))
        if not properties and others is not False:
            value = self._rule(self._expression(others, depth + 1))
            return f'"{{" (string colon {value} (comma string colon {value})*)? "}}"'
        _require(others is False)
        return '"{" ' + self._members(properties, set(required), depth)

    def _members(self, properties: dict[str, Any], required: set[str], depth: int) -> str:
        """The members in the schema's order and the closing brace, built from the last to the first.

        first: what may follow when no member was written yet; rest: what may follow when one was.
        """
        first = rest = '"}"'
        for name, schema in reversed(properties.items()):
            label = literal(json.dumps(name, ensure_ascii=False))
            member = self._rule(f"{label} colon {self._expression(schema, depth + 1)}")
            if name in required:
                first, rest = f"{member} {rest}", self._rule(f"comma {member} {rest}")
            else:
                first = self._rule(f"{member} {rest} | {first}")
                rest = self._rule(f"comma {member} {rest} | {rest}")
        return first


def _counts(least: Any, most: Any) -> str:
    _require(type(least) is int and 0 <= least <= _MAX_COUNT)
    _require(most is None or (type(most) is int and least <= most <= _MAX_COUNT))
    if most is None:
        return "*" if least == 0 else f"{{{least},}}"
    return f"{{{least},{most}}}"


def _require(is_known: bool) -> None:
    if not is_known:
        raise _Foreign
