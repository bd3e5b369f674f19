"""The scalers that a simulation can run: the controller's own `desired_replicas`, and the baselines with their scrapes.

Each keeps its memory and hands a pure function what that one would see in life.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from argosy.control.autoscale import desired_replicas
from argosy.control.scaling_history import ScalingHistory
from argosy.core.scaling import ScalingPolicy
from argosy.simulator.baselines import (
    HpaHistory,
    HpaSettings,
    KpaHistory,
    KpaSettings,
    hpa_replicas,
    hpa_total,
    hpa_utilisation,
    kpa_replicas,
)
from argosy.simulator.simulation import Seen

HPA_SYNC_SECONDS = 15.0
KPA_TICK_SECONDS = 2.0
# The tutorial's averageValue of ts_queue_latency_microseconds: 30,000 µs of new waiting per second and pod.
QUEUE_LATENCY_TARGET = 0.03
CPU_TARGET_RATIO = 0.8
WAITING_TARGET = 5.0


class ArgosyScaler:
    """The decision that production takes."""

    def __init__(self, policy: ScalingPolicy, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self._policy = policy
        self._history = ScalingHistory()

    def decide(self, seen: Seen) -> tuple[int, str]:
        """As the control loop would."""
        outcome = desired_replicas(self._policy, seen.sample, self._history, seen.sample.now)
        self._history = outcome.history
        return outcome.decision.replicas, outcome.decision.message


class StaticScaler:
    """A fixed number."""

    interval_seconds = 60.0

    def __init__(self, replicas: int) -> None:
        self._replicas = replicas

    def decide(self, seen: Seen) -> tuple[int, str]:
        """Always the same."""
        return self._replicas, "static"


class ScheduleScaler:
    """Replicas by a timetable: (from when, how many), the first entry at 0."""

    def __init__(self, schedule: Sequence[tuple[float, int]], interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self._schedule = deque(schedule)
        self._replicas = schedule[0][1]

    def decide(self, seen: Seen) -> tuple[int, str]:
        """What stands in the timetable for this moment."""
        while self._schedule and self._schedule[0][0] <= seen.sample.now + 1e-6:
            self._replicas = self._schedule.popleft()[1]
        return self._replicas, "timetable"


class CpuHpaScaler:
    """An HPA on the processor's use, averaged over the metrics server's last 15 seconds."""

    interval_seconds = HPA_SYNC_SECONDS

    def __init__(self, settings: HpaSettings, target_ratio: float = CPU_TARGET_RATIO) -> None:
        self._settings = settings
        self._target = target_ratio
        self._history = HpaHistory()

    def decide(self, seen: Seen) -> tuple[int, str]:
        """As kube-controller-manager would."""
        sample = seen.sample
        recommended = hpa_utilisation(
            seen.cpu_usage_ratio,
            self._target,
            ready=sample.ready_replicas,
            unready=sample.starting_replicas,
            tolerance=self._settings.tolerance,
        )
        current = sample.ready_replicas + sample.starting_replicas
        wanted, self._history = hpa_replicas(self._settings, recommended, current, self._history, sample.now)
        return wanted, f"CPU {seen.cpu_usage_ratio:.0%}, target {self._target:.0%}"


class TotalHpaScaler:
    """An HPA on a sum over all replicas, scraped every so often: queue latency per second, or requests waiting."""

    interval_seconds = HPA_SYNC_SECONDS

    def __init__(self, settings: HpaSettings, target: float, *, scrape_seconds: float, is_rate: bool) -> None:
        self._settings = settings
        self._target = target
        self._scrape_seconds = scrape_seconds
        self._is_rate = is_rate
        self._history = HpaHistory()
        self._waited_seconds = 0.0
        self._scraped_at = 0.0
        self._value = 0.0

    def decide(self, seen: Seen) -> tuple[int, str]:
        """As kube-controller-manager would, from what was scraped last."""
        sample = seen.sample
        self._waited_seconds += sample.queue_seconds
        if sample.now >= self._scraped_at + self._scrape_seconds - 1e-6:
            waiting = sample.num_requests_waiting + sample.num_requests_held
            self._value = self._waited_seconds / (sample.now - self._scraped_at) if self._is_rate else waiting
            self._waited_seconds, self._scraped_at = 0.0, sample.now
        current = sample.ready_replicas + sample.starting_replicas
        recommended = hpa_total(self._value, self._target, current=current, tolerance=self._settings.tolerance)
        wanted, self._history = hpa_replicas(self._settings, recommended, current, self._history, sample.now)
        return wanted, f"{self._value:.3g} in all, target {self._target:g} per replica"


class KpaScaler:
    """Knative's autoscaler."""

    interval_seconds = KPA_TICK_SECONDS

    def __init__(self, settings: KpaSettings) -> None:
        self._settings = settings
        self._history = KpaHistory()
        self._seen: deque[tuple[float, float]] = deque()

    def decide(self, seen: Seen) -> tuple[int, str]:
        """One tick."""
        sample = seen.sample
        present = sample.num_requests_running + sample.num_requests_waiting + sample.num_requests_held
        self._seen.append((sample.now, float(present)))
        while self._seen[0][0] <= sample.now - self._settings.stable_window_seconds:
            self._seen.popleft()
        stable = _mean([value for _, value in self._seen])
        short = sample.now - self._settings.panic_window_seconds
        panic = _mean([value for at, value in self._seen if at > short])
        wanted, self._history = kpa_replicas(
            self._settings, stable, panic, sample.ready_replicas, self._history, sample.now
        )
        return wanted, f"{stable:.1f} in flight, target {self._settings.target:g} per replica"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
