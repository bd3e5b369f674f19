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
    """A caller by the name of its key; "" is everyone, where no keys are set."""

    name: str = ""
    scopes: frozenset[Scope] = frozenset(Scope)

    def may(self, scope: Scope) -> bool:
        """Whether this caller holds the scope."""
        return scope in self.scopes or Scope.ADMIN in self.scopes
