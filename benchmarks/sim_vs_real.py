"""The simulator against the real thing: ten minutes of one service on one or two replicas, and the same on its clock.

A real `argosy up` serves requests that come at random, more of them in the middle, and its autoscaler answers with a
second replica and takes it away again. Then the simulator gets the requests as they were (when, how long a prompt, how
long an answer), the same policy, and the costs of a replica measured beforehand (`one_core`): nothing of the compared
minutes goes into it. Compared are the median and the 95th percentile of the time to first token, and what the replicas
cost. Every replica has one core, as two of them share two.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from argosy.core.engine import EngineSettings
from argosy.core.inference_service import InferenceServiceSpec, RevisionTemplate
from argosy.core.resources import Resources
from argosy.core.scaling import ScalingMetric, ScalingPolicy
from argosy.evals.loadtest import run_bench
from argosy.evals.metrics import percentile
from argosy.evals.records import RequestRecord
from argosy.evals.spec import ApiEndpoint, BenchSpec, TraceLoad
from argosy.simulator.arrivals import DrawnArrivals, drawn_requests
from argosy.simulator.requests import SimulatedRequest
from argosy.simulator.scalers import ArgosyScaler
from argosy.simulator.simulation import Simulation, SimulationRun, SimulationSpec
from argosy.simulator.step_times import StepTimes
from benchmarks.cloud import Cloud, cloud, fixed
from benchmarks.figures import Figure, Run
from benchmarks.one_core import ServingCosts, engine_profile, served, serving_costs

_NAME = "chat"
_LOOK_SECONDS = 0.5
_DECIDE_SECONDS = 1.0
_LEAST, _MOST = 0.9, 1.1
# Tokens at 0, 10, … 90 and 95 % of the requests; what lies above is drawn as the last.
# Source: Azure LLM inference trace 2023, conversation.
_AZURE_PROMPTS = (2, 207, 387, 403, 703, 1020, 1071, 1130, 1315, 2735, 4083)
_AZURE_ANSWERS = (7, 54, 77, 91, 103, 129, 177, 384, 400, 424, 451)
_LENGTH_SCALE = 0.25
_LEAST_PROMPT = 8


class Use(msgspec.Struct, kw_only=True):
    """A replica as it was seen. Unix seconds."""

    started_at: float
    seen_at: float
    ready_at: float | None = None


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """The compared figures of one side."""

    ttft_p50_seconds: float
    ttft_p95_seconds: float
    tpot_p50_seconds: float
    replica_seconds: float


def main(arguments: list[str]) -> int:
    """Measure both sides and compare; 1 if a ratio leaves its bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--base-rate", type=float, default=0.8, help="requests per second at the beginning and the end")
    parser.add_argument("--peak-rate", type=float, default=2.2, help="requests per second in the middle")
    parser.add_argument("--seed", type=int, default=1)
    flags = parser.parse_args(arguments)
    load = DrawnArrivals(
        rate=flags.base_rate,
        to=flags.peak_rate,
        at=flags.seconds * 0.3,
        until=flags.seconds * 0.7,
        seconds=flags.seconds,
    )
    return asyncio.run(_compare(flags.model, load, flags.seed))


def traffic(load: DrawnArrivals, seed: int) -> list[SimulatedRequest]:
    """Arrivals of the load, lengths as in the Azure trace, a quarter as long."""
    rng = random.Random(seed)
    return [
        SimulatedRequest(
            at_seconds=one.at_seconds,
            prompt_tokens=max(_drawn(_AZURE_PROMPTS, rng), _LEAST_PROMPT),
            output_tokens=_drawn(_AZURE_ANSWERS, rng),
        )
        for one in drawn_requests(load, seed)
    ]


def policy(seconds: float) -> ScalingPolicy:
    """One or two replicas, by requests in flight. The windows fit the length of the run."""
    return ScalingPolicy(
        min_replicas=1,
        max_replicas=2,
        metric=ScalingMetric.CONCURRENCY,
        target=1.3,
        window_seconds=seconds / 20,
        scale_down_stabilization_seconds=seconds / 20,
        panic_threshold=100.0,  # of two replicas there is nothing to panic about
    )


