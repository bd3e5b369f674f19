"""A server moves through its phases one way."""

from __future__ import annotations

import asyncio

import pytest

from argosy.web.lifecycle import Lifecycle, Phase
from argosy.web.process import first_of

pytestmark = pytest.mark.anyio


async def test_dying_is_final() -> None:
    lifecycle = Lifecycle("loading")
    lifecycle.die("gone")
    lifecycle.drain()
    lifecycle.die("gone again")
    assert (lifecycle.phase, lifecycle.reason) == (Phase.DEAD, "gone")


async def test_callers_are_told_why_it_is_not_ready() -> None:
    lifecycle = Lifecycle("loading")
    assert (lifecycle.is_ready, lifecycle.reason) == (False, "loading")
    lifecycle.ready()
    assert (lifecycle.is_ready, lifecycle.reason) == (True, "")
    lifecycle.drain()
    assert not lifecycle.is_ready
    assert "shutting down" in lifecycle.reason


async def test_idle_is_when_the_last_request_has_left() -> None:
    lifecycle = Lifecycle("loading")
    lifecycle.enter()
    lifecycle.enter()
    lifecycle.leave()
    waiting = asyncio.ensure_future(lifecycle.wait_idle())
    await asyncio.sleep(0)
    assert not waiting.done()
    lifecycle.leave()
    async with asyncio.timeout(1):
        await waiting


async def test_the_first_of_several_waits_cancels_the_others() -> None:
    ended: list[str] = []

    async def wait(name: str, *, for_ever: bool) -> None:
        try:
            await (asyncio.Event().wait() if for_ever else asyncio.sleep(0))
            ended.append(name)
        except asyncio.CancelledError:
            ended.append(f"{name} cancelled")
            raise

    async with asyncio.timeout(1):
        await first_of(wait("long", for_ever=True), wait("short", for_ever=False))
    assert ended == ["short", "long cancelled"]
