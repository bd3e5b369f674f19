"""What a gateway needs of a control plane: routes from it, and somebody who listens to reports."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from argosy.core.load_report import GatewayReport
from argosy.core.routing import RouteTable


class ControlLink(Protocol):
    """A control plane, near or far. It may be away for any time: the gateway goes on, and tries again."""

    def routes(self) -> AsyncGenerator[RouteTable]:
        """The route table now, then each newer one. Ends, or raises an ArgosyError, when the control plane is away.

        Cancels: stops watching.
        """
        ...

    async def report(self, report: GatewayReport) -> None:
        """Tell how things are. Raises: ArgosyError if nobody listens."""
        ...
