"""`argosy up`: a control plane, and a gateway that is a workload like any other, on one machine.

The gateway is a process of its own, so that a pass of the loop never holds up a token and the end of one is not the
end of the other. As a workload of the local backend it is started again when it dies, its log is kept, and a new
control plane adopts it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from argosy.api.local_state import write_private
from argosy.api.run_control import Companion, run_with
from argosy.core.control_spec import GatewaySpec, UpSpec
from argosy.core.errors import BackendError
from argosy.core.interfaces import Backend
from argosy.core.state_dir import StateDir, default_state_dir
from argosy.core.web_spec import check_web_spec
from argosy.core.workload import PORT_WORD, ReplicaPhase, ReplicaStatus, Workload
from argosy.web.listener import bind
from argosy.web.stopping import say

_GATEWAY = "gateway"
_START_SECONDS = 60.0
_LOOK_SECONDS = 0.1


def run_up(spec: UpSpec) -> int:
    """Run both until told to stop; the exit code. Raises: SpecError, Conflict, StoreError, BackendError."""
    check_web_spec(spec.gateway)
    control = msgspec.structs.replace(spec.control, stop_replicas=not spec.keep_replicas)
    state = StateDir(control.state) if control.state is not None else default_state_dir()
    return run_with(control, _gateway(spec.gateway, state, keep=spec.keep_replicas), port_flag="--control-port")


def gateway_workload(spec: GatewaySpec, config: Path) -> Workload:
    """The gateway as a backend runs it."""
    program = (sys.executable, "-m", "argosy.cli.main", "gateway", "--config", str(config), "--port", PORT_WORD)
    return Workload(
        name=_GATEWAY,
        argv=program,
        port=spec.port or None,
        start_timeout_seconds=_START_SECONDS,
        shutdown_grace_seconds=spec.shutdown_grace_seconds + 5,
    )


def _gateway(spec: GatewaySpec, state: StateDir, *, keep: bool) -> Companion:
    @asynccontextmanager
    async def running(backend: Backend, control_url: str) -> AsyncIterator[str]:
        linked = msgspec.structs.replace(
            spec,
            control_url=control_url,
            admin_key_file=state.admin_key.absolute(),
            replica_key_file=state.replica_key.absolute(),
        )
        if not any(status.name == _GATEWAY for status in await backend.list()):
            bind(spec).close()  # A taken port is told now, with what to do, instead of by a gateway that cannot start.
        write_private(state.gateway_config, msgspec.json.encode(linked, enc_hook=str))
        await backend.apply(gateway_workload(spec, state.gateway_config.absolute()))
        try:
            replica = await ready_gateway(backend)
            url = f"http://{replica.address}"
            say(f"gateway:       {url}/v1")
            say("deploy a model with: argosy deploy smollm2   (^C drains and ends everything)")
            yield url
        finally:
            if not keep:
                await backend.delete(_GATEWAY)
                await _gone(backend)

    return running


async def ready_gateway(backend: Backend) -> ReplicaStatus:
    """The gateway, once it answers. What an adopted one went through before says nothing about its next start.

    Raises: BackendError with the last lines of its log if it fails twice, or takes too long.
    """
    before = {replica.name: replica.restarts for replica in await _replicas(backend)}
    try:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                for replica in await _replicas(backend):
                    if replica.phase is ReplicaPhase.READY:
                        return replica
                    if replica.restarts > before.get(replica.name, 0) + 1:
                        raise BackendError(f"the gateway does not start: {replica.message}", retryable=False)
                await _something_happens(backend)
    except TimeoutError as exc:
        raise BackendError(f"the gateway was not ready within {_START_SECONDS:.0f} s: see its log") from exc


async def _gone(backend: Backend) -> None:
    """Return once the gateway has drained and ended; its own grace period bounds the wait."""
    while await _replicas(backend):
        await _something_happens(backend)


async def _something_happens(backend: Backend) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_SECONDS):
            await backend.changed()


async def _replicas(backend: Backend) -> list[ReplicaStatus]:
    return [replica for status in await backend.list() if status.name == _GATEWAY for replica in status.replicas]
