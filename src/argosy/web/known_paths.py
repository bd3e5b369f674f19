"""Which route answers a path that was asked for before: one look-up instead of a walk through the route table.

Clients ask for the same few paths again and again. What was matched once is remembered, method and path together, for a
bounded number of short paths; whoever asks for many different ones only makes it forget.
"""

from __future__ import annotations

from typing import Any

from starlette.routing import Match, Route
from starlette.types import ASGIApp, Scope

MAX_PATHS = 1_024
MAX_PATH_CHARACTERS = 256


class KnownPaths:
    """Of one route table, which must not change any more."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], tuple[Route, dict[str, Any]]] = {}

    def app_for(self, scope: Scope) -> ASGIApp | None:
        """What answers this request, with the scope as the router would leave it; None if the router must say."""
        known = self._found.get((scope["method"], scope["path"]))
        if known is None:
            return None
        route, params = known
        scope["route"] = route
        scope["endpoint"] = route.endpoint
        scope["path_params"] = dict(params)
        return route.app

    def remember(self, scope: Scope) -> None:
        """Note which route the router found for this request. Endpoints may have changed the scope: it matches anew."""
        route, method, path = scope.get("route"), scope["method"], scope["path"]
        if (method, path) in self._found or not isinstance(route, Route) or len(path) > MAX_PATH_CHARACTERS:
            return
        match, found = route.matches({"type": "http", "method": method, "path": path})
        if match is not Match.FULL:
            return
        if len(self._found) >= MAX_PATHS:
            self._found.clear()
        self._found[method, path] = (route, found["path_params"])
