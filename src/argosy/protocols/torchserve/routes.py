"""Which routes a listener answers: those of the APIs whose address it is. Equal addresses are one listener.

The order is the order of look-up, so what is called most comes first, and what begins with a model's name last.
TorchServe splits a path at its slashes and forgets empty ends: so `/models/` is `/models` here, but on OpenAI's paths.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.principal import Scope
from argosy.observe.metrics import Metrics
from argosy.protocols.torchserve import unserved
from argosy.protocols.torchserve.answers import json_answer
from argosy.protocols.torchserve.errors import OPENAI_PREFIXES
from argosy.protocols.torchserve.invocations import Invocations
from argosy.protocols.torchserve.management import Management
from argosy.protocols.torchserve.merged import MergedModel
from argosy.protocols.torchserve.metrics_api import MetricsApi
from argosy.protocols.torchserve.operations import HEALTH, operation
from argosy.protocols.torchserve.predictions import Predictions
from argosy.protocols.torchserve.probes import HEALTH_PATHS, Probes
from argosy.protocols.torchserve.settings import WireSettings
from argosy.protocols.torchserve.swagger import document
from argosy.serving.predictions.administration import Administration
from argosy.serving.registry import ModelRegistry
from argosy.web.lifecycle import Lifecycle
from argosy.web.operation import describes
from argosy.web.paths import Paths

_OPENAI_MODEL, _KSERVE_MODEL = "/v1/models/{model:path}", "/v1/models/{model}"


class Api(StrEnum):
    """TorchServe's three APIs."""

    INFERENCE = "inference"
    MANAGEMENT = "management"
    METRICS = "metrics"


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What the routes speak for. models: the generating ones, and openai the routes over them, on the inference API."""

    administration: Administration
    lifecycle: Lifecycle
    metrics: Metrics
    settings: WireSettings = WireSettings()
    is_metrics_enabled: bool = True
    models: ModelRegistry | None = None
    openai: Sequence[Route] = ()


def routes_of(apis: frozenset[Api], parts: Parts) -> list[Route]:
    """Every route of a listener with these APIs, OpenAI's included."""
    routes: list[Route] = []
    last: list[Route] = []
    management = Management(parts.administration, parts.lifecycle, parts.settings)
    if Api.INFERENCE in apis:
        predictions = Predictions(parts.administration, parts.settings)
        models = parts.models
        invocations = Invocations(
            predictions,
            openai=parts.openai,
            generates=lambda: models is not None and bool(models.list()),
        )
        probes = Probes(parts.administration, parts.lifecycle).routes(open_inference=parts.settings.open_inference)
        merged = _merged(management, parts) if Api.MANAGEMENT in apis else []
        routes += [
            *predictions.routes(),
            *merged,
            *parts.openai,
            *invocations.routes(),
            *probes,
            *unserved.inference_routes(),
        ]
        last = predictions.legacy_routes()
    if Api.MANAGEMENT in apis:
        routes += [*management.routes(), *unserved.management_routes()]
    if Api.METRICS in apis or Api.INFERENCE in apis:
        routes += MetricsApi(parts.metrics, is_enabled=parts.is_metrics_enabled).routes()
    routes += [*_descriptions(apis), *last]
    return [route if route in parts.openai else _open_ended(route) for route in routes]


def paths_of(apis: frozenset[Api], parts: Parts) -> Paths:
    """What the edge must know of these paths: scopes, probes, and which bodies must be JSON."""
    has_inference, has_management = Api.INFERENCE in apis, Api.MANAGEMENT in apis
    default = Scope.INFER if has_inference else Scope.ADMIN if has_management else Scope.METRICS
    return Paths(
        default_scope=default,
        scope_rule=_is_administration if has_inference and has_management else None,
        probes=HEALTH_PATHS if has_inference and parts.settings.open_inference else frozenset(),
        any_phase=frozenset({"/", "/api-description"}),
        any_phase_prefixes=("/models",) if has_management else (),
        json_prefixes=OPENAI_PREFIXES[:3] if has_inference else (),
    )


def _open_ended(route: Route) -> Route:
    """The route, made to answer with slashes behind its path as well."""
    if route.path != "/":
        route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + "/*$")
    return route


def _merged(management: Management, parts: Parts) -> list[Route]:
    """The one path that both protocols have."""
    openai = next((route.endpoint for route in parts.openai if route.path == _OPENAI_MODEL), None)
    if openai is None:
        return []
    return [Route(_KSERVE_MODEL, MergedModel(management.readiness, openai).retrieve, methods=["GET"])]


def _is_administration(path: str) -> Scope | None:
    """On a merged listener: managing models takes the scope admin, using one does not."""
    if path.endswith("/invoke"):
        return None
    is_managed = path == "/models" or path.startswith(("/models/", "/workflows", "/token"))
    return Scope.ADMIN if is_managed else None


def _descriptions(apis: frozenset[Api]) -> list[Route]:
    described = document(inference=Api.INFERENCE in apis, management=Api.MANAGEMENT in apis)

    @describes(operation("This API, in TorchServe's words", HEALTH, response=dict))
    async def describe(request: Request) -> Response:
        return json_answer(described)

    return [Route("/", describe, methods=["OPTIONS"]), Route("/api-description", describe, methods=["GET", "POST"])]
