"""`context`: what a handler is told of its model and of the running batch, and where it sets how answers look.

Members and methods are those of ts/context.py of TorchServe 0.12. Header names are looked up as given and then in lower
case, in which they arrive here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from argosy.handlers.worker.metrics import MetricsCache

SERVER_NAME = "MMS"
SERVER_VERSION = "0.12.0"


class RequestProcessor:
    """One request of the batch: its headers, and how its answer shall look."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._status_code = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}
        self._request_header = request_header

    def get_request_property(self, key: str) -> Any:
        """A header of the request, or None."""
        found = self._request_header.get(key)
        return self._request_header.get(key.lower()) if found is None else found

    def get_request_properties(self) -> dict[str, Any]:
        """All headers of the request."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """The status of the answer."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        """As set; 200 if not."""
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        """As set."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """A header of the answer."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """All headers set so far."""
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        """A header set so far, or None."""
        return self._response_header.get(key)


class AnswerSocket:
    """`context.cl_socket`: takes what `create_predict_response` made, and nothing else."""

    def __init__(self, send: Callable[[PredictResponse], None]) -> None:
        self._send = send

    def sendall(self, response: object) -> None:
        """Send one intermediate piece to each request it names. Raises: TypeError for raw bytes."""
        if not isinstance(response, PredictResponse):
            raise TypeError("only what create_predict_response returns can be sent: Argosy's wire is not TorchServe's")
        self._send(response)


class PredictResponse:
    """What `create_predict_response` makes, to be sent by `cl_socket`: values by index, and the ids they are for."""

    def __init__(self, values: Sequence[Any], request_ids: Mapping[int, str]) -> None:
        self.values = values
        self.request_ids = request_ids


class Context:
    """What is the same for every batch, and what belongs to the running one."""

    def __init__(
        self,
        model_name: str,
        manifest: dict[str, Any],
        system_properties: dict[str, Any],
        metrics: MetricsCache,
        model_yaml_config: dict[str, Any],
        allowed_content: frozenset[str] = frozenset(),
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self.system_properties = system_properties
        self.metrics = metrics
        self.model_yaml_config = model_yaml_config
        # Not TorchServe's: what the operator lets the base handler load though it can run code.
        self.allowed_content = allowed_content
        self.request_ids: dict[int, str] | None = None
        self.request_processor: list[RequestProcessor] = []
        self.stopping_criteria: Any = None
        self.cl_socket: AnswerSocket | None = None
        self.header_key_sequence_id = "ts_request_sequence_id"
        self.header_key_sequence_start = "ts_request_sequence_start"
        self.header_key_sequence_end = "ts_request_sequence_end"

    def get_request_id(self, idx: int = 0) -> str | None:
        """The id of a request of the batch."""
        return None if self.request_ids is None else self.request_ids.get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """A header of a request, or None. A part's name gives its own: `{"content-type": …}`."""
        return self.request_processor[idx].get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """All headers of a request."""
        return self.request_processor[idx].get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the answer's `content-type`."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """As set."""
        return self.get_response_headers(idx).get("content-type")

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Status and phrase as set."""
        processor = self.request_processor[idx]
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set one answer's status."""
        if idx < len(self.request_processor):
            self.request_processor[idx].report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set every answer's status."""
        for processor in self.request_processor:
            processor.report_status(code, reason_phrase=phrase)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """The answer's headers set so far."""
        return self.request_processor[idx].get_response_headers()

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of an answer."""
        self.request_processor[idx].add_response_property(key, value)

    def get_sequence_id(self, idx: int) -> str:
        """The sequence that a request belongs to; "" = none."""
        return self.request_processor[idx].get_request_property(self.header_key_sequence_id) or ""
