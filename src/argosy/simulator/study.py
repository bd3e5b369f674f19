"""One traffic, several scaling policies, one table: what `argosy simulate` runs.

Every policy meets the same requests, begins with the same number of ready replicas, and pays for each replica from its
start until its last request has ended. A request is good if it was answered, its first token and its mean time per
further token within the SLO. A request that could not meet the SLO on a replica of its own is counted apart: no number
of replicas helps it, so the target holds for the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from argosy.core.errors import InvalidRequest
from argosy.core.inference_service import BalancerName, GatewayPolicy
from argosy.core.scaling import ScalingMetric, ScalingPolicy, Slo
from argosy.evals.metrics import percentile
from argosy.simulator.arrivals import Scales, block_tokens, drawn_requests, fresh, parse_arrivals, trace_requests
from argosy.simulator.baselines import HpaSettings, KpaSettings
from argosy.simulator.oracle import oracle, static_runs
from argosy.simulator.replica_model import PromptClock
from argosy.simulator.requests import SimulatedRequest, is_good
from argosy.simulator.scalers import (
    CPU_TARGET_RATIO,
    QUEUE_LATENCY_TARGET,
    WAITING_TARGET,
    ArgosyScaler,
    CpuHpaScaler,
    KpaScaler,
    StaticScaler,
    TotalHpaScaler,
)
from argosy.simulator.simulation import Moment, Scaler, Simulation, SimulationRun, SimulationSpec
from argosy.simulator.step_times import StepTimes, read_profile

DEFAULT_POLICIES = ("argosy", "hpa-cpu", "hpa-queue", "kpa", "keda", "static", "oracle")
MOMENT_SECONDS = 10.0
_START_SECONDS, _START_LOAD = 300.0, 0.7


class StudySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is studied: a trace or drawn arrivals, on a profile, under policies.

    target: the share of requests that must meet the SLO. scaling: the policy of `argosy`; other metrics are studied as
    `argosy:METRIC`. initial_replicas: ready at the beginning; None = as many as the first five minutes keep at 70 %.
    """

    trace: Path | None = None
    arrivals: str | None = None
    scales: Scales = Scales()
    profile: str = "smollm2-openvino-2cpu"
    policies: tuple[str, ...] = DEFAULT_POLICIES
    scaling: ScalingPolicy = ScalingPolicy(max_replicas=64)
    target: float = 0.99
    balancer: BalancerName = BalancerName.PREFIX_AFFINITY
    decide_seconds: float = 1.0
    start_seconds: float | None = None
    warm_spares: int = 0
    initial_replicas: int | None = None
    overhead_seconds: float = 0.0
    seed: int = 0


class TimePoint(msgspec.Struct, frozen=True, kw_only=True):
    """Some seconds of a run: replicas wanted and ready at their end; of the requests that arrived, how they fared."""

    at_seconds: float
    desired: int
    ready: int
    requests_per_second: float
    good_ratio: float
    ttft_p95_seconds: float


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One policy in figures. attainment: good / all; attainment_of_possible: good / those that could be.

    reversals: changes of direction per ten minutes. over_oracle: its replica-hours / the oracle's.
    """

    policy: str
    attainment: float
    attainment_of_possible: float
    replica_hours: float
    over_oracle: float | None
    replicas_least: int
    replicas_most: int
    reversals: float
    failed: int
    ttft_p50_seconds: float
    ttft_p95_seconds: float
    ttft_p99_seconds: float
    tpot_p95_seconds: float
    cached_token_ratio: float
    points: list[TimePoint]
    changes: list[Moment]


class StudyResult(msgspec.Struct, frozen=True, kw_only=True):
    """The traffic in figures, and each policy's result in the order asked for."""

    spec: StudySpec
    profile: StepTimes
    requests: int
    seconds: float
    prompt_tokens_mean: float
    output_tokens_mean: float
    possible_ratio: float
    initial_replicas: int
    policies: list[PolicyResult]


def study(spec: StudySpec, on_progress: Callable[[str], None] | None = None) -> StudyResult:
    """Simulate every policy. on_progress: called with what is simulated now. Raises: InvalidRequest, SpecError."""
    profile = read_profile(spec.profile)
    requests = traffic(spec)
    for name in spec.policies:
        if name not in ("static", "oracle"):
            make_scaler(name, spec)
    possible = [one for one in requests if is_possible(one, profile, spec.scaling.slo)]
    initial = spec.initial_replicas or _initial_replicas(requests, profile)
    bench = _Bench(spec, profile, requests, initial, set(map(id, possible)), on_progress or _say_nothing)
    runs = {name: bench.run(name) for name in spec.policies}
    results = [bench.result(name, run) for name, run in runs.items() if run is not None]
    best = next((one.replica_hours for one in results if one.policy == "oracle"), None)
    return StudyResult(
        spec=spec,
        profile=profile,
        requests=len(requests),
        seconds=requests[-1].at_seconds,
        prompt_tokens_mean=sum(one.prompt_tokens for one in requests) / len(requests),
        output_tokens_mean=sum(one.output_tokens for one in requests) / len(requests),
        possible_ratio=len(possible) / len(requests),
        initial_replicas=initial,
        policies=[
            msgspec.structs.replace(one, over_oracle=one.replica_hours / best if best else None) for one in results
        ],
    )


