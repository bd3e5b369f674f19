"""What TorchServe has and this server does not: told so with 501 and the way to go, instead of a bare 404."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.protocols.torchserve.errors import Refusal

_METHODS = ["GET", "POST", "PUT", "DELETE"]
_KIND = "NotImplementedException"


async def workflows(request: Request) -> Response:
    """Raises: Refusal."""
    raise Refusal(
        501,
        _KIND,
        "Workflows are not served here: serve their models, and call them one after the other from the client "
        "(docs/migrating-from-torchserve.md)",
    )


async def token(request: Request) -> Response:
    """Raises: Refusal."""
    raise Refusal(
        501,
        _KIND,
        "Tokens are not handed out over HTTP, and do not expire: make one with `argosy keys create NAME --file FILE`",
    )


def inference_routes() -> list[Route]:
    """Of the inference API."""
    return [Route("/wfpredict/{workflow}", workflows, methods=_METHODS)]


def management_routes() -> list[Route]:
    """Of the management API."""
    return [
        Route("/workflows", workflows, methods=_METHODS),
        Route("/workflows/{workflow}", workflows, methods=_METHODS),
        Route("/token", token, methods=["GET"]),
    ]
