"""What the edge knows of a server's paths, as values: which are probes, which are pages, which scope each one takes.

A replica, a gateway and the control plane's API differ in these values, not in code.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.core.principal import Scope

# The same on every server (`operations.py`). Probes are open to everyone at any time, and not counted as work.
PROBES = frozenset({"/livez", "/readyz", "/health", "/ping"})
# How an operator looks at a server, in any phase of its life.
_OPERATIONS = frozenset({"/metrics", "/version", "/openapi.json", "/load"})
_OPERATION_SCOPES = {"/metrics": Scope.METRICS, "/load": Scope.METRICS}


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of one server, beside the operations all have.

    default_scope: what a key must hold for any path not named otherwise, whether a route exists there or not.
    scopes: paths that take another. pages, page_prefixes: what a browser shows: in any phase, and behind its own
    log-in form if a key is needed. any_phase: what else is answered while the server is not ready.
    """

    default_scope: Scope
    scopes: Mapping[str, Scope] = {}
    pages: frozenset[str] = frozenset()
    page_prefixes: tuple[str, ...] = ()
    any_phase: frozenset[str] = frozenset()

    def scope_of(self, path: str) -> Scope:
        """What a key must hold to call it."""
        return self.scopes.get(path) or _OPERATION_SCOPES.get(path, self.default_scope)

    def is_page(self, path: str) -> bool:
        """Whether a browser shows it."""
        return path in self.pages or path.startswith(self.page_prefixes)

    def needs_ready(self, path: str) -> bool:
        """Whether it is refused unless the server is ready."""
        return not (path in _OPERATIONS or path in self.any_phase or self.is_page(path))
