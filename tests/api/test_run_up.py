"""The gateway of `argosy up`: waited for, and given up, on a backend whose time is the test's."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from argosy.api.run_up import gateway_workload, ready_gateway
from argosy.backends.fake import FakeBackend
from argosy.core.control_spec import GatewaySpec
from argosy.core.errors import BackendError
from argosy.core.workload import ReplicaPhase

pytestmark = pytest.mark.anyio


@pytest.fixture
def backend() -> FakeBackend:
    """Whoever asks it makes half a second pass."""
    times = count()
    return FakeBackend(lambda: next(times) / 2)


async def test_a_gateway_that_answers_is_awaited(backend: FakeBackend) -> None:
    await backend.apply(gateway_workload(GatewaySpec(), Path("gateway.json")))
    assert (await ready_gateway(backend)).phase is ReplicaPhase.READY


async def test_a_gateway_that_fails_twice_is_given_up_with_the_reason(backend: FakeBackend) -> None:
    backend.failing.add("gateway")
    await backend.apply(gateway_workload(GatewaySpec(), Path("gateway.json")))
    with pytest.raises(BackendError, match=r"the gateway does not start: .*exit code 1"):
        await ready_gateway(backend)


async def test_f03_f12_one_that_was_killed_often_before_is_adopted_and_not_given_up(backend: FakeBackend) -> None:
    """Gateway and control plane killed at once: the next control plane finds a gateway that starts, not one at rest."""
    await backend.apply(gateway_workload(GatewaySpec(), Path("gateway.json")))
    for _ in range(4):
        name = (await ready_gateway(backend)).name
        backend.crash("gateway", name)
    replica = await ready_gateway(backend)
    assert (replica.phase, replica.restarts) == (ReplicaPhase.READY, 4)
