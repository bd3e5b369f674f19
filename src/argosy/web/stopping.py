"""How every server of ours ends: the first signal drains, the second, or the end of the grace period, aborts."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from argosy.web.lifecycle import Lifecycle, Phase
from argosy.web.process import first_of

logger = logging.getLogger(__name__)

EXIT_DONE, EXIT_FAILED = 0, 1
LAST_WORDS_SECONDS = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopping:
    """SIGTERM and ^C of one process. `stop`: drain; `abort`: at once."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.abort = asyncio.Event()

    def listen(self) -> None:
        """Take the signals from now on; on the running loop."""
        loop = asyncio.get_running_loop()
        for each in _SIGNALS:
            loop.add_signal_handler(each, self._signalled)

    async def drain(
        self,
        lifecycle: Lifecycle,
        grace_seconds: float,
        cut_off: Callable[[], None],
        ending: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> int:
        """Ask for nothing new and let what runs end; `cut_off` ends what is left. The exit code.

        ending: what to wait for; None = until no request is open. A server that dies meanwhile ends at once.
        Cancels: what is open stays open.
        """
        lifecycle.drain()
        logger.info("draining", extra={"in_flight": lifecycle.in_flight})
        say(f"draining: {lifecycle.in_flight} requests open (a second signal aborts them)")
        try:
            async with asyncio.timeout(grace_seconds):
                await first_of((ending or lifecycle.wait_idle)(), self.abort.wait(), lifecycle.wait_dead())
        except TimeoutError:
            logger.warning("grace period over", extra={"in_flight": lifecycle.in_flight})
        is_failed = self.abort.is_set() or lifecycle.phase is Phase.DEAD
        if lifecycle.in_flight:
            cut_off()
            await last_words(lifecycle)
        return EXIT_FAILED if is_failed else EXIT_DONE

    def _signalled(self) -> None:
        (self.abort if self.stop.is_set() else self.stop).set()


async def last_words(lifecycle: Lifecycle) -> None:
    """A moment for last errors to reach their clients."""
    try:
        async with asyncio.timeout(LAST_WORDS_SECONDS):
            await lifecycle.wait_idle()
    except TimeoutError:
        logger.warning("requests cut off", extra={"in_flight": lifecycle.in_flight})


def say(line: str) -> None:
    """Progress, for whoever waits at the terminal."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
