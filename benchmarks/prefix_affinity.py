"""What it is worth to send a prompt where its beginning is cached: prefix_affinity against the other balancers.

Simulated (`--trace FILE`, a Mooncake trace): four replicas whose KV caches hold a quarter each of all blocks of the
trace, on the virtual clock, with the balancers, the index and the admission that serve; the gateway learns what a
replica holds from its reports, every 0.25 s. The ideal is one shared cache of the same total size that sees every
prompt at once. Goodput is the highest rate at which 90 % of the requests meet the SLO (DistServe's definition), found
by replaying the trace faster or slower; the SLO is five times the time of the mean prompt on an idle replica
(AlpaServe's SLO scale), and 100 ms per output token.

Real (`--real`): two replicas of a small model behind the gateway (`prefix_families.py`).
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from argosy.core.inference_service import BalancerName, GatewayPolicy
from argosy.core.scaling import Slo
from argosy.serving.admission_policy import AdmissionLimits
from argosy.simulator.arrivals import Scales, block_tokens, trace_requests
from argosy.simulator.replica_model import PromptClock
from argosy.simulator.requests import SimulatedRequest, is_good
from argosy.simulator.simulation import Seen, Simulation, SimulationSpec
from argosy.simulator.step_times import StepCosts, StepTimes
from benchmarks.figures import Figure, Run
from benchmarks.prefix_families import measure_real

REPLICAS = 4
REPORT_SECONDS = 0.25
GOAL = 0.9
SLO_SCALE = 5.0
TPOT_SECONDS = 0.1
SPEEDS = (0.05, 2.0)  # between which the goodput is looked for
PRECISION = 0.01
POLICIES = (
    BalancerName.ROUND_ROBIN,
    BalancerName.POWER_OF_TWO,
    BalancerName.LEAST_LOADED,
    BalancerName.PREFIX_AFFINITY,
)


def accelerator(kv_cache_tokens: int) -> StepTimes:
    """A replica that computes 8,400 prompt tokens a second: the trace's prompts are too long for a small CPU."""
    return StepTimes(
        name="accelerator",
        description="made up: an accelerator with 8,400 prompt tokens/s and a cache in host memory",
        measured_at=datetime.date(2026, 1, 1),
        coefficients=StepCosts(
            seconds_per_step=0.01,
            seconds_per_prompt_token=1e-4,
            seconds_per_attended_token=1e-9,
            seconds_per_sequence=1e-4,
            seconds_per_context_token=2e-8,
            seconds_per_size_change=0.0,
        ),
        max_num_seqs=256,
        max_num_batched_tokens=512,
        kv_cache_tokens=kv_cache_tokens,
        max_model_len=200_000,
        start_seconds=1.0,
        warm_spare_seconds=None,
    )


class Fixed:
    """As many replicas as there are."""

    interval_seconds = 60.0

    def decide(self, seen: Seen) -> tuple[int, str]:
        """No change."""
        return REPLICAS, ""


class Replay:
    """One trace, replayed at any speed with any balancer on replicas whose caches have a given size."""

    def __init__(self, trace: Path, share: float) -> None:
        """share: of the trace's blocks that one replica's cache holds."""
        self._trace = trace
        scales = Scales()
        requests = trace_requests(trace, scales, seed=0)
        self.block_tokens = block_tokens(scales)
        self.num_blocks = len({block for request in requests for block in request.blocks})
        self.profile = accelerator(round(self.num_blocks * self.block_tokens * share))
        mean_tokens = sum(one.prompt_tokens for one in requests) // len(requests)
        self.slo = Slo(
            ttft_seconds=SLO_SCALE * PromptClock(self.profile).seconds(mean_tokens), tpot_seconds=TPOT_SECONDS
        )
        self.seconds = requests[-1].at_seconds
        self.ideal_ratio = ideal_hit_ratio(requests, self.block_tokens, REPLICAS * self.profile.kv_cache_tokens)
        self.num_requests = len(requests)

    def run(self, policy: BalancerName, speed: float) -> list[SimulatedRequest]:
        """The requests, answered."""
        requests = trace_requests(self._trace, Scales(speed=speed), seed=0)
        unbounded = AdmissionLimits(
            max_running=self.profile.max_num_seqs,
            max_waiting=10**6,
            max_waiting_tokens=10**12,
            max_queue_seconds=1e9,
        )
        spec = SimulationSpec(
            profile=self.profile,
            slo=self.slo,
            gateway=GatewayPolicy(balancer=policy),
            limits=unbounded,
            initial_replicas=REPLICAS,
            block_tokens=self.block_tokens,
            poll_seconds=REPORT_SECONDS,
        )
        Simulation(spec, requests, Fixed()).run()
        return requests

    def good_ratio(self, requests: Sequence[SimulatedRequest], ttft_seconds: float) -> float:
        """Share of the requests within an SLO."""
        slo = Slo(ttft_seconds=ttft_seconds, tpot_seconds=TPOT_SECONDS)
        return sum(is_good(one, slo) for one in requests) / len(requests)

    def goodput(self, policy: BalancerName) -> float:
        """The highest rate, in requests per second, at which the goal holds."""
        low, high = SPEEDS
        while high / low > 1.0 + PRECISION:
            middle = (low * high) ** 0.5
            if self.good_ratio(self.run(policy, middle), self.slo.ttft_seconds) >= GOAL:
                low = middle
            else:
                high = middle
        return low * self.num_requests / self.seconds


