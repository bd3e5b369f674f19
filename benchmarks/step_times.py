"""How long a step of the engine takes by what it carries, and the profile for the simulator that says it again.

Every round steps the same requests in the same order: prompts alone, prompts whose beginning is cached, many short
prompts, growing batches of answers at three lengths, prompts among answers. A step's seconds are the lower quartile
over the rounds: whatever else runs on the machine only ever adds. The costs are fitted to these; traffic of random
lengths, which the fit never sees, tells what they are worth.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import median, quantiles

import msgspec

from argosy.simulator.step_times import StepTimes, step_seconds
from benchmarks.figures import RESULTS, Figure, Run, machine_facts
from benchmarks.step_fit import fit
from benchmarks.step_loop import Step, StepLoop

PROMPT_LENGTHS = (8, 32, 64, 128, 256, 512, 1024, 2048, 4096, 7500)
HIT_LENGTHS = (512, 1024, 2048, 4096, 7500)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
LARGEST_BATCH = {128: 64, 512: 64, 2048: 16}  # at a context; more would not fit into the KV cache
ANSWER_STEPS = 6
MIXED_BATCHES = (4, 16, 48)
MIXED_PROMPTS = (16, 64, 200, 430)
TRAFFIC_STEPS = 150
HELD_OUT = ("traffic", "sampled")


class Prompts:
    """Token ids that share no beginning, far from the control tokens."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def ids(self, length: int) -> list[int]:
        """A new prompt."""
        return self._random.choices(range(100, 40_000), k=length)


def prompts_alone(loop: StepLoop, prompts: Prompts) -> None:
    """A cold prompt, the same with a beginning that is cached, and several in one step."""
    for length in PROMPT_LENGTHS:
        loop.submit(prompts.ids(length))
        loop.prefill("prompt", f"{length} tokens")
        loop.clear()
    for length in HIT_LENGTHS:
        known = prompts.ids(length)
        loop.submit(known)
        loop.prefill("prompt", f"{length} tokens")
        loop.clear()
        loop.submit(known + prompts.ids(64), cached=length)
        loop.prefill("cached", f"64 tokens after {length} cached")
        loop.clear()
    for count, length in ((2, 256), (8, 64), (32, 16), (8, 16)):
        for _ in range(count):
            loop.submit(prompts.ids(length))
        loop.prefill("prompts", f"{count} of {length} tokens in a step")
        loop.clear()


def growing_batch(loop: StepLoop, prompts: Prompts, context: int) -> None:
    """Answers at about `context` tokens, ever more of them, and prompts among them."""
    for size in BATCHES:
        if size > LARGEST_BATCH[context]:
            break
        while loop.num_open < size:
            loop.submit(prompts.ids(context))
        loop.prefill("filling", f"prompts of {context} among answers")
        for _ in range(ANSWER_STEPS):
            loop.step("answers", f"{size} at {context} tokens")
        if size in MIXED_BATCHES:
            for length in MIXED_PROMPTS:
                loop.submit(prompts.ids(length), max_tokens=2)
                loop.prefill("mixed", f"{length} prompt tokens, {size} answers at {context}")
                loop.step("ending", f"last token of one of {size + 1} answers at {context}")
    loop.clear()


def sampled_answers(loop: StepLoop, prompts: Prompts) -> None:
    """A batch whose tokens are drawn, not chosen; outside the fit."""
    for _ in range(32):
        loop.submit(prompts.ids(128), temperature=1.0)
    while loop.is_prefilling:
        loop.step("sampled", "prompts")
    for _ in range(2 * ANSWER_STEPS):
        loop.step("sampled", "32 at 128 tokens")
    loop.clear()


def traffic(loop: StepLoop, prompts: Prompts) -> None:
    """Requests of random lengths that come and end; outside the fit. The same in every round."""
    chance = random.Random(7)
    for _ in range(TRAFFIC_STEPS):
        while loop.num_open < 2 or (chance.random() < 0.35 and loop.num_open < 40):
            length = min(int(chance.lognormvariate(5.3, 1.0)) + 1, 3000)
            loop.submit(prompts.ids(length), max_tokens=2 + int(chance.expovariate(1 / 40)))
        loop.step("traffic", "random lengths")
    loop.clear()


