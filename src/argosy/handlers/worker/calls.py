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

import msgspec

from argosy.core.prediction import HandlerMetric, Prediction, PredictRequest
from argosy.handlers.worker.context import AnswerSocket, Context, PredictResponse, RequestProcessor
from argosy.handlers.worker.loading import EntryPoint
from argosy.handlers.worker.messages import Answer, Event, Failed, text_of
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


class Turn(msgspec.Struct, frozen=True):
    """One call of the handler's function. number: of the server's call. request_ids: by the index that the handler
    knows a request by. places: which request of the batch each index is, as they differ once some have ended.
    """

    number: int
    request_ids: dict[int, str]
    places: tuple[int, ...]
    processors: list[RequestProcessor]


class Calls:
    """Runs batches through one entry point. `send` takes intermediate pieces."""

    def __init__(
        self, entry: EntryPoint, context: Context, send: Callable[[Event], None], *, decodes_input: bool
    ) -> None:
        self._entry = entry
        self._context = context
        self._send = send
        self._decodes_input = decodes_input
        self._turn: Turn | None = None
        self._dimensions = {"ModelName": context.model_name, "Level": "Model"}
        context.cl_socket = AnswerSocket(self._send_intermediate)

    def answer(self, batch: Sequence[PredictRequest], number: int) -> Answer | Failed:
        """Call the handler with the batch of the call of that number; what ends the call."""
        started = time.perf_counter()
        try:
            predictions = self._run(batch, number)
        except Exception as exc:  # noqa: BLE001  # boundary: whatever the archive's code raises is the call's failure
            failed = failure_of(exc)
            _log_failure(failed, exc)
            return failed
        finally:
            self._turn = None
        took = HandlerMetric(
            name="PredictionTime",
            value=round((time.perf_counter() - started) * 1000, 2),
            unit=UNITS["ms"],
            kind="gauge",
            dimensions=self._dimensions,
        )
        return Answer(predictions=predictions, metrics=(*self._context.metrics.drain(), took))

    def _run(self, batch: Sequence[PredictRequest], number: int) -> tuple[Prediction, ...]:
        context = self._context
        data = [input_row(request, decodes=self._decodes_input) for request in batch]
        headers = [request_headers(request, context.header_key_sequence_id) for request in batch]
        places = tuple(range(len(batch)))
        while True:
            context.request_ids = {i: batch[place].request_id for i, place in enumerate(places)}
            context.request_processor = [RequestProcessor(headers[place]) for place in places]
            context.metrics.request_ids = context.request_ids
            turn = self._turn = Turn(number, dict(context.request_ids), places, context.request_processor)
            results = self._entry.handle([data[place] for place in places], context)
            _check_results(results, len(places))
            criteria = context.stopping_criteria
            going_on = [i for i, result in enumerate(results) if _goes_on(criteria[i](result))] if criteria else []
            predictions = tuple(
                _prediction(turn, i, result, is_last=i not in going_on) for i, result in enumerate(results)
            )
            if not going_on:
                return predictions
            self._send_pieces(turn, predictions)
            places = tuple(places[i] for i in going_on)

    def _send_intermediate(self, response: PredictResponse) -> None:
        """A handler's threads may come late: a piece is sent only to requests that the running call is of."""
        turn = self._turn
        known = turn.request_ids if turn is not None else {}
        wanted = [i for i, request_id in response.request_ids.items() if known.get(i) == request_id]
        if turn is None or len(wanted) < len(response.request_ids):
            _LOG.warning("a piece of an answer came after its request was over, and is dropped")
        if turn is not None and wanted:
            self._send_pieces(turn, tuple(_prediction(turn, i, response.values[i], is_last=False) for i in wanted))

    def _send_pieces(self, turn: Turn, predictions: tuple[Prediction, ...]) -> None:
        metrics = self._context.metrics.drain()
        self._send(Answer(predictions=predictions, metrics=metrics, is_end=False, number=turn.number))


def _check_results(results: object, count: int) -> None:
    if not isinstance(results, list):
        _LOG.warning("the handler returned a %s, not a list", type(results).__name__)
        raise WrongOutput("Invalid model predict output")
    if len(results) != count:
        _LOG.warning("the handler returned %d results for %d requests", len(results), count)
        raise WrongOutput("number of batch response mismatched")


def _prediction(turn: Turn, index: int, value: Any, *, is_last: bool) -> Prediction:
    processor = turn.processors[index]
    phrase = processor.get_response_status_phrase()
    headers = {text_of(name): text_of(text) for name, text in processor.get_response_headers().items()}
    types = [name for name in headers if name.lower() == "content-type"]
    content_type = [headers.pop(name) for name in types][-1] if types else ""
    return Prediction(
        index=turn.places[index],
        body=output_bytes(value),
        status=int(processor.get_response_status_code()),
        phrase=text_of(phrase) if phrase else "",
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
        message = text_of(getattr(exc, "message", exc))
        return Failed(kind="handler", message=message, status=_status(getattr(exc, "error_code", 500)), cause=cause)
    if is_out_of_memory(exc):
        return Failed(kind="memory", message=OUT_OF_RESOURCES, status=507, cause=cause)
    if isinstance(exc, WrongOutput):
        return Failed(kind="handler", message=str(exc))
    if isinstance(exc, UnsupportedOutput):
        return Failed(kind="handler", message="Unsupported model output data type.", cause=cause)
    return Failed(kind="handler", message="Prediction failed", cause=cause)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether it says that memory was not to be had."""
    return isinstance(exc, MemoryError) or any(text in text_of(exc) for text in _OUT_OF_MEMORY_TEXTS)


def cause_of(exc: BaseException) -> str:
    """Type and text, cut."""
    return f"{type(exc).__name__}: {text_of(exc)}".strip()[:_MAX_CAUSE_CHARACTERS]


def _status(code: object) -> int:
    return code if isinstance(code, int) and 200 <= code <= 599 else 500


def _log_failure(failed: Failed, exc: Exception) -> None:
    if isinstance(exc, WrongOutput):
        return
    _LOG.warning("%s: %s", failed.message, failed.cause, exc_info=exc)
