"""A path that was answered once is answered by the same route again, with parameters of its own."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.web.known_paths import MAX_PATH_CHARACTERS, MAX_PATHS, KnownPaths


async def endpoint(request: Request) -> Response:
    return Response()


ROUTE = Route("/predictions/{model}/{version}", endpoint, methods=["POST"])


def asked(path: str, method: str = "POST", **more: Any) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, **more}


def test_a_path_is_known_after_the_router_found_it() -> None:
    known = KnownPaths()
    assert known.app_for(asked("/predictions/m/1")) is None
    known.remember(asked("/predictions/m/1", route=ROUTE, path_params={"model": "changed by its endpoint"}))
    scope = asked("/predictions/m/1")
    assert known.app_for(scope) is ROUTE.app
    assert scope["path_params"] == {"model": "m", "version": "1"}
    assert scope["route"] is ROUTE
    scope["path_params"]["model"] = "x"
    again = asked("/predictions/m/1")
    known.app_for(again)
    assert again["path_params"]["model"] == "m"


def test_what_was_not_answered_by_a_route_of_its_method_is_not_known() -> None:
    known = KnownPaths()
    known.remember(asked("/predictions/m/1", "GET", route=ROUTE))
    known.remember(asked("/nowhere"))
    known.remember(asked(f"/predictions/{'m' * MAX_PATH_CHARACTERS}/1", route=ROUTE))
    assert known.app_for(asked("/predictions/m/1", "GET")) is None
    assert known.app_for(asked("/nowhere")) is None
    assert known.app_for(asked(f"/predictions/{'m' * MAX_PATH_CHARACTERS}/1")) is None


def test_many_paths_do_not_make_it_grow() -> None:
    known = KnownPaths()
    for number in range(MAX_PATHS + 1):
        known.remember(asked(f"/predictions/m/{number}", route=ROUTE))
    assert known.app_for(asked("/predictions/m/0")) is None
    assert known.app_for(asked(f"/predictions/m/{MAX_PATHS}")) is not None
