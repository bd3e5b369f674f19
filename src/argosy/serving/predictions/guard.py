"""Ends the calls of one taker from outside: when one said nothing for too long, or when nobody wants its answers.

Calls may take a tenth of a millisecond and time out after minutes, so a call only notes its deadline; one timer per
taker looks at it when it fires, and is set anew only then, or for a deadline before it.
"""

from __future__ import annotations

import asyncio


class Guard:
    """Made by the task that makes the calls. is_expired: the last call was ended because its time was over."""

    __slots__ = ("_deadline", "_is_ending", "_loop", "_seconds", "_task", "_timer", "is_expired")

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a Guard is made in the task that it guards")
        self.is_expired = False
        self._loop = asyncio.get_running_loop()
        self._task = task
        self._deadline: float | None = None  # while a call runs
        self._seconds = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_ending = False

    def begin(self, seconds: float) -> None:
        """A call begins that may be silent for so long."""
        self.is_expired = False
        self._is_ending = False
        self._seconds = seconds
        self._deadline = self._loop.time() + seconds
        if self._timer is not None and self._timer.when() > self._deadline:
            self._timer.cancel()
            self._timer = None
        if self._timer is None:
            self._timer = self._loop.call_at(self._deadline, self._look)

    def extend(self) -> None:
        """The call said something."""
        self._deadline = self._loop.time() + self._seconds

    def end(self) -> None:
        """The call is over."""
        self._deadline = None

    def interrupt(self) -> None:
        """End the call, if one runs: it is cancelled where it waits."""
        if self._deadline is not None and not self._is_ending:
            self._is_ending = True
            self._task.cancel()

    def was_interrupting(self) -> bool:
        """Whether the cancellation that just arrived was this guard's and nobody else's; it is then used up."""
        if not self._is_ending:
            return False
        self._is_ending = False
        return self._task.uncancel() == 0

    def close(self) -> None:
        """There will be no more calls."""
        self._deadline = None
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        if self._loop.time() < self._deadline:
            self._timer = self._loop.call_at(self._deadline, self._look)
            return
        self.is_expired = True
        self.interrupt()