def traffic(spec: StudySpec) -> list[SimulatedRequest]:
    """The requests that the spec names. Raises: InvalidRequest, SpecError."""
    if (spec.trace is None) == (spec.arrivals is None):
        raise InvalidRequest("give either a trace or arrivals, such as poisson:rate=8,seconds=600", param="trace")
    if spec.trace is not None:
        return trace_requests(spec.trace, spec.scales, spec.seed)
    return drawn_requests(parse_arrivals(spec.arrivals or ""), spec.seed)


def is_possible(request: SimulatedRequest, profile: StepTimes, slo: Slo) -> bool:
    """Whether a replica that does nothing else would answer it within the SLO."""
    if request.prompt_tokens + request.output_tokens > profile.max_model_len:
        return False
    return PromptClock(profile).seconds(request.prompt_tokens) <= slo.ttft_seconds


def make_scaler(name: str, spec: StudySpec) -> Scaler:
    """The scaler of a policy's name. Raises: InvalidRequest."""
    kind, _, detail = name.partition(":")
    if kind == "argosy" and (not detail or detail in set(ScalingMetric)):
        metric = ScalingMetric(detail) if detail else spec.scaling.metric
        return ArgosyScaler(msgspec.structs.replace(spec.scaling, metric=metric), spec.decide_seconds)
    if kind == "static" and detail.isdigit() and int(detail) > 0:
        return StaticScaler(int(detail))
    if not detail and kind in _BASELINES:
        return _BASELINES[kind](spec.scaling)
    known = ", ".join(("argosy", "argosy:METRIC", *_BASELINES, "static", "static:N", "oracle"))
    raise InvalidRequest(f"policy {name!r} is not known: there are {known}", param="policies")


