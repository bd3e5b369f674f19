"""What a replica on one core costs: the step times of the bare engine, and what serving over HTTP adds to them.

Two replicas on a machine of two cores have one each, and the server's process shares that core with the engine. So a
profile for them is measured in two parts, both before any compared traffic. First the engine alone, its process pinned
to one core, one thread: a short form of `step_times`, the lengths and batches that the traffic will have. Then the
service itself over the gateway, one replica, requests of equal length in lockstep: what a step, and each answer in it,
take longer than the engine alone goes to these two costs; what the first token of a lone request takes longer is the
overhead outside the engine.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from statistics import median

import msgspec

from argosy.evals.loadtest import run_bench
from argosy.evals.records import RequestRecord
from argosy.evals.spec import ApiEndpoint, BenchSpec, ClosedLoad, PromptSpec
from argosy.simulator.requests import SimulatedRequest
from argosy.simulator.scalers import StaticScaler
from argosy.simulator.simulation import Simulation, SimulationSpec
from argosy.simulator.step_times import StepTimes
from benchmarks.figures import machine_facts
from benchmarks.step_fit import fit
from benchmarks.step_loop import Step, StepLoop
from benchmarks.step_times import Prompts, quietest

_ROUNDS = 2
_PROMPTS = (16, 64, 128, 256, 512, 1024)
_CONTEXTS = (64, 256)
_BATCHES = (1, 2, 4, 8)
_ANSWER_STEPS = 6
_PIECES = (64, 256)
_LONE_PROMPTS = (64, 256, 512)
_LONE_REQUESTS = 8
_LOCKSTEP = (1, 6)
_LOCKSTEP_PROMPT, _LOCKSTEP_ANSWER = 32, 160


class ServingCosts(msgspec.Struct, frozen=True, kw_only=True):
    """What serving adds. Units: seconds for a request until its first token, a step, and an answer in a step."""

    overhead_seconds: float
    seconds_per_step: float
    seconds_per_sequence: float


def engine_profile(model: str) -> StepTimes:
    """The bare engine on one core, in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_pin) as pool:
        return pool.submit(_measured, model).result()


async def serving_costs(url: str, model: str, profile: StepTimes) -> ServingCosts:
    """Measure an idle service of one replica over its gateway, and take off what the bare engine would need."""
    over, more = [], {}
    for seed, length in enumerate(_LONE_PROMPTS):
        records = await _asked(url, model, prompt=length, answer=2, clients=1, requests=_LONE_REQUESTS, seed=seed)
        alone = modelled(profile, records)
        over += [(real.ttft_seconds or 0.0) - (said.ttft_seconds or 0.0) for real, said in zip(*alone, strict=True)]
    for clients in _LOCKSTEP:
        records = await _asked(
            url, model, prompt=_LOCKSTEP_PROMPT, answer=_LOCKSTEP_ANSWER, clients=clients, requests=3 * clients, seed=90
        )
        pairs = zip(*modelled(profile, records), strict=True)
        more[clients] = median((real.tpot_seconds or 0.0) - (said.tpot_seconds or 0.0) for real, said in pairs)
    few, many = _LOCKSTEP
    per_sequence = max((more[many] - more[few]) / (many - few), 0.0)
    per_step = max(more[few] - per_sequence * few, 0.0)
    # A lone prompt's step pays for being served, too: what is left of the delay lies outside the steps.
    outside = max(median(over) - per_step - per_sequence, 0.0)
    print(f"  served over bare: first token {median(over):.6f} s, a step of 1 and 6 answers {more}", flush=True)
    return ServingCosts(overhead_seconds=outside, seconds_per_step=per_step, seconds_per_sequence=per_sequence)


def modelled(
    profile: StepTimes, records: Sequence[RequestRecord]
) -> tuple[list[RequestRecord], list[SimulatedRequest]]:
    """The records by time, and the same requests on one simulated replica that is always there."""
    ordered = sorted(records, key=lambda one: one.intended_at)
    requests = [
        SimulatedRequest(
            at_seconds=one.intended_at, prompt_tokens=one.prompt_tokens or 1, output_tokens=max(one.output_tokens, 1)
        )
        for one in ordered
    ]
    Simulation(SimulationSpec(profile=profile), requests, StaticScaler(1)).run()
    return ordered, requests


def served(profile: StepTimes, costs: ServingCosts) -> StepTimes:
    """The profile of an engine behind its server."""
    bare = profile.coefficients
    return msgspec.structs.replace(
        profile,
        coefficients=msgspec.structs.replace(
            bare,
            seconds_per_step=bare.seconds_per_step + costs.seconds_per_step,
            seconds_per_sequence=bare.seconds_per_sequence + costs.seconds_per_sequence,
        ),
    )


async def _asked(
    url: str, model: str, *, prompt: int, answer: int, clients: int, requests: int, seed: int
) -> list[RequestRecord]:
    spec = BenchSpec(
        url=url,
        model=model,
        endpoint=ApiEndpoint.COMPLETIONS,
        loads=(ClosedLoad(concurrency=clients),),
        prompts=PromptSpec(tokens=prompt),
        max_tokens=answer,
        num_requests=requests,
        warmup_requests=clients,
        seed=seed,
    )
    records = (await run_bench(spec)).results[0].records
    failed = [one for one in records if one.error]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(records)} requests failed: {failed[0].error_detail}")
    return records


def _pin() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _measured(model: str) -> StepTimes:
    loop, prompts = StepLoop(model, num_threads=1), Prompts(1)
    _round(loop, prompts)
    taken = []
    for _ in range(_ROUNDS):
        loop.steps = []
        _round(loop, prompts)
        taken.append(loop.steps)
    return _profile(model, loop, [quietest(same) for same in zip(*taken, strict=True)])


def _round(loop: StepLoop, prompts: Prompts) -> None:
    """Prompts alone, answers in growing batches, prompts among them."""
    for length in _PROMPTS:
        loop.submit(prompts.ids(length))
        loop.prefill("prompt", f"{length} tokens")
        loop.clear()
    for context in _CONTEXTS:
        for size in _BATCHES:
            while loop.num_open < size:
                loop.submit(prompts.ids(context))
            loop.prefill("filling", f"prompts of {context} among answers")
            for _ in range(_ANSWER_STEPS):
                loop.step("answers", f"{size} at {context} tokens")
            for length in _PIECES:
                loop.submit(prompts.ids(length), max_tokens=2)
                loop.prefill("mixed", f"{length} prompt tokens, {size} answers at {context}")
                loop.step("ending", f"last token of one of {size + 1} answers at {context}")
        loop.clear()


def _profile(model: str, loop: StepLoop, steps: Sequence[Step]) -> StepTimes:
    facts = machine_facts()
    return StepTimes(
        name=f"{model}-openvino-1cpu",
        description=f"{model} on the openvino engine, greedy; one core of {facts['processor']}",
        measured_at=date.today(),  # noqa: DTZ011  # the day where it was measured
        coefficients=fit(steps),
        max_num_seqs=loop.max_num_seqs,
        max_num_batched_tokens=loop.max_num_batched_tokens,
        kv_cache_tokens=loop.kv_cache_tokens,
        max_model_len=loop.max_model_len,
        start_seconds=0.0,
        warm_spare_seconds=None,
    )