def measure(loop: StepLoop, run: Run, rounds: int) -> list[Step]:
    """The steps of a round, each with the lower quartile of its seconds over all rounds."""
    prompts = Prompts(1)
    for _ in range(loop.kv_cache_tokens // 1024 - 4):  # touches the whole KV cache once
        loop.submit(prompts.ids(1024))
    loop.prefill("warm-up", "")
    loop.clear()
    taken = []
    for number in range(rounds):
        loop.steps = []
        prompts_alone(loop, prompts)
        for context in LARGEST_BATCH:
            growing_batch(loop, prompts, context)
        sampled_answers(loop, prompts)
        traffic(loop, prompts)
        taken.append(loop.steps)
        run.note(round=number, steps=len(loop.steps), seconds=sum(step.seconds for step in loop.steps))
    return [quietest(same) for same in zip(*taken, strict=True)]


def quietest(same: Sequence[Step]) -> Step:
    """The step with the lower quartile of its seconds in all rounds."""
    return msgspec.structs.replace(same[0], seconds=sorted(step.seconds for step in same)[(len(same) - 1) // 4])


def fitted_seconds(profile: StepTimes, step: Step) -> float:
    """What the profile says of the step."""
    return step_seconds(
        profile,
        prompt_tokens=step.prompt_tokens,
        prompt_context_tokens=step.prompt_context_tokens,
        num_sequences=step.num_sequences,
        context_tokens=step.context_tokens,
        is_size_new=step.is_size_new,
    )


def errors(profile: StepTimes, steps: Sequence[Step]) -> list[float]:
    """Of each step, how far the profile misses, in percent."""
    return [abs(fitted_seconds(profile, step) / step.seconds - 1) * 100 for step in steps]


def table(profile: StepTimes, steps: Sequence[Step]) -> list[str]:
    """Markdown: the steps of each case together, measured and fitted."""
    cases: dict[tuple[str, str], list[Step]] = {}
    for step in steps:
        cases.setdefault((step.kind, step.case), []).append(step)
    rows = ["| steps of | case | steps | measured, ms a step | fitted | error |", "|---|---|---|---|---|---|"]
    for (kind, case), same in cases.items():
        seconds = sum(step.seconds for step in same)
        said = sum(fitted_seconds(profile, step) for step in same)
        each = 1000 / len(same)
        cells = f"{seconds * each:.1f} | {said * each:.1f} | {said / seconds - 1:+.1%}"
        rows.append(f"| {kind} | {case} | {len(same)} | {cells} |")
    return rows


def start_seconds() -> float:
    """From the last run of the benchmark `startup`."""
    try:
        figures = msgspec.json.decode((RESULTS / "startup.json").read_bytes())["figures"]
    except FileNotFoundError:
        raise SystemExit("results/startup.json is not there: python -m benchmarks startup") from None
    return round(float(figures[0]["median"]), 1)


def profile_of(name: str, model: str, loop: StepLoop, steps: Sequence[Step]) -> StepTimes:
    """The profile these steps say."""
    facts = machine_facts()
    return StepTimes(
        name=name,
        description=f"{model} on the openvino engine, greedy; {facts['processor']}, {facts['cores']} virtual cores",
        measured_at=date.today(),  # noqa: DTZ011  # the day where it was measured
        coefficients=fit([step for step in steps if step.kind not in HELD_OUT]),
        max_num_seqs=loop.max_num_seqs,
        max_num_batched_tokens=loop.max_num_batched_tokens,
        kv_cache_tokens=loop.kv_cache_tokens,
        max_model_len=loop.max_model_len,
        start_seconds=start_seconds(),
        warm_spare_seconds=None,
    )


def main(arguments: list[str]) -> int:
    """Measure, fit and report; 1 if the fit is worse than its bars."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", type=Path, help="write the profile to this file; its stem is its name")
    flags = parser.parse_args(arguments)
    run = Run("step_times")
    loop = StepLoop(flags.model)
    steps = measure(loop, run, flags.rounds)
    name = flags.profile.stem if flags.profile else flags.model
    profile = profile_of(name, flags.model, loop, steps)
    print("\n".join(table(profile, steps)))
    figures = []
    for what, chosen in (
        ("a step the fit has seen", [step for step in steps if step.kind not in HELD_OUT]),
        ("a step of random traffic", [step for step in steps if step.kind == "traffic"]),
    ):
        missed = errors(profile, chosen)
        figures += [
            Figure(what=f"{what}: median error", values=[median(missed)], unit=" %", bar=5.0, is_floor=False),
            Figure(
                what=f"{what}: 90 % within", values=[quantiles(missed, n=10)[-1]], unit=" %", bar=12.0, is_floor=False
            ),
        ]
    run.finish(figures, profile=msgspec.to_builtins(profile), steps=msgspec.to_builtins(steps))
    if flags.profile:
        flags.profile.write_bytes(msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")
        print(f"wrote {flags.profile}")
    return 0 if all(figure.is_met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
