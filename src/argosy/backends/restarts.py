"""When a replica that ended is started again, and when that has become a crash loop. Pure.

The first crash is answered at once: most are accidents, and users wait. Each further one without a calm stretch in
between doubles the wait, so that a replica that cannot run does not take the machine from those that can.
"""

from __future__ import annotations

import msgspec


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Waits between the end of a replica and its next start.

    first_seconds: after the first crash. base_seconds: after the second; doubled for each further one, up to
    max_seconds. jitter_ratio: the share of a wait that is left to chance, so that many do not start at once.
    calm_seconds: ready for so long, earlier crashes are forgotten. loop_after: so many in a row are a crash loop.
    Source: the kubelet's CrashLoopBackOff (doubling, capped), with shorter waits for one machine.
    """

    first_seconds: float = 0.1
    base_seconds: float = 1.0
    max_seconds: float = 60.0
    jitter_ratio: float = 0.2
    calm_seconds: float = 60.0
    loop_after: int = 3


DEFAULT_RESTARTS = RestartPolicy()


def restart_delay_seconds(policy: RestartPolicy, crashes: int, chance: float) -> float:
    """How long to wait after the `crashes`-th crash in a row (1 = the first). chance: 0 to 1, from a dice."""
    if crashes <= 1:
        return policy.first_seconds
    # The exponent is bounded: 2.0 ** 1100 is no float any more.
    plain = min(policy.max_seconds, policy.base_seconds * 2.0 ** min(crashes - 2, 60))
    return plain * (1.0 - policy.jitter_ratio * chance)


def is_crash_loop(policy: RestartPolicy, crashes: int) -> bool:
    """Whether so many crashes in a row are no accident any more."""
    return crashes >= policy.loop_after


def crashes_after(policy: RestartPolicy, crashes: int, ready_seconds: float) -> int:
    """The count of crashes in a row after one more, which came when the replica had been ready for so long."""
    return 1 if ready_seconds >= policy.calm_seconds else crashes + 1