def replica_seconds(uses: Sequence[Use], begin: float, end: float) -> float:
    """What the replicas cost between two moments."""
    return sum(max(min(use.seen_at, end) - max(use.started_at, begin), 0.0) for use in uses)


def compared(ttft: Sequence[float], tpot: Sequence[float], cost: float) -> Measured:
    """The figures of one side."""
    return Measured(
        ttft_p50_seconds=percentile(sorted(ttft), 0.5),
        ttft_p95_seconds=percentile(sorted(ttft), 0.95),
        tpot_p50_seconds=percentile(sorted(tpot), 0.5),
        replica_seconds=cost,
    )


async def _compare(model: str, load: DrawnArrivals, seed: int) -> int:
    run = Run("sim_vs_real")
    bare = engine_profile(model)
    run.note(**msgspec.to_builtins(bare.coefficients))
    scaling = policy(load.seconds)
    async with cloud() as running:
        await running.declare(_NAME, _service(model))
        costs = await serving_costs(running.gateway_url, _NAME, bare)
        start = await _start_seconds(running)
        run.note(**msgspec.to_builtins(costs), start_seconds=start)
        await running.client.modify(_NAME, lambda spec: msgspec.structs.replace(spec, scaling=scaling))
        records, uses, began = await _real(running, traffic(load, seed))
    failed = [one for one in records if one.error]
    done = [one for one in records if not one.error and one.ttft_seconds is not None]
    end = max(one.intended_at for one in records)
    real = compared(
        [one.ttft_seconds or 0.0 for one in done],
        [one.tpot_seconds for one in done if one.tpot_seconds is not None],
        replica_seconds(uses, began, began + end),
    )
    profile = msgspec.structs.replace(served(bare, costs), start_seconds=start)
    simulated_run = _simulated(profile, costs, scaling, records)
    simulated = _figures_of(simulated_run)
    figures = _report(real, simulated, run)
    run.finish(
        figures,
        profile=msgspec.to_builtins(profile),
        serving=msgspec.to_builtins(costs),
        policy=msgspec.to_builtins(scaling),
        requests=len(records),
        failed=len(failed),
        cached_tokens=sum(one.cached_tokens or 0 for one in records),
        replicas=[[use.started_at - began, use.seen_at - began] for use in uses],
        moments=msgspec.to_builtins(simulated_run.moments),
        records=[
            {
                "at": one.intended_at,
                "prompt": one.prompt_tokens,
                "output": one.output_tokens,
                "sent": one.sent_at,
                "ttft": one.ttft_seconds,
                "tpot": one.tpot_seconds,
                "simulated_ttft": two.ttft_seconds,
                "simulated_tpot": two.tpot_seconds,
            }
            for one, two in zip(_by_time(records), simulated_run.requests, strict=True)
        ],
    )
    is_close = all(_LEAST <= figure.median <= _MOST for figure in figures)
    return 0 if is_close and not failed else 1


def _service(model: str) -> InferenceServiceSpec:
    template = RevisionTemplate(
        model=model, engine="openvino", engine_settings=EngineSettings(num_threads=1), resources=Resources(cpu=1)
    )
    return InferenceServiceSpec(template=template, scaling=fixed(1))


async def _start_seconds(running: Cloud) -> float:
    """From exec until ready of a second replica, beside one that rests."""
    await running.scale(_NAME, 2)
    views = await running.settled(_NAME, 2, 0)
    newest = max(views, key=lambda view: view.status.started_at or 0.0).status
    await running.scale(_NAME, 1)
    await running.settled(_NAME, 1, 0)
    if newest.ready_at is None or newest.started_at is None:
        raise RuntimeError(f"{newest.name} is ready and does not say since when")
    return newest.ready_at - newest.started_at


