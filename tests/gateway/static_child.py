"""A gateway process for tests: `static_child.py PORT REPLICA_ADDRESS` routes the service `chat` to one replica."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

from argosy.core.control_spec import GatewaySpec
from argosy.core.load_report import GatewayReport
from argosy.core.routing import Endpoint, RevisionRoute, RouteTable, ServiceRoute
from argosy.gateway.run import serve_gateway


class StaticLink:
    """One table, then nothing; reports go nowhere."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table

    async def routes(self) -> AsyncGenerator[RouteTable]:
        yield self._table
        await asyncio.get_running_loop().create_future()

    async def report(self, report: GatewayReport) -> None:
        """Nobody listens."""


if __name__ == "__main__":
    endpoint = Endpoint(replica="a", address=sys.argv[2], revision="v1")
    revision = RevisionRoute(revision="v1", weight=100, endpoints=(endpoint,))
    route = ServiceRoute(service="chat", names=("chat",), revisions=(revision,))
    spec = GatewaySpec(port=int(sys.argv[1]), shutdown_grace_seconds=10.0)
    sys.exit(serve_gateway(spec, StaticLink(RouteTable(epoch="e", version=1, services=(route,)))))
