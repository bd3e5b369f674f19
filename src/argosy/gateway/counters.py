"""What is counted of each revision while requests pass: the numbers of a report, in a form that is cheap to add to."""

from __future__ import annotations

from bisect import bisect_left

from argosy.core.load_report import LATENCY_BOUNDS_SECONDS, RevisionTraffic
from argosy.core.scaling import Slo

_BUCKETS = len(LATENCY_BOUNDS_SECONDS) + 1


class RevisionCounters:
    """One revision's counts since the gateway started; those of shadow copies are kept apart."""

    def __init__(self, revision: str, *, is_shadow: bool = False) -> None:
        self.revision = revision
        self.is_shadow = is_shadow
        self.requests = self.errors = self.completions = self.slo_good = 0
        self.in_flight = self.started = 0
        self.queue_seconds = self.ttft_seconds = self.tpot_seconds = 0.0
        self.prompt_tokens = self.generation_tokens = 0
        self.ttft_counts = [0] * _BUCKETS
        self.tpot_counts = [0] * _BUCKETS
        self._idle_seconds: dict[int, float] = {}

    def first_byte(self, seconds: float, prompt_bytes: int, *, was_idle: bool) -> None:
        """A streamed answer began, `seconds` after its request came."""
        self.ttft_counts[bisect_left(LATENCY_BOUNDS_SECONDS, seconds)] += 1
        self.ttft_seconds += seconds
        self.started += 1
        size = prompt_bytes.bit_length()
        if was_idle:
            self._idle_seconds[size] = min(seconds, self._idle_seconds.get(size, seconds))
        self.queue_seconds += max(0.0, seconds - self._service_seconds(size))

    def finished(self, ttft_seconds: float, tpot_seconds: float | None, slo: Slo) -> None:
        """A streamed answer ended as it should. tpot_seconds: None if it had fewer than two tokens."""
        self.completions += 1
        if tpot_seconds is not None:
            self.tpot_counts[bisect_left(LATENCY_BOUNDS_SECONDS, tpot_seconds)] += 1
            self.tpot_seconds += tpot_seconds
        if ttft_seconds <= slo.ttft_seconds and (tpot_seconds or 0.0) <= slo.tpot_seconds:
            self.slo_good += 1

    def finished_whole(self, seconds: float, tokens: int, slo: Slo) -> None:
        """An answer in one piece ended. When its first token came is not known, so it is held to the sum."""
        self.completions += 1
        self.started += 1
        if seconds <= slo.ttft_seconds + slo.tpot_seconds * max(0, tokens - 1):
            self.slo_good += 1

    def failed(self) -> None:
        """A request ended in an error that was not its caller's."""
        self.completions += 1
        self.errors += 1

    def report(self) -> RevisionTraffic:
        """The counts now."""
        return RevisionTraffic(
            revision=self.revision,
            is_shadow=self.is_shadow,
            requests=self.requests,
            errors=self.errors,
            completions=self.completions,
            slo_good=self.slo_good,
            in_flight=self.in_flight,
            started=self.started,
            queue_seconds=self.queue_seconds,
            prompt_tokens=self.prompt_tokens,
            generation_tokens=self.generation_tokens,
            ttft_counts=tuple(self.ttft_counts),
            tpot_counts=tuple(self.tpot_counts),
            ttft_seconds=self.ttft_seconds,
            tpot_seconds=self.tpot_seconds,
        )

    def _service_seconds(self, size: int) -> float:
        """What a prompt of this size, or the next smaller one known, takes on an idle replica; 0 if none is known."""
        known = [known_size for known_size in self._idle_seconds if known_size <= size]
        return self._idle_seconds[max(known)] if known else 0.0
