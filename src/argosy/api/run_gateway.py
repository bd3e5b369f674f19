"""`argosy gateway`: the gateway's process, linked to its control plane over HTTP."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from argosy.client.control_client import ControlClient
from argosy.core.control_spec import GatewaySpec
from argosy.core.errors import SpecError
from argosy.core.load_report import GatewayReport
from argosy.core.routing import RouteTable
from argosy.gateway.run import serve_gateway

_CALL_SECONDS = 5.0


class ClientLink:
    """A `gateway.control_link.ControlLink` over the API's client."""

    def __init__(self, client: ControlClient, name: str) -> None:
        self._client = client
        self._name = name

    async def routes(self) -> AsyncGenerator[RouteTable]:
        """As in the interface."""
        async with aclosing(self._client.watch_routes()) as tables:
            async for table in tables:
                yield table

    async def report(self, report: GatewayReport) -> None:
        """As in the interface."""
        await self._client.send_report(self._name, report)


def run_gateway(spec: GatewaySpec) -> int:
    """Serve until told to stop; the exit code. Raises: SpecError."""
    client = ControlClient(spec.control_url, _key_of(spec), timeout_seconds=_CALL_SECONDS)
    return serve_gateway(spec, ClientLink(client, spec.name))


def _key_of(spec: GatewaySpec) -> str | None:
    """The key it shows its control plane. Raises: SpecError."""
    if spec.admin_key_file is None:
        return None
    try:
        return spec.admin_key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"--admin-key-file {spec.admin_key_file} cannot be read: {exc}") from exc
