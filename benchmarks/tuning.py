"""What the knobs of the openvino engine do: output tokens per second of the engine, one setting changed at a time.

Every setting has an engine of its own, over the same prepared weights; rounds go through all settings in turn, so a
slow minute of the machine hits each. The ratio of each to the defaults, round by round, is the figure.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from contextlib import ExitStack

import msgspec

from benchmarks.engine_loop import EngineProcess
from benchmarks.figures import Figure, Run

NEW_TOKENS = 64
PROMPT_TOKENS = 64
DEFAULTS = "defaults"
SETTINGS: Mapping[str, Mapping[str, object]] = {
    DEFAULTS: {},
    "one thread": {"num_threads": 1},
    "KV cache f16 instead of u8": {"engine_args": {"kv_cache_precision": "f16"}},
    "256 tokens a step instead of 512": {"max_num_batched_tokens": 256},
    "2,048 tokens a step": {"max_num_batched_tokens": 2048},
    "no dynamic quantisation of activations": {"engine_args": {"dynamic_quantization_group_size": 0}},
    "dynamic quantisation in groups of 128": {"engine_args": {"dynamic_quantization_group_size": 128}},
    "no prefix cache": {"enable_prefix_caching": False},
}


def prompts(count: int, seed: int) -> list[list[int]]:
    """Prompts that share no prefix: ids of a fixed sequence, far from the control tokens."""
    return [
        [100 + (seed * 7919 + row * 104_729 + column * 31) % 40_000 for column in range(PROMPT_TOKENS)]
        for row in range(count)
    ]


def measure(child: EngineProcess, streams: int, seed: int) -> float:
    """Output tokens per second of one wave."""
    outcome = child.run(prompts(streams, seed), NEW_TOKENS)
    return outcome.tokens / outcome.seconds


def main(arguments: list[str]) -> int:
    """Measure and report; there is no bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args(arguments)
    run = Run("tuning")
    figures = []
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(EngineProcess(flags.model, "engine", msgspec.json.encode(settings).decode()))
            for name, settings in SETTINGS.items()
        }
        for streams in flags.streams:
            for child in children.values():
                measure(child, streams, 900)  # warm-up, thrown away
            ratios: dict[str, list[float]] = {name: [] for name in SETTINGS if name != DEFAULTS}
            for number in range(flags.rounds):
                rates = {name: measure(child, streams, number) for name, child in children.items()}
                run.note(streams=streams, round=number, **rates)
                for name, values in ratios.items():
                    values.append(rates[name] / rates[DEFAULTS])
            figures += [
                Figure(what=f"{name}, {streams} streams", values=values, unit="×") for name, values in ratios.items()
            ]
    run.finish(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
