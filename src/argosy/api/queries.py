"""What stands behind the `?` of a path, read strictly: a parameter we would not honour is refused, not ignored."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import Request

from argosy.core.errors import InvalidRequest
from argosy.core.model import require_name
from argosy.web.operation import QueryParameter

WATCH = QueryParameter(name="watch", kind=bool, summary="A stream of what is there, then of every change.")
SERVICE = QueryParameter(name="service", summary="Only what belongs to this service.")
REPLICA = QueryParameter(name="replica", summary="Only this replica.")
REVISION = QueryParameter(name="revision", summary="Only replicas of this revision, such as v2.")
FOLLOW = QueryParameter(name="follow", kind=bool, summary="Go on with what is written from now on.")

_FLAGS = {"true": True, "false": False}


def query_of(request: Request, allowed: Collection[QueryParameter]) -> dict[str, str]:
    """The parameters, each at most once. Raises: InvalidRequest for any other."""
    known = {each.name for each in allowed}
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in known:
            there_are = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(f"parameter {name[:60]!r} is not known here: there are {there_are}", param=name[:60])
        if name in found:
            raise InvalidRequest(f"parameter {name!r} came twice: send it once", param=name)
        found[name] = value
    return found


def flag(query: dict[str, str], parameter: QueryParameter) -> bool:
    """Whether it is set. Raises: InvalidRequest if it is neither true nor false."""
    value = query.get(parameter.name, "false")
    if value not in _FLAGS:
        raise InvalidRequest(f"parameter {parameter.name} is {value[:60]!r}: write true or false", param=parameter.name)
    return _FLAGS[value]


def name_in(query: dict[str, str], parameter: QueryParameter) -> str | None:
    """The name it gives, if it is there. Raises: InvalidRequest if it is no name (D-06)."""
    value = query.get(parameter.name)
    return None if value is None else require_name(value, parameter.name)
