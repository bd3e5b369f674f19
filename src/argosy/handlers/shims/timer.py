"""`@timed`: how long a handler's method took, as a metric, where `model-config.yaml` has `handler: {profile: true}`."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from argosy.handlers.shims.libraries import torch

_LOG = logging.getLogger("ts.timer")


def timed(function: Callable[..., Any]) -> Callable[..., Any]:
    """The method, measured if its handler's configuration asks for it: gauge `ts_handler_<method>`, in ms."""

    @wraps(function)
    def measured(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_profiling(self.context):
            return function(self, *args, **kwargs)
        started = time.perf_counter()
        result = function(self, *args, **kwargs)
        if torch.cuda.is_available():
            # A GPU's work goes on after the call that ordered it.
            torch.cuda.synchronize()
        milliseconds = (time.perf_counter() - started) * 1000
        self.context.metrics.add_time(f"ts_handler_{function.__name__}", milliseconds)
        return result

    return measured


def timeit(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a log line of how long each call took."""

    @wraps(function)
    def logged(*args: Any, **kwargs: Any) -> Any:
        started, started_cpu = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        spent = time.perf_counter() - started
        _LOG.info("%s took %.4f s, %.4f s of CPU time", function.__name__, spent, time.process_time() - started_cpu)
        return result

    return logged


def _is_profiling(context: Any) -> bool:
    section = context.model_yaml_config.get("handler") if context else None
    return isinstance(section, dict) and bool(section.get("profile"))