async def _real(running: Cloud, requests: Sequence[SimulatedRequest]) -> tuple[list[RequestRecord], list[Use], float]:
    """Send the requests; (records from the start on, replicas, unix seconds of the start). Raises: ArgosyError."""
    uses: dict[str, Use] = {}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "arrivals.jsonl"
        path.write_bytes(b"\n".join(map(_line, requests)) + b"\n")
        spec = BenchSpec(
            url=running.gateway_url,
            model=_NAME,
            endpoint=ApiEndpoint.COMPLETIONS,
            loads=(TraceLoad(path=path),),
            max_tokens=max(one.output_tokens for one in requests),
            warmup_requests=0,
            seed=7,
        )
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(_watch(running, uses))
            result = (await run_bench(spec)).results[0]
            ended = time.time()
            watching.cancel()
    return result.records, list(uses.values()), ended - max(one.ended_at for one in result.records)


async def _watch(running: Cloud, uses: dict[str, Use]) -> None:
    """See which replicas there are, again and again."""
    while True:
        for view in await running.client.replicas(_NAME):
            status = view.status
            if status.started_at is not None:
                use = uses.setdefault(status.name, Use(started_at=status.started_at, seen_at=0.0))
                use.seen_at, use.ready_at = time.time(), status.ready_at
        await asyncio.sleep(_LOOK_SECONDS)


def _simulated(
    profile: StepTimes, costs: ServingCosts, scaling: ScalingPolicy, records: Sequence[RequestRecord]
) -> SimulationRun:
    requests = [
        SimulatedRequest(
            at_seconds=one.intended_at, prompt_tokens=one.prompt_tokens or 1, output_tokens=max(one.output_tokens, 1)
        )
        for one in _by_time(records)
    ]
    spec = SimulationSpec(profile=profile, overhead_seconds=costs.overhead_seconds)
    return Simulation(spec, requests, ArgosyScaler(scaling, _DECIDE_SECONDS)).run()


def _figures_of(run: SimulationRun) -> Measured:
    done = [one for one in run.requests if one.ttft_seconds is not None and not one.failure]
    return compared(
        [one.ttft_seconds or 0.0 for one in done],
        [one.tpot_seconds for one in done if one.tpot_seconds is not None and one.output_tokens > 1],
        run.replica_seconds,
    )


def _report(real: Measured, simulated: Measured, run: Run) -> list[Figure]:
    """Print the table; a figure per ratio. A ratio's bar has two sides; the row shows the nearer one."""
    print("| | real | simulated | simulated / real |\n|---|--:|--:|--:|")
    figures = []
    for name, unit in (("ttft_p50", " ms"), ("ttft_p95", " ms"), ("tpot_p50", " ms"), ("replica", " s")):
        one, two = getattr(real, f"{name}_seconds"), getattr(simulated, f"{name}_seconds")
        scale = 1000.0 if unit == " ms" else 1.0
        detail = f"{one * scale:.1f}{unit} | {two * scale:.1f}{unit}"
        print(f"| {name} | {detail} | {two / one:.3f} |")
        if name != "tpot_p50":
            bar, is_floor = (_LEAST, True) if two < one else (_MOST, False)
            what = f"simulated / real: {name}_seconds"
            shown = detail.replace(" | ", " real, ") + " simulated"
            figures.append(Figure(what=what, values=[two / one], unit="", bar=bar, is_floor=is_floor, detail=shown))
    run.note(real=msgspec.to_builtins(real), simulated=msgspec.to_builtins(simulated))
    return figures


def _by_time(records: Sequence[RequestRecord]) -> list[RequestRecord]:
    return sorted(records, key=lambda one: one.intended_at)


def _drawn(tokens: Sequence[int], rng: random.Random) -> int:
    """A length: between neighbours of the table linearly, its last step half as wide as the others."""
    place = rng.random() * 10
    if place >= 9.5:
        return round(tokens[-1] * _LENGTH_SCALE)
    below = int(place)
    width = 0.5 if below == 9 else 1.0
    length = tokens[below] + (tokens[below + 1] - tokens[below]) * (place - below) / width
    return max(round(length * _LENGTH_SCALE), 1)


def _line(request: SimulatedRequest) -> bytes:
    """In Mooncake's format."""
    return msgspec.json.encode(
        {
            "timestamp": request.at_seconds * 1000,
            "input_length": request.prompt_tokens,
            "output_length": request.output_tokens,
        }
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
