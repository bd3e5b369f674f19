"""One call of a handler: a batch of requests in, pieces of answers out, and what its failures are called.

Texts and statuses are TorchServe's (ts/service.py of 0.12), so a client that reads them goes on working. The cause of a
failure travels beside the text, for whoever may see it.
Continuous batching: while `context.stopping_criteria[i]` says of a result that its request goes on, the result is an
intermediate piece and the handler is called again with the requests that go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from argosy.core.prediction import HandlerMetric, Prediction, PredictRequest
from argosy.handlers.worker.context import AnswerSocket, Context, RequestProcessor
from argosy.handlers.worker.loading import EntryPoint
from argosy.handlers.worker.messages import Answer, Event, Failed
from argosy.handlers.worker.metrics import UNITS
from argosy.handlers.worker.payloads import UnsupportedOutput, input_row, output_bytes, request_headers

OUT_OF_RESOURCES = "Out of resources"
# PyTorch's own allocators raise RuntimeError.
_OUT_OF_MEMORY_TEXTS = ("CUDA", "can't allocate memory", "not enough memory", "std::bad_alloc")
_MAX_CAUSE_CHARACTERS = 2_000
_LOG = logging.getLogger("ts.worker")


class PredictionException(Exception):
    """A handler's own answer to a request it cannot serve: this text with this status."""

    def __init__(self, message: str, error_code: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = error_code

    def __str__(self) -> str:
        return f"{self.message} : {self.error_code}"


class WrongOutput(Exception):
    """The handler returned what is no answer to its batch. The text is TorchServe's."""


class Calls:
    """Runs batches through one entry point. `send` takes intermediate pieces."""

    def __init__(
        self, entry: EntryPoint, context: Context, send: Callable[[Event], None], *, decodes_input: bool
    ) -> None:
        self._entry = entry
        self._context = context
        self._send = send
        self._decodes_input = decodes_input
        # Which request of the batch each index of the handler's is: they differ once some have ended.
        self._numbers: list[int] = []
        self._dimensions = {"ModelName": context.model_name, "Level": "Model"}
        context.cl_socket = AnswerSocket(self._send_intermediate)

    def answer(self, batch: Sequence[PredictRequest]) -> Answer | Failed:
        """Call the handler with the batch; what ends the call."""
        started = time.perf_counter()
        try:
            predictions = self._run(batch)
        except Exception as exc:  # noqa: BLE001  # boundary: whatever the archive's code raises is the call's failure
            failed = failure_of(exc)
            _log_failure(failed, exc)
            return failed
        took = HandlerMetric(
            name="PredictionTime",
            value=round((time.perf_counter() - started) * 1000, 2),
            unit=UNITS["ms"],
            kind="gauge",
            dimensions=self._dimensions,
        )
        return Answer(predictions=predictions, metrics=(*self._context.metrics.drain(), took))

    def _run(self, batch: Sequence[PredictRequest]) -> tuple[Prediction, ...]:
        context = self._context
        data = [input_row(request, decodes=self._decodes_input) for request in batch]
        headers = [request_headers(request, context.header_key_sequence_id) for request in batch]
        self._numbers = list(range(len(batch)))
        while True:
            context.request_ids = {i: batch[number].request_id for i, number in enumerate(self._numbers)}
            context.request_processor = [RequestProcessor(headers[number]) for number in self._numbers]
            context.metrics.request_ids = context.request_ids
            results = self._entry.handle([data[number] for number in self._numbers], context)
            if not isinstance(results, list):
                _LOG.warning("the handler returned a %s, not a list", type(results).__name__)
                raise WrongOutput("Invalid model predict output")
            if len(results) != len(self._numbers):
                _LOG.warning("the handler returned %d results for %d requests", len(results), len(self._numbers))
                raise WrongOutput("number of batch response mismatched")
            criteria = context.stopping_criteria
            going_on = [i for i, result in enumerate(results) if _goes_on(criteria[i](result))] if criteria else []
            predictions = tuple(
                self._prediction(i, result, is_last=i not in going_on) for i, result in enumerate(results)
            )
            if not going_on:
                return predictions
            self._send(Answer(predictions=predictions, metrics=context.metrics.drain(), is_end=False))
            self._numbers = [self._numbers[i] for i in going_on]

    def _send_intermediate(self, values: Sequence[Any]) -> None:
        predictions = tuple(self._prediction(i, values[i], is_last=False) for i in range(len(self._numbers)))
        self._send(Answer(predictions=predictions, metrics=self._context.metrics.drain(), is_end=False))

    def _prediction(self, index: int, value: Any, *, is_last: bool) -> Prediction:
        processor = self._context.request_processor[index]
        headers = processor.get_response_headers()
        if headers:
            headers = {str(name): str(text) for name, text in headers.items()}
        content_type = headers.pop("content-type", "")
        return Prediction(
            index=self._numbers[index],
            body=output_bytes(value),
            status=int(processor.get_response_status_code()),
            phrase=processor.get_response_status_phrase() or "",
            content_type=content_type,
            headers=headers,
            is_last=is_last,
        )


def _goes_on(is_stop: object) -> bool:
    """None says nothing, so the request ends as it does without criteria."""
    return is_stop is not None and not is_stop


def failure_of(exc: Exception) -> Failed:
    """What an exception of a handler's is to its callers."""
    cause = cause_of(exc)
    if isinstance(exc, PredictionException):
        return Failed(kind="handler", message=str(exc.message), status=_status(exc.error_code), cause=cause)
    if is_out_of_memory(exc):
        return Failed(kind="memory", message=OUT_OF_RESOURCES, status=507, cause=cause)
    if isinstance(exc, WrongOutput):
        return Failed(kind="handler", message=str(exc))
    if isinstance(exc, UnsupportedOutput):
        return Failed(kind="handler", message="Unsupported model output data type.", cause=cause)
    return Failed(kind="handler", message="Prediction failed", cause=cause)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether it says that memory was not to be had."""
    return isinstance(exc, MemoryError) or any(text in str(exc) for text in _OUT_OF_MEMORY_TEXTS)


def cause_of(exc: BaseException) -> str:
    """Type and text, one line, cut."""
    return f"{type(exc).__name__}: {exc}".strip()[:_MAX_CAUSE_CHARACTERS]


def _status(code: object) -> int:
    return code if isinstance(code, int) and 200 <= code <= 599 else 500


def _log_failure(failed: Failed, exc: Exception) -> None:
    if isinstance(exc, WrongOutput):
        return
    _LOG.warning("%s: %s", failed.message, failed.cause, exc_info=exc)
