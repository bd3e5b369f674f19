"""`GET /v1/models` and `GET /v1/models/{id}`: all services and their adapters, as the route table has them."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response

from argosy.gateway.services import Services, ServiceState
from argosy.web.models import DESCRIBE_MODEL, LIST_MODELS, ModelCard, card_list, card_named
from argosy.web.operation import describes


class ServiceModels:
    """The routes, over the services."""

    def __init__(self, services: Services) -> None:
        self._services = services

    @describes(LIST_MODELS)
    async def list(self, request: Request) -> Response:
        """Every service, also one that sleeps: a request wakes it."""
        return card_list(card for service in self._services for card in _cards(service))

    @describes(DESCRIBE_MODEL)
    async def retrieve(self, request: Request) -> Response:
        """One service or adapter. Raises: ModelNotFound."""
        name = request.path_params["model"]
        return card_named(name, _cards(self._services.find(name)))


def _cards(service: ServiceState) -> Iterator[ModelCard]:
    """The service's own name, then its adapters: their root and parent is the service."""
    yield ModelCard(id=service.name, created=service.route.created, root=service.name)
    for name in service.route.names:
        if name != service.name:
            yield ModelCard(id=name, created=service.route.created, root=service.name, parent=service.name)
