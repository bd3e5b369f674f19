"""Micro-batching: a batch in parts whose preparation, inference and completion overlap in threads.

`ts.handler_utils.micro_batching` of TorchServe 0.12: a handler sets `handle = MicroBatching(self, micro_batch_size)`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from argosy.handlers.worker.context import Context

HANDLER_METHODS = ("preprocess", "inference", "postprocess")


class MicroBatching:
    """Stands for a handler's `handle`. parallelism: threads for each of its three methods, 1 unless given."""

    def __init__(
        self, parent_handler: Any, micro_batch_size: int = 1, parallelism: dict[str, int] | None = None
    ) -> None:
        self.handler = parent_handler
        self.micro_batch_size = micro_batch_size
        self.thread_local_data = threading.local()
        self._parallelism: dict[str, int] = {}
        self._pools: dict[str, ThreadPoolExecutor] = {}
        self.parallelism = parallelism or {}

    @property
    def parallelism(self) -> dict[str, int]:
        """Threads for each method."""
        return dict(self._parallelism)

    @parallelism.setter
    def parallelism(self, parallelism: dict[str, int]) -> None:
        unknown = set(parallelism) - set(HANDLER_METHODS)
        if unknown:
            raise ValueError(f"micro-batching has no step {sorted(unknown)}: there are {', '.join(HANDLER_METHODS)}")
        self._parallelism.update(parallelism)
        self.shutdown()
        self._pools = {name: ThreadPoolExecutor(self._parallelism.get(name, 1), name) for name in HANDLER_METHODS}

    def shutdown(self) -> None:
        """End the threads."""
        for pool in self._pools.values():
            pool.shutdown()

    def handle(self, data: Sequence[Any]) -> list[Any]:
        """The results of all parts, in order."""
        size = self.micro_batch_size
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        prepared = [self._submit("preprocess", i, part) for i, part in enumerate(parts)]
        inferred = [self._submit("inference", i, part) for i, part in enumerate(prepared)]
        finished = [self._submit("postprocess", i, part) for i, part in enumerate(inferred)]
        return [result for part in finished for result in part.result()]

    def get_micro_batch_idx(self) -> int | None:
        """Which part the calling thread works on."""
        return getattr(self.thread_local_data, "micro_batch_idx", None)

    def __call__(self, data: list[dict[str, Any]], context: Context) -> Any:
        """As BaseHandler.handle, with the three steps overlapping."""
        started = time.perf_counter()
        handler = self.handler
        handler.context = context
        if handler._is_describe():
            output: Any = [handler.describe_handle()]
        elif handler._is_explain():
            output = handler.explain_handle(handler.preprocess(data), data)
        else:
            output = self.handle(data)
        context.metrics.add_time("HandlerTime", round((time.perf_counter() - started) * 1000, 2), None, "ms")
        return output

    def _submit(self, name: str, index: int, value: Any) -> Future[Any]:
        return self._pools[name].submit(self._step, name, index, value)

    def _step(self, name: str, index: int, value: Any) -> Any:
        given = value.result() if isinstance(value, Future) else value
        self.thread_local_data.micro_batch_idx = index
        return getattr(self.handler, name)(given)
