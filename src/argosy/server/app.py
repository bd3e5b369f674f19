"""The wiring of a replica: registry → protocols → routes → edge. The only place that knows every room's front."""

from __future__ import annotations

import msgspec
from starlette.routing import Route

from argosy.core.errors import EngineDead
from argosy.core.load_report import REPLICA_REPORT_PATH
from argosy.core.plugins import resolve
from argosy.core.principal import Scope
from argosy.core.serve_spec import ServeSpec
from argosy.observe.metrics import Metrics
from argosy.observe.tracing import open_tracing
from argosy.protocols import PROTOCOLS
from argosy.server.replica import Replica
from argosy.server.replica_state import ReplicaState
from argosy.server.translate_page import PAGE_ASSETS, PAGE_PATH, ReplicaTranslations
from argosy.web.access import door_for, load_keys
from argosy.web.edge import Edge, EdgeSettings
from argosy.web.operations import Operations
from argosy.web.pages import chat_page
from argosy.web.paths import Paths

_PATHS = Paths(
    default_scope=Scope.INFER,
    scopes={REPLICA_REPORT_PATH: Scope.METRICS},
    pages=frozenset({"/", PAGE_PATH}),
    page_prefixes=("/assets/", PAGE_ASSETS),
    any_phase=frozenset({REPLICA_REPORT_PATH}),
)
_ABOUT = "An open model behind the OpenAI API."


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's ASGI application, and the route table it answers."""

    edge: Edge
    routes: list[Route]


def build_app(spec: ServeSpec, replica: Replica, metrics: Metrics) -> App:
    """Everything one replica answers. Models may be added to its registry later. Raises: SpecError."""
    served: list[Route] = []
    for name in PROTOCOLS:
        served += resolve(PROTOCOLS, name, "protocol")(replica.registry)
    served += ReplicaState(replica).routes()
    served += ReplicaTranslations(replica.registry).routes()
    routes = [
        *served,
        *chat_page().routes(),
        *Operations(replica, metrics, _ABOUT).routes(served),
    ]
    settings = EdgeSettings(
        door=door_for(spec, load_keys(spec, metrics), _PATHS),
        max_body_bytes=spec.limits.max_body_bytes,
        access_log=spec.access_log,
        tracing=open_tracing(spec.otlp_endpoint, "replica"),
        fatal=(EngineDead,),
    )
    return App(edge=Edge(routes, replica, metrics, settings), routes=routes)
