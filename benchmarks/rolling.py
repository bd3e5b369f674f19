"""Changes under load: a new revision, one to three replicas and back, other weights. Nobody may notice (F-02).

Every request must get its whole answer: none fails, none is repeated, none is cut off.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from argosy.core.inference_service import InferenceServiceSpec, RolloutPhase
from benchmarks.cloud import Cloud, cloud
from benchmarks.endings import Kind, Load, echo_spec
from benchmarks.figures import Figure, Run

_NAME = "chat"
_LOOK_SECONDS = 0.1
_CALM_SECONDS = 1.0
_MAX_ROLLOUT_SECONDS = 120.0


class Step(msgspec.Struct, frozen=True):
    """One change: what it is, and how it is made and waited for."""

    what: str
    make: Callable[[Cloud], Awaitable[None]]


def main(arguments: list[str]) -> int:
    """Change and report; 1 if a request was not answered whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=20.0)
    parser.add_argument("--rehearsal", action="store_true", help="write no file")
    flags = parser.parse_args(arguments)
    return asyncio.run(_measure(flags.rate, is_rehearsal=flags.rehearsal))


async def _measure(rate: float, *, is_rehearsal: bool) -> int:
    run = Run("rolling")
    async with cloud() as running:
        await running.declare(_NAME, echo_spec(1))
        await running.settled(_NAME, 1, 0)
        load = Load(running.gateway_url, _NAME, rate)
        async with asyncio.TaskGroup() as group:
            group.create_task(load.run())
            await asyncio.sleep(_CALM_SECONDS)
            for step in _STEPS:
                began, before = time.monotonic(), len(load.endings)
                await step.make(running)
                took = time.monotonic() - began
                await asyncio.sleep(_CALM_SECONDS)
                run.note(step=step.what, seconds=took, requests=len(load.endings) - before)
            load.stop()
    for ending in [each for each in load.endings if each.kind is not Kind.WHOLE][:20]:
        print(f"  request {ending.number}: {ending.kind.value}: {ending.said}")
    kinds = Counter(each.kind for each in load.endings)
    not_whole = len(load.endings) - kinds[Kind.WHOLE]
    detail = f"{len(load.endings)} requests, {len(_STEPS)} changes"
    figures = [
        Figure(what="requests not answered whole while revisions, replicas and weights change",
               values=[float(not_whole)], unit="", bar=0.0, is_floor=False, detail=detail),
    ]  # fmt: skip
    if is_rehearsal:
        print("\n".join(figure.row(0.0) for figure in figures))
    else:
        run.finish(figures, endings={kind.value: count for kind, count in kinds.items()})
    return 0 if all(figure.is_met for figure in figures) else 1


async def _scale_up(running: Cloud) -> None:
    await running.scale(_NAME, 3)
    await running.settled(_NAME, 3, 0)


async def _scale_down(running: Cloud) -> None:
    await running.scale(_NAME, 1)
    await running.settled(_NAME, 1, 0)


async def _new_revision(running: Cloud) -> None:
    def faster(spec: InferenceServiceSpec) -> InferenceServiceSpec:
        return msgspec.structs.replace(spec, template=echo_spec(1, steps_per_second=150).template)

    await running.client.modify(_NAME, faster)
    await _rolled_out(running)
    await running.settled(_NAME, 1, 0)


def _weigh(weights: dict[str, int], replicas: int) -> Callable[[Cloud], Awaitable[None]]:
    async def weigh(running: Cloud) -> None:
        def weighed(spec: InferenceServiceSpec) -> InferenceServiceSpec:
            return msgspec.structs.replace(spec, traffic=weights)

        await running.client.modify(_NAME, weighed)
        await running.settled(_NAME, replicas, 0)

    return weigh


async def _rolled_out(running: Cloud) -> None:
    """Return once the newest spec has been seen and all traffic is its own. Raises: TimeoutError."""
    async with asyncio.timeout(_MAX_ROLLOUT_SECONDS):
        while True:
            service = await running.client.service(_NAME)
            weights = {each.revision: each.weight for each in service.status.revisions if each.weight}
            is_stable = service.status.rollout.phase is RolloutPhase.STABLE
            if service.status.observed_generation == service.metadata.generation and is_stable and len(weights) == 1:
                return
            await asyncio.sleep(_LOOK_SECONDS)


_STEPS = (
    Step("1 to 3 replicas", _scale_up),
    Step("3 to 1", _scale_down),
    Step("a new revision", _new_revision),
    Step("half to each of two revisions", _weigh({"v1": 50, "v2": 50}, 2)),
    Step("9 to 1", _weigh({"v1": 90, "v2": 10}, 2)),
    Step("all to the newest", _weigh({}, 1)),
)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
