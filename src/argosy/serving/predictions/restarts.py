"""When a worker that failed is started again: a decision over values.

The waits are TorchServe's. They begin anew with the first call that succeeds, so a worker that dies on one request
after hours of work is back at once, and one that cannot start is tried less and less often.

Source: WorkerThread.java of TorchServe 0.12, `BACK_OFF`.
"""

from __future__ import annotations

_BACKOFF_SECONDS = (0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377, 610, 987, 1597)
LONG_WAIT_SECONDS = 5.0  # Clients are told to come back rather than kept waiting for a worker longer than this.


def restart_wait_seconds(failures: int) -> float:
    """How long to wait after so many failures in a row, the last one included."""
    return float(_BACKOFF_SECONDS[min(max(failures, 1), len(_BACKOFF_SECONDS)) - 1])
