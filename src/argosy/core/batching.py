"""How many requests one call gets, and how long it waits for more: decisions over numbers, with no clock and no task.

A batch is worth having only if a call with n requests takes less than n calls with one. Whether that is so depends on
the model and the machine, so it is measured. `BatchTuner` keeps the cost per request of each size it has seen (1, 2,
4, … up to the configured one), uses the cheapest, and looks at a neighbour now and then.

Looking costs time, and so does holding a batch open. Both are paid from one account: the seconds saved against calls
with one request each, plus less than a hundredth of the time spent. What the account cannot pay is not tried. So the
sum of all calls and waits stays within two hundredths of what batch size 1 would have taken, whatever the model is
like, and a model for which batching pays reaches its full size within a few dozen calls.

A batch is held open only while clients that were there a moment ago have yet to come back, and no longer than one more
request in it saves.

Source: TorchServe docs/batch_inference_with_ts (a worker holds the first request for `max_batch_delay`); its own
benchmark report, where batch 8 is 30 % slower than batch 1 on MNIST.
"""

from __future__ import annotations

import math

import msgspec

_ALLOWANCE_RATIO = 0.0075  # of the time spent: what looking for something better may cost.
_MIN_SAMPLES = 3  # before a size is believed.
_NEWEST_WEIGHT = 0.02  # of a new sample: about the last hundred count.
_CLEARLY_CHEAPER_RATIO = 0.98  # a larger size must save at least a fiftieth, or the smaller one is kept.
_CALLS_UNTIL_STALE = 256  # without a sample, after which a size is looked at again as if for the first time.
_MIN_CALLS_BETWEEN_SINGLES = 8
_REFERENCE_LOSS_RATIO = 0.005  # of the throughput: what looking at single requests may cost while batching pays.
_START_CREDIT_REQUESTS = 1.0  # with which the account opens, in requests of a call of their own.
_MAX_CREDIT_REQUESTS = 16.0
_MAX_DEBT_REQUESTS = 2.0
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
    """Seconds per request at one size: a running mean and what it may be off by, newest samples first in weight."""

    __slots__ = ("last_call", "mean_seconds", "samples", "variance")

    def __init__(self) -> None:
        self.mean_seconds = 0.0
        self.variance = 0.0
        self.samples = 0
        self.last_call = 0

    @property
    def error_seconds(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.variance / max(min(self.samples, 2.0 / _NEWEST_WEIGHT), 1.0))

    def add(self, seconds: float, call: int) -> None:
        self.samples += 1
        self.last_call = call
        weight = max(1.0 / self.samples, _NEWEST_WEIGHT)
        difference = seconds - self.mean_seconds
        self.mean_seconds += difference * weight
        self.variance = (1.0 - weight) * (self.variance + difference * difference * weight)


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
        self._patience_seconds = 0.0

    @property
    def batch_size(self) -> int:
        """The size in use now, looking aside."""
        return self._sizes[self._level]

    @property
    def delay_seconds(self) -> float:
        """How long a batch may be held open now: at most what one more request in it saves."""
        return min(self._max_delay_seconds, self._saved_by_one_more_seconds())

    def plan(self, num_waiting: int, num_in_flight: int, num_idle: int = 0) -> BatchPlan:
        """What to do with `num_waiting` requests now.

        num_in_flight: these and those being answered. num_idle: others that are free to take some of them.
        """
        if num_idle:
            return BatchPlan(batch_size=min(self.batch_size, -(-num_waiting // (num_idle + 1))))
        expected = max(round(self._peak_in_flight) - num_in_flight, 0)
        level = self._level_to_look_at(num_waiting + expected)
        size = self._sizes[self._level if level is None else level]
        if num_waiting >= size or not expected:
            return BatchPlan(batch_size=size)
        delay = self.delay_seconds if self._level else self._first_delay_seconds(level)
        if delay <= 0.0 or self._account_seconds < delay or self._patience_seconds < delay * num_waiting:
            return BatchPlan(batch_size=size)
        return BatchPlan(batch_size=size, delay_seconds=delay, wait_for=min(size, num_waiting + expected))

    def held(self, seconds: float, num_before: int, num_after: int) -> None:
        """Somebody free waited so long for a batch to fill, which grew from `num_before` to `num_after` requests.

        Those that waited pay with their time, and with that of a longer call; each that came saves a call's fixed part.
        """
        self._pay(-seconds)
        joined = max(num_after - num_before, 0)
        fixed = self._saved_by_one_more_seconds()
        each = fixed - num_before * max(self._costs[0].mean_seconds - fixed, 0.0)
        self._wait_patiently(joined * each - num_before * seconds)

    def finished(self, size: int, seconds: float, num_in_flight: int) -> None:
        """A call with `size` requests took so long; num_in_flight as it ended, these included."""
        self._calls += 1
        self._peak_in_flight += (num_in_flight - self._peak_in_flight) * _PEAK_FORGOTTEN_RATIO
        self._peak_in_flight = max(self._peak_in_flight, float(num_in_flight))
        level = min(max(size - 1, 0).bit_length(), len(self._sizes) - 1)
        cost, single = self._costs[level], self._costs[0]
        if level and self._calls - cost.last_call > _CALLS_UNTIL_STALE:
            cost.samples = 0
        cost.add(seconds / size, self._calls)
        if level == 0 and single.samples == 1:
            self._account_seconds = _START_CREDIT_REQUESTS * seconds
        saved = size * single.mean_seconds - seconds if level and single.samples else 0.0
        self._pay(_ALLOWANCE_RATIO * seconds + saved)
        self._wait_patiently(_ALLOWANCE_RATIO * seconds)
        previous, self._level = self._level, self._cheapest()
        if previous and not self._level:
            single.samples = 0  # What was held for the cost of a single request may be why batching seemed to pay.

    def _pay(self, seconds: float) -> None:
        unit = self._costs[0].mean_seconds
        balance = self._account_seconds + seconds
        self._account_seconds = min(max(balance, -_MAX_DEBT_REQUESTS * unit), _MAX_CREDIT_REQUESTS * unit)

    def _wait_patiently(self, seconds: float) -> None:
        unit = self._costs[0].mean_seconds
        balance = self._patience_seconds + seconds
        self._patience_seconds = min(max(balance, -_MAX_DEBT_REQUESTS * unit), _MAX_CREDIT_REQUESTS * unit)

    def _saved_by_one_more_seconds(self) -> float:
        """The part of a call that does not depend on its size, at the size in use; 0 at single requests."""
        if self._level == 0:
            return 0.0
        size = self._sizes[self._level]
        saved_per_request = self._costs[0].mean_seconds - self._costs[self._level].mean_seconds
        return max(saved_per_request * size / (size - 1), 0.0)

    def _cheapest(self) -> int:
        """The level to use: the cheapest by more than the error of its mean; 0 while in debt."""
        best = 0
        if self._account_seconds < 0.0 or self._costs[0].samples < _MIN_SAMPLES:
            return best
        for level in range(1, len(self._sizes)):
            cost, other = self._costs[level], self._costs[best]
            limit = (other.mean_seconds - other.error_seconds) * _CLEARLY_CHEAPER_RATIO
            if cost.samples >= _MIN_SAMPLES and cost.mean_seconds + cost.error_seconds < limit:
                best = level
        return best

    def _level_to_look_at(self, num_expected: int) -> int | None:
        """A level worth a look, if enough requests are there or expected, and the account can pay for it."""
        if self._costs[0].samples < _MIN_SAMPLES:
            return 0
        if self._level and self._calls - self._costs[0].last_call >= self._calls_between_singles():
            return 0
        for level in (self._level + 1, self._level - 1):
            is_possible = 0 < level < len(self._sizes) and self._sizes[level] <= num_expected
            if is_possible and self._is_unknown(level) and self._feared_loss_seconds(level) <= self._account_seconds:
                return level
        return None

    def _is_unknown(self, level: int) -> bool:
        """Whether it was not looked at enough, or long ago, or may turn out the cheapest."""
        cost, used = self._costs[level], self._costs[self._level]
        if cost.samples < _MIN_SAMPLES or self._calls - cost.last_call >= _CALLS_UNTIL_STALE:
            return True
        limit = (used.mean_seconds + used.error_seconds) * _CLEARLY_CHEAPER_RATIO
        return cost.mean_seconds - cost.error_seconds < limit

    def _calls_between_singles(self) -> float:
        """Single requests are the measure of everything: the closer the race, the oftener they are looked at."""
        used = self._costs[self._level]
        gain_ratio = self._costs[0].mean_seconds / max(used.mean_seconds, 1e-9)
        calls = (gain_ratio - 1.0) / (_REFERENCE_LOSS_RATIO * self._sizes[self._level])
        return min(max(calls, _MIN_CALLS_BETWEEN_SINGLES), _CALLS_UNTIL_STALE)

    def _first_delay_seconds(self, level: int | None) -> float:
        """How long a first look at two requests in a call may wait for the second."""
        return 0.0 if not level else min(self._max_delay_seconds, self._costs[0].mean_seconds * _UNKNOWN_LOSS_RATIO)

    def _feared_loss_seconds(self, level: int) -> float:
        """What one call of that size may lose against the size in use."""
        used = self._costs[self._level].mean_seconds
        cost = self._costs[level]
        if cost.samples:
            return self._sizes[level] * max(cost.mean_seconds + cost.error_seconds - used, 0.0)
        if level >= 2:  # The sizes below it became cheaper and cheaper: so, it is believed, does this one.
            return 0.0
        return self._sizes[level] * used * _UNKNOWN_LOSS_RATIO


def _sizes_up_to(batch_size: int) -> list[int]:
    """1, 2, 4, … and the configured size itself."""
    sizes = [1]
    while sizes[-1] * 2 < batch_size:
        sizes.append(sizes[-1] * 2)
    return [*sizes, batch_size] if batch_size > 1 else sizes
