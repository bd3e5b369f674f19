"""The wiring of the three APIs: administration → routes → one edge for each listener.

APIs of one address are one listener with the routes of all (`protocols.torchserve.routes`). Who may come in is the
same for all listeners, but for two things: a listener that others can reach answers to any host name, since nobody
here knows what a cluster calls it; and where nobody showed a key there, models cannot be changed.
"""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.errors import Forbidden
from argosy.core.plugins import resolve
from argosy.core.torchserve_spec import Address, Compat, TorchServeSpec
from argosy.core.web_spec import WebSpec
from argosy.observe.metrics import Metrics
from argosy.observe.tracing import open_tracing
from argosy.protocols import PROTOCOLS
from argosy.protocols.torchserve import REPLY_HEADERS, Api, ErrorShape, Parts, WireSettings, paths_of, routes_of
from argosy.server.torchserve.models import TorchServeModels
from argosy.server.translate_page import PAGE_ASSETS, PAGE_PATH, translation_routes
from argosy.web.access import Door, door_for, load_keys
from argosy.web.edge import Edge, EdgeSettings
from argosy.web.lifecycle import Lifecycle
from argosy.web.operations import Operations
from argosy.web.paths import Paths

_ABOUT = "Archived models behind TorchServe's APIs."
_CHANGES = frozenset({"POST", "PUT", "DELETE"})

Apis = frozenset[Api]


def listeners(spec: TorchServeSpec) -> dict[Apis, Address]:
    """Which APIs share a listener, and where it is. Port 0 is a free port for each API."""
    addresses = {Api.INFERENCE: spec.inference, Api.MANAGEMENT: spec.management, Api.METRICS: spec.metrics}
    groups: dict[Address | Api, set[Api]] = {}
    for api, address in addresses.items():
        groups.setdefault(address if address.port else api, set()).add(api)
    return {frozenset(apis): addresses[min(apis, key=list(Api).index)] for apis in groups.values()}


def open_to_others(spec: TorchServeSpec) -> str:
    """The warning about what other machines may do without a key, in a line; "" if nothing."""
    reached = [apis for apis, address in listeners(spec).items() if not spec.at(address).is_loopback]
    if spec.has_keys or not reached:
        return ""
    named = ", ".join(api for api in Api if any(api in apis for apis in reached))
    line = f"warning: other machines may call {named} without a key: pass --api-keys-file to ask for one"
    if not any(Api.MANAGEMENT in apis for apis in reached) or spec.enable_model_api is False:
        return line
    if spec.enable_model_api:
        return f"{line}; whoever reaches {spec.management.host}:{spec.management.port} may change models"
    return f"{line}; until then models cannot be changed over HTTP (--enable-model-api lets anybody)"


class AppWiring:
    """Makes the edge of each listener of one server."""

    def __init__(self, spec: TorchServeSpec, models: TorchServeModels, lifecycle: Lifecycle, metrics: Metrics) -> None:
        self._spec = spec
        self._lifecycle = lifecycle
        self._metrics = metrics
        self._keys = load_keys(spec, metrics)
        self._tracing = open_tracing(spec.otlp_endpoint, "torchserve")
        openai: list[Route] = resolve(PROTOCOLS, "openai", "protocol")(models.served)
        self._pages = translation_routes(models.translations)
        self._parts = Parts(
            administration=models.administration,
            lifecycle=lifecycle,
            metrics=metrics,
            settings=wire_settings(spec),
            is_metrics_enabled=spec.metrics_settings.enabled,
            models=models.served,
            openai=openai,
        )

    def edge(self, apis: Apis) -> Edge:
        """The application of the listener with these APIs."""
        spec = self._spec.at(listeners(self._spec)[apis])
        served = routes_of(apis, self._parts)
        if Api.MANAGEMENT in apis and not self._spec.is_management_guarded and not self._spec.enable_model_api:
            served = [_read_only(route) for route in served]
        paths = paths_of(apis, self._parts)
        if Api.INFERENCE in apis:
            served = [*served, *self._pages]
            paths = msgspec.structs.replace(paths, pages=frozenset({PAGE_PATH}), page_prefixes=(PAGE_ASSETS,))
        last = [route for route in served if route.path.startswith("/{")]
        served = [route for route in served if not route.path.startswith("/{")]
        operations = Operations(self._lifecycle, self._metrics, _ABOUT).routes(served)
        is_strict = self._spec.compat is Compat.STRICT
        shape = ErrorShape(self._parts.settings, openai_paths=Api.INFERENCE in apis)
        settings = EdgeSettings(
            door=self._door(spec, paths),
            max_body_bytes=spec.limits.max_body_bytes,
            access_log=spec.access_log,
            tracing=self._tracing,
            render=shape.render,
            headers=REPLY_HEADERS,
            closes_on_error=is_strict,
        )
        return Edge([*served, *operations, *last], self._lifecycle, self._metrics, settings)

    def _door(self, spec: WebSpec, paths: Paths) -> Door:
        door = door_for(spec, self._keys, paths)
        if spec.is_loopback or spec.allowed_hosts:
            return door
        return msgspec.structs.replace(door, any_host=True)


def wire_settings(spec: TorchServeSpec) -> WireSettings:
    """What the protocol needs to know of the spec."""
    shows_causes = spec.shows_causes
    return WireSettings(
        compat=spec.compat,
        shows_causes=spec.at(spec.inference).is_loopback if shows_causes is None else shows_causes,
        may_change_models=spec.may_change_models,
        open_inference=spec.open_inference,
        sequence_headers=spec.sequence_headers,
        max_response_bytes=spec.max_response_bytes,
        unregister_timeout_seconds=spec.unregister_timeout_seconds,
    )


def _read_only(route: Route) -> Route:
    """The route; if it changes models, refused for everybody."""
    is_managed = route.path.startswith("/models") and not route.path.endswith("/invoke")
    if not is_managed or not _CHANGES.intersection(route.methods or ()):
        return route

    async def refuse(request: Request) -> Response:
        raise Forbidden(
            "models are not changed here, because other machines reach this address and no key is asked for: "
            "start the server with --api-keys-file, or with --enable-model-api to let everybody"
        )

    return Route(route.path, refuse, methods=sorted(route.methods or ()))