class _Bench:
    """The same traffic for every policy; static runs are made once for `static` and `oracle`."""

    def __init__(
        self,
        spec: StudySpec,
        profile: StepTimes,
        requests: Sequence[SimulatedRequest],
        initial: int,
        possible: set[int],
        on_progress: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._slo = spec.scaling.slo
        self._profile = profile
        self._requests = requests
        self._initial = initial
        self._possible = [index for index, one in enumerate(requests) if id(one) in possible]
        self._on_progress = on_progress
        self._target = spec.target * len(possible) / len(requests)
        self._statics: list[SimulationRun] = []

    def run(self, name: str) -> SimulationRun | None:
        """One policy; None if it cannot reach the target (static, oracle)."""
        self._on_progress(name)
        if name not in ("static", "oracle"):
            static = name.partition(":")[2] if name.startswith("static:") else ""
            return self._simulate(make_scaler(name, self._spec), int(static) if static else self._initial)
        if not self._statics:
            self._statics = static_runs(self._simulate, StaticScaler, self._slo, self._target)
        if name == "static":
            return next((run for run in self._statics if self._attainment(run) >= self._target), None)
        found = oracle(self._simulate, self._statics, self._slo, self._target, self._start_seconds)
        return found.run if found else None

    def result(self, name: str, run: SimulationRun) -> PolicyResult:
        """The run in figures."""
        done = [one for one in run.requests if one.ttft_seconds is not None and not one.failure]
        ttft = sorted(one.ttft_seconds or 0.0 for one in done)
        tpot = sorted(one.tpot_seconds or 0.0 for one in done)
        good = sum(is_good(one, self._slo) for one in run.requests)
        possible_good = sum(is_good(run.requests[index], self._slo) for index in self._possible)
        counts = [moment.desired for moment in run.moments]
        return PolicyResult(
            policy=name,
            attainment=good / len(run.requests),
            attainment_of_possible=possible_good / max(len(self._possible), 1),
            replica_hours=run.replica_seconds / 3600,
            over_oracle=None,
            replicas_least=min(counts),
            replicas_most=max(counts),
            reversals=reversals(run.moments) * 600 / max(run.horizon_seconds, 1.0),
            failed=sum(bool(one.failure) for one in run.requests),
            ttft_p50_seconds=percentile(ttft, 0.5) if ttft else math.inf,
            ttft_p95_seconds=percentile(ttft, 0.95) if ttft else math.inf,
            ttft_p99_seconds=percentile(ttft, 0.99) if ttft else math.inf,
            tpot_p95_seconds=percentile(tpot, 0.95) if tpot else math.inf,
            cached_token_ratio=sum(one.cached_tokens for one in done) / max(sum(one.prompt_tokens for one in done), 1),
            points=time_points(run, self._slo),
            changes=[moment for moment in run.moments if moment.message],
        )

    @property
    def _start_seconds(self) -> float:
        return self._profile.start_seconds if self._spec.start_seconds is None else self._spec.start_seconds

    def _attainment(self, run: SimulationRun) -> float:
        return sum(is_good(one, self._slo) for one in run.requests) / len(run.requests)

    def _simulate(self, scaler: Scaler, initial: int) -> SimulationRun:
        spec = SimulationSpec(
            profile=self._profile,
            slo=self._slo,
            gateway=GatewayPolicy(balancer=self._spec.balancer),
            initial_replicas=initial,
            warm_spares=self._spec.warm_spares,
            start_seconds=self._start_seconds,
            block_tokens=block_tokens(self._spec.scales),
            overhead_seconds=self._spec.overhead_seconds,
            seed=self._spec.seed,
        )
        return Simulation(spec, fresh(self._requests), scaler).run()


def reversals(moments: Sequence[Moment]) -> int:
    """How often the wanted number of replicas turned from rising to falling or back."""
    wanted = [moment.desired for moment in moments]
    steps = [after > before for before, after in pairwise(wanted) if after != before]
    return sum(before != after for before, after in pairwise(steps))


def time_points(run: SimulationRun, slo: Slo) -> list[TimePoint]:
    """The run over time."""
    count = max(math.ceil(run.horizon_seconds / MOMENT_SECONDS), 1)
    arrived: list[list[SimulatedRequest]] = [[] for _ in range(count)]
    for request in run.requests:
        arrived[min(int(request.at_seconds / MOMENT_SECONDS), count - 1)].append(request)
    points, place = [], 0
    for index, requests in enumerate(arrived):
        end = (index + 1) * MOMENT_SECONDS
        while place + 1 < len(run.moments) and run.moments[place + 1].at_seconds <= end:
            place += 1
        first = sorted(one.ttft_seconds for one in requests if one.ttft_seconds is not None)
        points.append(
            TimePoint(
                at_seconds=end,
                desired=run.moments[place].desired,
                ready=run.moments[place].ready,
                requests_per_second=len(requests) / MOMENT_SECONDS,
                good_ratio=sum(is_good(one, slo) for one in requests) / len(requests) if requests else 1.0,
                ttft_p95_seconds=percentile(first, 0.95) if first else 0.0,
            )
        )
    return points


def _initial_replicas(requests: Sequence[SimulatedRequest], profile: StepTimes) -> int:
    """As many as the first five minutes keep busy to 70 %, answers taken to run eight at a time."""
    clock, costs = PromptClock(profile), profile.coefficients
    first = [one for one in requests if one.at_seconds < _START_SECONDS]
    each_token = costs.seconds_per_step / 8 + costs.seconds_per_sequence
    work = sum(clock.seconds(one.prompt_tokens) + each_token * one.output_tokens for one in first)
    seconds = min(_START_SECONDS, max(requests[-1].at_seconds, 1.0))
    return max(math.ceil(work / seconds / _START_LOAD), 1)


def _hpa(scaling: ScalingPolicy) -> HpaSettings:
    return HpaSettings(min_replicas=max(scaling.min_replicas, 1), max_replicas=scaling.max_replicas)


def _hpa_queue(scrape_seconds: float) -> Callable[[ScalingPolicy], Scaler]:
    return lambda scaling: TotalHpaScaler(
        _hpa(scaling), QUEUE_LATENCY_TARGET, scrape_seconds=scrape_seconds, is_rate=True
    )


_BASELINES: Mapping[str, Callable[[ScalingPolicy], Scaler]] = {
    "hpa-cpu": lambda scaling: CpuHpaScaler(_hpa(scaling), CPU_TARGET_RATIO),
    "hpa-queue": _hpa_queue(15.0),
    "hpa-queue-60s": _hpa_queue(60.0),
    "kpa": lambda scaling: KpaScaler(
        KpaSettings(min_replicas=max(scaling.min_replicas, 1), max_replicas=scaling.max_replicas)
    ),
    "keda": lambda scaling: TotalHpaScaler(_hpa(scaling), WAITING_TARGET, scrape_seconds=15.0, is_rate=False),
}


def _say_nothing(_: str) -> None:
    return None
