"""What TorchServe has and this server does not: answered as a server that has none of them, or with the way to go."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.protocols.torchserve.answers import json_answer
from argosy.protocols.torchserve.errors import Refusal
from argosy.protocols.torchserve.operations import MANAGE, operation
from argosy.web.operation import describes

_ANY = ["GET", "POST", "PUT", "DELETE"]
_KIND = "NotImplementedException"


@describes(operation("The workflows: none", MANAGE, response=dict))
async def no_workflows(request: Request) -> Response:
    """The empty list."""
    return json_answer({"workflows": []})


@describes(operation("Not served", MANAGE, 501))
async def register_workflow(request: Request) -> Response:
    """Raises: Refusal."""
    raise Refusal(
        501,
        _KIND,
        "Workflows are not served here: serve their models, and call them one after the other from the client "
        "(docs/migrating-from-torchserve.md)",
    )


@describes(operation("A workflow: there is none", MANAGE, 404))
async def workflow(request: Request) -> Response:
    """Raises: Refusal."""
    raise Refusal(404, "WorkflowNotFoundException", f"Workflow not found: {request.path_params['workflow']}")


@describes(operation("Not served", MANAGE, 501))
async def token(request: Request) -> Response:
    """Raises: Refusal."""
    raise Refusal(
        501,
        _KIND,
        "Tokens are not handed out over HTTP, and do not expire: make one with `argosy keys create NAME --file FILE`",
    )


def inference_routes() -> list[Route]:
    """Of the inference API."""
    return [Route("/wfpredict/{workflow}", workflow, methods=_ANY)]


def management_routes() -> list[Route]:
    """Of the management API."""
    return [
        Route("/workflows", no_workflows, methods=["GET"]),
        Route("/workflows", register_workflow, methods=["POST"]),
        Route("/workflows/{workflow}", workflow, methods=["GET", "DELETE"]),
        Route("/token", token, methods=["GET"]),
    ]
