"""`python -m benchmarks NAME …`: run one benchmark; `own` runs all that need no rival, `list` names them."""

from __future__ import annotations

import importlib
import sys

OWN = (
    "help_time",
    "chat_path_lines",
    "startup",
    "prefix",
    "memory",
    "overhead",
    "http_vs_engine",
    "scale_up",
    "reconcile_scale",
    "store",
    "cache_hit",
    "torchserve_batching",
    "torchserve_engine",
)
RIVALS = (
    *("versus_llamacpp", "versus_vllm", "gateway_overhead"),
    *("seq2seq", "torchserve_calls", "torchserve_echo", "torchserve_t5", "torchserve_start", "torchserve_memory"),
    "torchserve_locust",
)
LONG = ("tuning", "soak", "step_times", "prefix_affinity", "rolling", "chaos", "cloud_soak", "sim_vs_real", "autoscale")


def main(arguments: list[str]) -> int:
    """Run what is asked; 1 if any bar is missed, 2 for an unknown name."""
    names = list(OWN) if arguments[:1] == ["own"] else arguments[:1]
    if not names or names[0] not in OWN + RIVALS + LONG:
        print(__doc__)
        print("own:    " + " ".join(OWN) + "\nrivals: " + " ".join(RIVALS) + "\nlong:   " + " ".join(LONG))
        return 0 if arguments[:1] == ["list"] else 2
    missed = []
    for name in names:
        print(f"== {name}", flush=True)
        if importlib.import_module(f"benchmarks.{name}").main(arguments[1:]):
            missed.append(name)
    if missed:
        print(f"missed: {', '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
