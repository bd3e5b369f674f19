"""`GET /v1/models` and `GET /v1/models/{id}`: all services and their adapters, as the route table has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from argosy.gateway.services import Services, ServiceState
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes


class ServiceModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """One name a request may use. root: the service behind it. parent: the service whose adapter this is.

    Source: OpenAI's model object, with vLLM's `root` and `parent`.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["argosy"] = "argosy"
    root: str
    parent: str | None = None


class ServiceModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every name of this gateway."""

    object: Literal["list"] = "list"
    data: list[ServiceModel]


class ServiceModels:
    """The routes, over the services."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @describes(
        Operation(
            summary="List the services and their adapters",
            tag="Models",
            response=ServiceModelList,
            error_body=ErrorBody,
            errors=(401, 403),
        )
    )
    async def list(self, request: Request) -> Response:
        """Every service, also one that sleeps: a request wakes it."""
        return _json(ServiceModelList(data=[model for service in self._services for model in _models(service)]))

    @describes(
        Operation(
            summary="Describe one name",
            tag="Models",
            response=ServiceModel,
            error_body=ErrorBody,
            errors=(401, 403, 404),
        )
    )
    async def retrieve(self, request: Request) -> Response:
        """One service or adapter. Raises: ModelNotFound."""
        name = request.path_params["model"]
        return _json(next(model for model in _models(self._services.find(name)) if model.id == name))


def _models(service: ServiceState) -> Iterator[ServiceModel]:
    """The service's own name, then the others."""
    yield ServiceModel(id=service.name, created=service.route.created, root=service.name)
    for name in service.route.names:
        if name != service.name:
            yield ServiceModel(id=name, created=service.route.created, root=service.name, parent=service.name)


def _json(body: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