def ideal_hit_ratio(requests: Sequence[SimulatedRequest], tokens_per_block: int, capacity_tokens: int) -> float:
    """Prompt tokens that one cache for all would have held: the least recently used blocks go first."""
    held: OrderedDict[int, None] = OrderedDict()
    hit = total = 0
    for request in requests:
        blocks = request.blocks[: request.prompt_tokens // tokens_per_block]
        count = next((at for at, block in enumerate(blocks) if block not in held), len(blocks))
        hit += min(count * tokens_per_block, request.prompt_tokens - 1)
        total += request.prompt_tokens
        for block in reversed(blocks):
            held[block] = None
            held.move_to_end(block)
        while len(held) * tokens_per_block > capacity_tokens:
            held.popitem(last=False)
    return hit / total


def hit_ratio(requests: Sequence[SimulatedRequest]) -> float:
    """Prompt tokens taken from a cache."""
    return sum(one.cached_tokens for one in requests) / sum(one.prompt_tokens for one in requests)


def simulate(trace: Path, share: float) -> list[Figure]:
    """Goodput of every policy, and the hits at the goodput of affinity."""
    run = Run("prefix_affinity_simulated")
    replay = Replay(trace, share)
    print(
        f"{replay.num_requests} requests, {replay.num_blocks} blocks; a cache of {share:.1%} each; "
        f"TTFT <= {replay.slo.ttft_seconds:.1f} s; ideal hits {replay.ideal_ratio:.2%}"
    )
    goodput: dict[BalancerName, float] = {}
    hits: dict[BalancerName, float] = {}
    for policy in POLICIES:
        goodput[policy] = replay.goodput(policy)
        speed = goodput[policy] * replay.seconds / replay.num_requests
        requests = replay.run(policy, speed)
        hits[policy] = hit_ratio(requests)
        run.note(policy=policy.value, goodput=goodput[policy], speed=speed, hit_ratio=hits[policy])
    affinity, least = BalancerName.PREFIX_AFFINITY, BalancerName.LEAST_LOADED
    figures = [
        Figure(
            what=f"hits of prefix_affinity / of one ideal cache, {REPLICAS} simulated replicas with {share:.4g} each",
            values=[hits[affinity] / replay.ideal_ratio],
            unit="",
            bar=0.9,
            detail=f"{hits[affinity]:.1%} of {replay.ideal_ratio:.1%}; least_loaded {hits[least]:.1%}",
        ),
        Figure(
            what=f"goodput of prefix_affinity / of least_loaded, {REPLICAS} simulated replicas with {share:.4g} each",
            values=[goodput[affinity] / goodput[least]],
            unit="x",
            bar=1.5,
            detail=f"{goodput[affinity]:.2f} against {goodput[least]:.2f} requests/s, "
            f"TTFT ≤ {replay.slo.ttft_seconds:.1f} s",
        ),
    ]
    return run.finish(figures, share=share, ttft_seconds=replay.slo.ttft_seconds, ideal_ratio=replay.ideal_ratio)


def main(arguments: list[str]) -> int:
    """Simulate or measure, and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, help="a Mooncake trace: simulate")
    parser.add_argument("--share", type=float, default=0.25, help="of the trace's blocks that one cache holds")
    parser.add_argument("--real", action="store_true", help="measure two real replicas")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args(arguments)
    if flags.trace is None and not flags.real:
        parser.error("give --trace FILE to simulate, or --real to measure")
    figures: list[Figure] = []
    if flags.trace is not None:
        figures += simulate(flags.trace, flags.share)
    if flags.real:
        figures += measure_real(flags.model, flags.rounds)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
