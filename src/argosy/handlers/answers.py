"""What a worker sends is checked before it goes on: its code is not ours.

A header with a line break in it would be a second header, or a second answer, at the client (response splitting).
"""

from __future__ import annotations

import re

from argosy.core.errors import HandlerError
from argosy.core.prediction import Prediction
from argosy.handlers.worker.messages import Answer

# Source: RFC 9110, 5.1 and 5.5.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def check_answer(answer: Answer, num_requests: int) -> None:
    """Raises: HandlerError naming what is wrong with it."""
    for prediction in answer.predictions:
        if not 0 <= prediction.index < num_requests:
            raise HandlerError("Invalid model predict output", cause=f"an answer to request {prediction.index}")
        if not 200 <= prediction.status <= 599:
            raise HandlerError("Invalid model predict output", cause=f"status {prediction.status}")
        if prediction.headers or prediction.content_type or prediction.phrase:
            _check_head(prediction)


def _check_head(prediction: Prediction) -> None:
    values = [prediction.content_type, prediction.phrase, *prediction.headers.values()]
    for value in values:
        if not _HEADER_VALUE.fullmatch(value):
            raise HandlerError("Invalid model predict output", cause=f"a header's value is {value[:100]!r}")
    for name in prediction.headers:
        if not _HEADER_NAME.fullmatch(name):
            raise HandlerError("Invalid model predict output", cause=f"a header's name is {name[:100]!r}")
