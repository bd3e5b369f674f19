"""The line in front of a service that has no replica to take a request: while one wakes, or while all are full.

First come, first served, bounded in length and time. Who joins an empty line wakes the control plane, once, whoever
joins after (F-14). When replicas come, the line moves only as fast as they have room (`admit`), so that a new replica
does not meet a thousand requests in its first moment. If there is no hope, all leave with the reason.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from argosy.core.errors import ArgosyError, Overloaded, Unavailable
from argosy.core.inference_service import GatewayPolicy

RETRY_AFTER_SECONDS = 5.0


class HoldLine:
    """The line of one service. wake: called when the first one joins."""

    def __init__(self, service: str, wake: Callable[[], None]) -> None:
        self._service = service
        self._wake = wake
        self._line: deque[asyncio.Future[None]] = deque()
        self.num_admitted = 0  # sent forward, but not yet seen among the requests in flight

    def __len__(self) -> int:
        """How many wait."""
        return len(self._line)

    async def wait(self, policy: GatewayPolicy, waited_seconds: float) -> None:
        """Return when it is this request's turn to look for a replica again.

        waited_seconds: how long it has been held before; `hold_seconds` counts from there, and it
        has its place at the front again.
        Cancels: leaves the line. Raises: Overloaded if the line is full, Unavailable with the reason if nothing came.
        """
        if len(self._line) >= policy.max_held:
            raise Overloaded(
                f"{len(self._line)} requests wait for a replica of {self._service!r} already: try again later",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if waited_seconds:
            self._line.appendleft(turn)
        else:
            self._line.append(turn)
        if len(self._line) == 1 and not waited_seconds:
            self._wake()
        try:
            async with asyncio.timeout(max(0.0, policy.hold_seconds - waited_seconds)):
                await turn
        except TimeoutError as exc:
            raise Unavailable(
                f"no replica of {self._service!r} could take the request within {policy.hold_seconds:g} s: "
                f"ask `argosy why {self._service}`",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            ) from exc
        finally:
            if turn in self._line:
                self._line.remove(turn)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self.num_admitted -= 1

    def admit(self, room: int) -> None:
        """Let the first `room` go forward."""
        while room > self.num_admitted and self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_result(None)
                self.num_admitted += 1

    def dismiss(self, error: ArgosyError) -> None:
        """Send all away with the reason."""
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                turn.set_exception(error)
