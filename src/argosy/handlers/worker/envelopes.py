"""Service envelopes: forms around a handler's inputs and outputs that a client's platform prescribes.

The handler then gets plain rows and returns plain rows. Several requests in one batch are joined for the handler and
taken apart after it; TorchServe's KServe envelopes looked at the first request only.
Source: ts/torch_handler/request_envelope of 0.12; KServe's v1 and v2 protocols.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from argosy.core.errors import SpecError
from argosy.handlers.worker.context import Context
from argosy.handlers.worker.loading import EntryPoint

Handle = Callable[[Any, Context], Any]


class BaseEnvelope:
    """One form. Subclasses take rows out of it and put results into it."""

    def __init__(self, handle_fn: Handle) -> None:
        self._handle_fn = handle_fn
        self.context: Any = None

    def handle(self, data: list[dict[str, Any]] | None, context: Context) -> Any:
        """The handler's own `handle`, with the form taken off and put on again."""
        self.context = context
        results = self._handle_fn(self.parse_input(data) if data else data, context)
        return self.format_output(results) if results else results

    def parse_input(self, data: list[dict[str, Any]]) -> Any:
        """The requests of the batch, as the handler wants them."""
        raise NotImplementedError

    def format_output(self, data: Any) -> Any:
        """The handler's results, one for each request of the batch."""
        raise NotImplementedError

    def _is_explain(self) -> bool:
        return bool(self.context) and self.context.get_request_header(0, "explain") == "True"


class BodyEnvelope(BaseEnvelope):
    """`body`: the handler gets each body itself."""

    def parse_input(self, data: list[dict[str, Any]]) -> Any:
        """Each request's part `data` or `body`."""
        return [_body(row) for row in data]

    def format_output(self, data: Any) -> Any:
        """Unchanged."""
        return data


class JSONEnvelope(BaseEnvelope):
    """`json`: `{"instances": […]}` in, `{"predictions": […]}` out; `{"b64": …}` is bytes."""

    def __init__(self, handle_fn: Handle) -> None:
        super().__init__(handle_fn)
        self._lengths: list[int] = []

    def parse_input(self, data: list[dict[str, Any]]) -> Any:
        """All instances of all requests."""
        groups = [[_decoded(row) for row in _parsed(_body(row) or row)["instances"]] for row in data]
        self._lengths = [len(group) for group in groups]
        return [row for group in groups for row in group]

    def format_output(self, data: Any) -> Any:
        """Each request's share, as JSON text."""
        return [json.dumps({"predictions": share}) for share in _shares(data, self._lengths)]


class KServeEnvelope(BaseEnvelope):
    """`kserve`: version 1 of KServe's protocol."""

    def __init__(self, handle_fn: Handle) -> None:
        super().__init__(handle_fn)
        self._lengths: list[int] = []

    def parse_input(self, data: list[dict[str, Any]]) -> Any:
        """All instances of all requests."""
        groups = [list(_parsed(_body(row))["instances"]) for row in data]
        self._lengths = [len(group) for group in groups]
        return [row for group in groups for row in group]

    def format_output(self, data: Any) -> Any:
        """Each request's share; the whole result if there is one request, as its handler may count otherwise."""
        name = "explanations" if self._is_explain() else "predictions"
        if len(self._lengths) == 1:
            return [{name: data}]
        return [{name: share} for share in _shares(data, self._lengths)]


