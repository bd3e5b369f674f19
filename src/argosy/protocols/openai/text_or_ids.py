"""A field that is a text, token ids, or a list of these: `prompt` of completions, `input` of embeddings."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.core.errors import InvalidRequest

TextOrIds = str | list[int]


class FieldRule(msgspec.Struct, frozen=True, kw_only=True):
    """The field's name, what a client calls its many values, and how many of its items one request may hold."""

    field: str
    plural: str
    items: str
    max_items: int


def each_of(given: str | Sequence[TextOrIds | int], rule: FieldRule) -> list[TextOrIds]:
    """The values, each a text or token ids. Raises: InvalidRequest."""
    if isinstance(given, str):
        return [given]
    token_ids = [item for item in given if isinstance(item, int)]
    if len(token_ids) == len(given):
        return [token_ids]
    if token_ids:
        raise InvalidRequest(
            f"{rule.field} mixes token ids with texts or lists: send one list of token ids, or a list of {rule.plural}",
            param=rule.field,
        )
    if len(given) > rule.max_items:
        raise InvalidRequest(
            f"{rule.field} holds at most {rule.max_items} {rule.items}, got {len(given)}.", param=rule.field
        )
    return [item for item in given if not isinstance(item, int)]
