"""What the edge knows of a server's paths, as values: which are probes, which are pages, which scope each one takes.

A replica, a gateway and the control plane's API differ in these values, not in code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
    log-in form if a key is needed. any_phase, any_phase_prefixes: what else is answered while the server is not ready.
    scope_rule: what a path takes that no list can name; asked before the lists, None = they decide.
    probes: what is open to everyone at any time, beside the probes all have.
    json_prefixes: where a body must be JSON; elsewhere it may be anything a page of ours, or no page, sends.
    """

    default_scope: Scope
    scopes: Mapping[str, Scope] = {}
    pages: frozenset[str] = frozenset()
    page_prefixes: tuple[str, ...] = ()
    any_phase: frozenset[str] = frozenset()
    any_phase_prefixes: tuple[str, ...] = ()
    scope_rule: Callable[[str], Scope | None] | None = None
    probes: frozenset[str] = frozenset()
    json_prefixes: tuple[str, ...] = ("/",)

    def is_probe(self, path: str) -> bool:
        """Whether it is open to everyone at any time, and not counted as work."""
        return path in PROBES or path in self.probes

    def scope_of(self, path: str) -> Scope:
        """What a key must hold to call it."""
        if self.scope_rule is not None and (ruled := self.scope_rule(path)) is not None:
            return ruled
        plain = path.rstrip("/")  # Where a route answers `/metrics/`, it takes what `/metrics` takes.
        return self.scopes.get(path) or _OPERATION_SCOPES.get(plain, self.default_scope)

    def is_page(self, path: str) -> bool:
        """Whether a browser shows it."""
        return path in self.pages or path.startswith(self.page_prefixes)

    def needs_ready(self, path: str) -> bool:
        """Whether it is refused unless the server is ready."""
        is_open = path in _OPERATIONS or path in self.any_phase or path.startswith(self.any_phase_prefixes)
        return not (is_open or self.is_page(path))
