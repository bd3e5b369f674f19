"""Who is calling: the owner of an API key, and what that key opens."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Scope(StrEnum):
    """What a key may do. `admin` includes the others."""

    INFER = "infer"
    METRICS = "metrics"
    ADMIN = "admin"


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """A caller by the name of its key; "" is everyone, where no keys are set.

    requests_per_minute, tokens_per_minute: what a gateway lets the key take; None = as much as there is.
    """

    name: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None

    def may(self, scope: Scope) -> bool:
        """Whether this caller holds the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes
