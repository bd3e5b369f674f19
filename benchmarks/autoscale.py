"""How the autoscaler does against what others run, and against one who knows the future, on a virtual clock.

The bars are held on the Azure conversation trace with prompts and answers a quarter as long and four times as many
requests: as many tokens per second as were recorded, in pieces that a replica on two cores can answer within a second.
The recorded lengths themselves are counted, too, among the requests that meet the SLO on a replica of their own; and
traffic of other kinds, for which nothing was chosen, tells whether the policy is good or only fits that trace.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from argosy.evals.tables import TextTable
from argosy.simulator.arrivals import Scales
from argosy.simulator.report import policy_table, traffic_line
from argosy.simulator.study import PolicyResult, StudyResult, StudySpec, study
from benchmarks.figures import Figure, Run

TARGET = 0.99
AZURE = "azure_llm_2023_conversation.csv"
MOONCAKE = "mooncake_conversation.jsonl.gz"
HPA = ("hpa-cpu", "hpa-queue", "hpa-queue-60s")
POLICIES = ("argosy", *HPA, "kpa", "keda", "static", "oracle")
FEW = ("argosy", "hpa-cpu", "hpa-queue", "static", "oracle")


def studies(traces: Path) -> Mapping[str, StudySpec]:
    """What is simulated once, beside the bars."""
    azure, mooncake = traces / AZURE, traces / MOONCAKE
    return {
        "Azure, as recorded": StudySpec(trace=azure, policies=FEW),
        "Azure, a quarter as long": StudySpec(trace=azure, scales=Scales(length_scale=0.25), policies=FEW),
        "Mooncake, a twentieth as long, 3 times as many": StudySpec(
            trace=mooncake, scales=Scales(length_scale=0.05, rate_scale=3.0), policies=FEW
        ),
        "step, 4 times": StudySpec(
            arrivals="step:rate=6,to=24,at=600,until=1800,seconds=2700,prompt=300,output=60", policies=FEW
        ),
        "bursts": StudySpec(arrivals="poisson:rate=15,seconds=3600,prompt=300,output=60,burstiness=0.2", policies=FEW),
    }


def best_hpa(result: StudyResult) -> PolicyResult:
    """The cheapest of the HPAs that reach the target; if none does, the one that attains most."""
    found = [one for one in result.policies if one.policy in HPA]
    reached = [one for one in found if one.attainment_of_possible >= TARGET]
    if reached:
        return min(reached, key=lambda one: one.replica_hours)
    return max(found, key=lambda one: one.attainment_of_possible)


def named(result: StudyResult, policy: str) -> PolicyResult:
    """One policy's result."""
    return next(one for one in result.policies if one.policy == policy)


def markdown(table: TextTable) -> str:
    """The table for a page."""
    rows = [table.header, ["---", *["--:"] * (len(table.header) - 1)], *table.rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def summary(result: StudyResult) -> dict[str, object]:
    """What is kept of a study: no points, no decisions."""
    policies = [msgspec.to_builtins(msgspec.structs.replace(one, points=[], changes=[])) for one in result.policies]
    return {"traffic": traffic_line(result), "policies": policies}


def main(arguments: list[str]) -> int:
    """Simulate, print the tables, hold the bars; 1 if one is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=Path, required=True, help="directory with the Azure and Mooncake traces")
    parser.add_argument("--seeds", type=int, default=3, help="how often the copies of requests are drawn anew")
    parser.add_argument("--quick", action="store_true", help="only what the bars need")
    flags = parser.parse_args(arguments)
    run = Run("autoscale")
    scales = Scales(length_scale=0.25, rate_scale=4.0)
    ours, saved, over, turns = [], [], [], []
    kept: dict[str, object] = {}
    for seed in range(flags.seeds):
        result = study(StudySpec(trace=flags.traces / AZURE, scales=scales, policies=POLICIES, seed=seed))
        argosy, hpa = named(result, "argosy"), best_hpa(result)
        ours.append(argosy.attainment_of_possible)
        saved.append(1.0 - argosy.replica_hours / hpa.replica_hours)
        over.append(argosy.over_oracle or 0.0)
        run.note(seed=seed, attained=ours[-1], saved=saved[-1], over_oracle=over[-1], hpa=hpa.policy)
        kept[f"Azure, bars, seed {seed}"] = summary(result)
        if not seed:
            print(f"\n{traffic_line(result)}\n\n{markdown(policy_table(result))}\n", flush=True)
    for seed in range(flags.seeds):
        arrivals = "poisson:rate=20,seconds=3600,prompt=300,output=60"
        flat = study(StudySpec(arrivals=arrivals, policies=("argosy",), seed=seed))
        turns.append(flat.policies[0].reversals)
        run.note(flat_poisson=seed, attained=flat.policies[0].attainment, turns=turns[-1])
    if not flags.quick:
        for name, spec in studies(flags.traces).items():
            result = study(spec)
            kept[name] = summary(result)
            print(f"\n{name}. {traffic_line(result)}\n\n{markdown(policy_table(result))}\n", flush=True)
    figures = [
        Figure(what="requests within the SLO", values=ours, unit="", bar=TARGET),
        Figure(what="fewer replica-hours than the best HPA", values=saved, unit="", bar=0.25),
        Figure(what="replica-hours over the oracle's", values=over, unit="×", bar=1.25, is_floor=False),
        Figure(what="turns in ten minutes of flat Poisson", values=turns, unit="", bar=2.0, is_floor=False),
    ]
    run.finish(figures, studies=kept)
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