class KServev2Envelope(BaseEnvelope):
    """`kservev2`: version 2 of KServe's protocol, tensors as flat lists with shapes."""

    def __init__(self, handle_fn: Handle) -> None:
        super().__init__(handle_fn)
        self._names: list[list[str]] = []
        self._ids: list[str] = []

    def parse_input(self, data: list[dict[str, Any]]) -> Any:
        """All inputs of all requests; their data in the shape they declare, of `BYTES` the first value."""
        self._names, self._ids, inputs = [], [], []
        for row in data:
            body = _parsed(_body(row))
            self._ids.append(str(body.get("id") or "").strip())
            self._names.append([str(each["name"]) for each in body["inputs"]])
            inputs += [{**each, "data": _input_data(each)} for each in body["inputs"]]
        return inputs

    def format_output(self, data: Any) -> Any:
        """Each request's outputs, named as its inputs."""
        model = self.context.manifest.get("model", {})
        shares = _shares(data, [len(names) for names in self._names])
        return [
            {
                "id": self._ids[index] or self.context.get_request_id(index),
                "model_name": model.get("modelName"),
                "model_version": model.get("modelVersion"),
                "outputs": [_output(name, value) for name, value in zip(self._names[index], share, strict=True)],
            }
            for index, share in enumerate(shares)
        ]


ENVELOPES: dict[str, type[BaseEnvelope]] = {
    "body": BodyEnvelope,
    "json": JSONEnvelope,
    "kserve": KServeEnvelope,
    "kservev2": KServev2Envelope,
}


def in_envelope(name: str, entry: EntryPoint) -> EntryPoint:
    """The entry point inside the envelope of that name. Raises: SpecError."""
    if name not in ENVELOPES:
        raise SpecError(f"no service envelope is called {name!r}: there are {', '.join(ENVELOPES)}")
    return EntryPoint(ENVELOPES[name](entry.handle).handle, entry.initialize, entry.owner)


def _body(row: dict[str, Any]) -> Any:
    return row.get("data") or row.get("body")


def _parsed(body: Any) -> Any:
    return json.loads(bytes(body)) if isinstance(body, bytes | bytearray) else body


def _decoded(row: Any) -> Any:
    if not isinstance(row, dict):
        return row
    if list(row) == ["b64"]:
        return b64decode(row["b64"])
    return {
        name: b64decode(value["b64"]) if isinstance(value, dict) and list(value) == ["b64"] else value
        for name, value in row.items()
    }


def _shares(data: Any, lengths: Sequence[int]) -> Iterator[Any]:
    rows = data.tolist() if hasattr(data, "tolist") else data
    if len(rows) != sum(lengths):
        raise ValueError(f"the handler returned {len(rows)} results for {sum(lengths)} instances")
    start = 0
    for length in lengths:
        yield rows[start : start + length]
        start += length


def _input_data(tensor: dict[str, Any]) -> Any:
    if tensor["datatype"] == "BYTES":
        return tensor["data"][0]
    return _shaped(_flat(tensor["data"]), list(tensor["shape"]))


def _shaped(values: list[Any], shape: list[int]) -> Any:
    if not shape:
        return values[0]
    if len(shape) == 1:
        if len(values) != shape[0] and shape[0] != -1:
            raise ValueError(f"{len(values)} values do not fill the shape {shape}")
        return values
    step = len(values) // max(shape[0], 1)
    if step * shape[0] != len(values):
        raise ValueError(f"{len(values)} values do not fill the shape {shape}")
    return [_shaped(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


def _flat(values: Any) -> list[Any]:
    rows = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(rows, list | tuple):
        return [rows]
    return [value for row in rows for value in _flat(row)]


def _output(name: str, value: Any) -> dict[str, Any]:
    values = _flat(value)
    return {"name": name, "datatype": _datatype(value, values), "data": values, "shape": [len(values)]}


def _datatype(value: Any, values: list[Any]) -> str:
    named = {"float16": "FP16", "float32": "FP32", "float64": "FP64", "bool": "BOOL"}
    declared = str(getattr(value, "dtype", "")).removeprefix("torch.")
    if declared in named:
        return named[declared]
    if declared.startswith(("int", "uint")):
        return declared.upper()
    if all(isinstance(each, bool) for each in values):
        return "BOOL"
    if all(isinstance(each, int) for each in values):
        return "INT64"
    return "FP64" if all(isinstance(each, int | float) for each in values) else "BYTES"
