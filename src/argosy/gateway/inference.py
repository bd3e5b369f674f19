"""The paths that replicas answer: a request becomes a `Call`, and its response a `Relay`.

What a client may steer is the `model` in the body, which names a service, and nothing else: no address, no header of
its own goes upstream (D-19). A caller with an admin key, or anyone where no keys are set, may name the revision with
`x-argosy-revision: v2`, to look at a new one before it gets traffic; others are refused rather than ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.errors import Forbidden, InvalidRequest
from argosy.core.inference_service import StickySource
from argosy.core.principal import Principal, Scope
from argosy.gateway.call import Call, Caller, require_revision, routing_facts, sticky_caller
from argosy.gateway.relay import Relay, RelayParts
from argosy.gateway.services import Services, ServiceState
from argosy.observe.trace import current_traceparent
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes

REVISION_HEADER = "x-argosy-revision"
_TAG = "Inference"
_ERRORS = (400, 401, 403, 404, 413, 429, 500, 502, 503, 504)
_EXAMPLE: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "Hello"}]}


class Inference:
    """The routes. draw: from [0, 1)."""

    def __init__(self, services: Services, parts: RelayParts, draw: Callable[[], float]) -> None:
        self._services = services
        self._parts = parts
        self._draw = draw

    def routes(self) -> list[Route]:
        """Every path of the data plane's OpenAI protocol that takes a body."""
        return [
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.complete, methods=["POST"]),
            Route("/v1/embeddings", self.embed, methods=["POST"]),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
        ]

    @describes(
        Operation(summary="Answer a conversation", tag=_TAG, error_body=ErrorBody, errors=_ERRORS, example=_EXAMPLE)
    )
    async def chat(self, request: Request) -> Response:
        """Passed on to a replica; its own /openapi.json has the fields."""
        return await self._forward(request)

    @describes(Operation(summary="Continue a text", tag=_TAG, error_body=ErrorBody, errors=_ERRORS))
    async def complete(self, request: Request) -> Response:
        """Passed on to a replica."""
        return await self._forward(request)

    @describes(Operation(summary="Embed texts", tag=_TAG, error_body=ErrorBody, errors=_ERRORS))
    async def embed(self, request: Request) -> Response:
        """Passed on to a replica."""
        return await self._forward(request)

    @describes(Operation(summary="Turn text into token ids", tag=_TAG, error_body=ErrorBody, errors=_ERRORS))
    async def tokenize(self, request: Request) -> Response:
        """Passed on to a replica."""
        return await self._forward(request)

    @describes(Operation(summary="Turn token ids into text", tag=_TAG, error_body=ErrorBody, errors=_ERRORS))
    async def detokenize(self, request: Request) -> Response:
        """Passed on to a replica."""
        return await self._forward(request)

    async def _forward(self, request: Request) -> Response:
        arrived_at = self._parts.clock()
        try:
            body = await request.body()
        except ClientDisconnect as exc:
            raise InvalidRequest("the client closed the connection before the body was complete") from exc
        facts = routing_facts(body)
        service = self._services.find(facts.model)
        principal: Principal = request.state.caller
        call = Call(
            service=service,
            path=request.scope["path"],
            body=body,
            prefix=facts,
            caller=Caller(
                principal=principal, request_id=request.state.request_id, traceparent=current_traceparent.get()
            ),
            arrived_at=arrived_at,
            sticky=_sticky(service, request, facts.user, principal),
            revision=_pinned(service, request, principal),
            draw=self._draw(),
        )
        return Relay(call, self._parts)


def _pinned(service: ServiceState, request: Request, principal: Principal) -> str:
    """The revision a caller asks for, if it may. Raises: Forbidden, NotFound."""
    wanted = request.headers.get(REVISION_HEADER)
    if wanted is None:
        return ""
    if not principal.may(Scope.ADMIN):
        raise Forbidden(f"{REVISION_HEADER} takes a key with the scope 'admin': leave it out, or use such a key")
    return require_revision(service, wanted)


def _sticky(service: ServiceState, request: Request, user: str, principal: Principal) -> str:
    policy = service.route.policy.sticky
    if policy is None:
        return ""
    match policy.by:
        case StickySource.HEADER:
            name = request.headers.get(policy.header, "")
        case StickySource.USER:
            name = user
        case StickySource.KEY:
            name = principal.name
    return sticky_caller(service.name, name)
