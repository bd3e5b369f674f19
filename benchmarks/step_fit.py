"""Six costs from measured steps: nonnegative least squares on the relative error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy
import numpy.typing

from argosy.simulator.step_times import StepCosts
from benchmarks.step_loop import Step

_Array = numpy.typing.NDArray[numpy.float64]


def row(step: Step) -> list[float]:
    """What a step carries, in the order of StepCosts' fields."""
    return [
        1.0,
        float(step.prompt_tokens),
        float(step.prompt_context_tokens),
        float(step.num_sequences),
        float(step.context_tokens),
        float(step.is_size_new),
    ]


def fit(steps: Sequence[Step]) -> StepCosts:
    """The costs, none below zero, that miss the measured seconds least, each step's miss relative to its time."""
    rows = numpy.array([row(step) for step in steps])
    seconds = numpy.array([step.seconds for step in steps])
    scale = rows.max(axis=0)
    found = nonnegative_least_squares(rows / scale / seconds[:, None], numpy.ones(len(steps))) / scale
    return StepCosts(
        **{name: float(f"{cost:.4g}") for name, cost in zip(StepCosts.__struct_fields__, found, strict=True)}
    )


def nonnegative_least_squares(matrix: _Array, target: _Array) -> _Array:
    """x >= 0 that minimises |matrix x - target|. Source: Lawson and Hanson, Solving Least Squares Problems, ch. 23."""
    size = matrix.shape[1]
    free = numpy.zeros(size, dtype=bool)
    x = numpy.zeros(size)
    gradient = matrix.T @ (target - matrix @ x)
    while (gradient[~free] > 1e-9).any():
        free[numpy.argmax(numpy.where(free, -numpy.inf, gradient))] = True
        while True:
            trial = numpy.zeros(size)
            trial[free] = numpy.linalg.lstsq(matrix[:, free], target, rcond=None)[0]
            below = free & (trial <= 0)
            if not below.any():
                break
            shrink = numpy.min(x[below] / (x[below] - trial[below]))
            x = x + shrink * (trial - x)
            free &= x > 1e-12
        x = trial
        gradient = matrix.T @ (target - matrix @ x)
    return x
