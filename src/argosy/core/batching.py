"""How many requests one call gets, and how long it waits for more: decisions over numbers, with no clock and no task.

A batch is worth having only if a call with n requests takes less than n calls with one. Whether that is so depends on
the model and the machine, so it is measured. `BatchTuner` keeps the cost per request of each size it has seen (1, 2,
4, … up to the configured one), uses the cheapest, and looks at a neighbour now and then.

Looking costs time, and so does holding a batch open. Both are paid from one account: the seconds saved against calls
with one request each, plus a hundredth of the time spent. What the account cannot pay is not tried. So the sum of all
calls and waits stays within a hundredth of what batch size 1 would have taken, whatever the model is like, and a model
for which batching pays reaches its full size within a few dozen calls.

Source: TorchServe docs/batch_inference_with_ts (a worker holds the first request for `max_batch_delay`); its own
benchmark report, where batch 8 is 30 % slower than batch 1 on MNIST.
"""

from __future__ import annotations

import msgspec

_ALLOWANCE_RATIO = 0.01  # of the time spent: what looking for something better may cost.
_MIN_SAMPLES = 3  # before a size is believed.
_NEWEST_WEIGHT = 0.1  # of a new sample: about the last twenty count.
_CLEARLY_CHEAPER_RATIO = 0.98  # a larger size must save at least a fiftieth, or the smaller one is kept.
_CALLS_UNTIL_STALE = 256  # without a sample, after which a size is looked at again.
_START_CREDIT_REQUESTS = 1.0  # with which the account opens, in requests of a call of their own.
_MAX_CREDIT_REQUESTS = 16.0
_MAX_DEBT_REQUESTS = 4.0
_UNKNOWN_LOSS_RATIO = 0.5  # of a call's expected time: feared before a size was ever seen.
_PEAK_FORGOTTEN_RATIO = 0.02  # of the distance to today's load, per call.


class BatchPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What the next call does. batch_size: the most requests it takes.

    delay_seconds: how long it may be held open. wait_for: requests that end the wait before that; 0 = `batch_size`.
    """

    batch_size: int
    delay_seconds: float = 0.0
    wait_for: int = 0


def closes_in(plan: BatchPlan, num_waiting: int, held_seconds: float) -> float:
    """Seconds for which the batch should stay open if nothing else comes; 0 = it starts now.

    held_seconds: since there was both a request and somebody free to take it.
    """
    if num_waiting >= (plan.wait_for or plan.batch_size):
        return 0.0
    return max(plan.delay_seconds - held_seconds, 0.0)


class _Cost:
    """Seconds per request at one size, newest samples first in weight."""

    __slots__ = ("last_call", "mean_seconds", "samples")

    def __init__(self) -> None:
        self.mean_seconds = 0.0
        self.samples = 0
        self.last_call = 0

    def add(self, seconds: float, call: int) -> None:
        self.samples += 1
        self.last_call = call
        self.mean_seconds += (seconds - self.mean_seconds) * max(1.0 / self.samples, _NEWEST_WEIGHT)


class BatchTuner:
    """The measured side of one model version (or engine): changed only by `finished` and `held`."""

    def __init__(self, batch_size: int, delay_seconds: float) -> None:
        self._max_delay_seconds = delay_seconds
        self._sizes = _sizes_up_to(batch_size)
        self._costs = [_Cost() for _ in self._sizes]
        self._level = 0
        self._calls = 0
        self._account_seconds = 0.0
        self._peak_in_flight = 1.0

    @property
    def batch_size(self) -> int:
        """The size in use now, looking aside."""
        return self._sizes[self._level]

    @property
    def delay_seconds(self) -> float:
        """How long a batch may be held open now: at most what one more request in it saves."""
        if self._level == 0:
            return 0.0
        size = self._sizes[self._level]
        saved_per_request = self._costs[0].mean_seconds - self._costs[self._level].mean_seconds
        return min(self._max_delay_seconds, max(saved_per_request * size / (size - 1), 0.0))

    def plan(self, num_waiting: int, num_in_flight: int) -> BatchPlan:
        """What to do with `num_waiting` requests now. num_in_flight: these and those being answered."""
        probed = self._probe(num_waiting)
        if probed is not None:
            return BatchPlan(batch_size=probed)
        size = self._sizes[self._level]
        delay = self.delay_seconds
        missing = round(self._peak_in_flight) - num_in_flight
        if num_waiting >= size or missing <= 0 or delay <= 0.0 or self._account_seconds < delay:
            return BatchPlan(batch_size=size)
        return BatchPlan(batch_size=size, delay_seconds=delay, wait_for=min(size, num_waiting + missing))

    def held(self, seconds: float) -> None:
        """Somebody free waited so long for a batch to fill."""
        self._pay(-seconds)

    def finished(self, size: int, seconds: float, num_in_flight: int) -> None:
        """A call with `size` requests took so long; num_in_flight as it ended, these included."""
        self._calls += 1
        self._peak_in_flight += (num_in_flight - self._peak_in_flight) * _PEAK_FORGOTTEN_RATIO
        self._peak_in_flight = max(self._peak_in_flight, float(num_in_flight))
        level = min(max(size - 1, 0).bit_length(), len(self._sizes) - 1)
        self._costs[level].add(seconds / size, self._calls)
        single = self._costs[0]
        if level == 0 and single.samples == 1:
            self._account_seconds = _START_CREDIT_REQUESTS * seconds
        saved = size * single.mean_seconds - seconds if level and single.samples else 0.0
        self._pay(_ALLOWANCE_RATIO * seconds + saved)
        self._level = self._cheapest()

    def _pay(self, seconds: float) -> None:
        unit = self._costs[0].mean_seconds
        balance = self._account_seconds + seconds
        self._account_seconds = min(max(balance, -_MAX_DEBT_REQUESTS * unit), _MAX_CREDIT_REQUESTS * unit)

    def _cheapest(self) -> int:
        """The level to use: the cheapest believed one, the smaller of two that hardly differ; 0 while in debt."""
        best = 0
        if self._account_seconds < 0.0 or self._costs[0].samples < _MIN_SAMPLES:
            return best
        for level in range(1, len(self._sizes)):
            cost = self._costs[level]
            limit = self._costs[best].mean_seconds * _CLEARLY_CHEAPER_RATIO
            if cost.samples >= _MIN_SAMPLES and cost.mean_seconds < limit:
                best = level
        return best

    def _probe(self, num_waiting: int) -> int | None:
        """A size worth a look, if enough requests wait for it and the account can pay for it."""
        if self._costs[0].samples < _MIN_SAMPLES:
            return 1
        for level in (self._level + 1, self._level - 1, 0):
            if not 0 <= level < len(self._sizes) or level == self._level or self._sizes[level] > num_waiting:
                continue
            if self._is_worth_a_look(level) and self._feared_loss_seconds(level) <= self._account_seconds:
                return self._sizes[level]
        return None

    def _is_worth_a_look(self, level: int) -> bool:
        cost = self._costs[level]
        return cost.samples < _MIN_SAMPLES or self._calls - cost.last_call >= _CALLS_UNTIL_STALE

    def _feared_loss_seconds(self, level: int) -> float:
        """What one call of that size may lose against the size in use."""
        used = self._costs[self._level].mean_seconds
        cost = self._costs[level]
        if cost.samples:
            return self._sizes[level] * max(cost.mean_seconds - used, 0.0)
        if level >= 2:  # The sizes below it became cheaper and cheaper: so, it is believed, does this one.
            return 0.0
        return self._sizes[level] * used * _UNKNOWN_LOSS_RATIO


def _sizes_up_to(batch_size: int) -> list[int]:
    """1, 2, 4, … and the configured size itself."""
    sizes = [1]
    while sizes[-1] * 2 < batch_size:
        sizes.append(sizes[-1] * 2)
    return [*sizes, batch_size] if batch_size > 1 else sizes
