"""`argosy gateway` as it serves, in front of replicas that are named on the command line: no control plane.

    python -m benchmarks.static_gateway --port 8000 --key KEY --replica http://127.0.0.1:9000 [--replica …]

Everything a request meets is the real thing: the edge with its key check, routing, accounting, the connections to
replicas, polls and reports. Only the route table is made here, and reports are encoded and dropped.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import AsyncGenerator

import msgspec

from argosy.core.control_spec import GatewaySpec
from argosy.core.inference_service import BalancerName, CachePolicy, GatewayPolicy
from argosy.core.load_report import GatewayReport
from argosy.core.routing import Endpoint, RevisionRoute, RouteTable, ServiceRoute
from argosy.gateway.run import serve_gateway
from benchmarks.fake_replica import MODEL


class StaticLink:
    """A control plane that says one thing, once."""

    def __init__(self, table: RouteTable) -> None:
        self._table = table

    async def routes(self) -> AsyncGenerator[RouteTable]:
        """The table; then nothing changes."""
        yield self._table
        await asyncio.get_running_loop().create_future()

    async def report(self, report: GatewayReport) -> None:
        """Encoded, as it would be sent."""
        msgspec.json.encode(report)


def table_of(service: str, urls: list[str], policy: GatewayPolicy) -> RouteTable:
    """One service with one revision on these replicas."""
    endpoints = tuple(
        Endpoint(replica=f"{service}-v1-{number:05}", address=url.removeprefix("http://"), revision="v1")
        for number, url in enumerate(urls)
    )
    revision = RevisionRoute(revision="v1", weight=100, endpoints=endpoints)
    route = ServiceRoute(service=service, names=(service,), revisions=(revision,), policy=policy)
    return RouteTable(epoch="bench", version=1, services=(route,))


def main(arguments: list[str]) -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", required=True, help="what clients must send")
    parser.add_argument("--replica", action="append", required=True, help="URL of a replica")
    parser.add_argument("--model", default=MODEL, help="the name of the service")
    parser.add_argument("--balancer", type=BalancerName, default=GatewayPolicy().balancer)
    parser.add_argument("--cache", action="store_true", help="keep answers of deterministic requests")
    flags = parser.parse_args(arguments)
    policy = GatewayPolicy(balancer=flags.balancer, cache=CachePolicy() if flags.cache else None)
    spec = GatewaySpec(port=flags.port, api_keys=(flags.key,))
    return serve_gateway(spec, StaticLink(table_of(flags.model, flags.replica, policy)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
