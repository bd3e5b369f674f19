"""`metrics.yaml`: which metrics handlers report, as TorchServe's `metrics_config` names them.

    model_metrics:
      gauge:
        - {name: HandlerTime, unit: ms, dimensions: [ModelName, Level]}

`dimensions` at the top only holds YAML anchors; `ts_metrics` lists the server's own, which are always there, so both
are read over.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from argosy.core.errors import SpecError
from argosy.observe.metric import Metric
from argosy.observe.torchserve_metrics import MAX_DETECTED, handler_row

_MAX_FILE_BYTES = 1_000_000


class _Declared(msgspec.Struct):
    name: str
    unit: str = ""
    dimensions: Annotated[list[str], msgspec.Meta(max_length=16)] = []


class _Kinds(msgspec.Struct, forbid_unknown_fields=True):
    counter: list[_Declared] = []
    gauge: list[_Declared] = []
    histogram: list[_Declared] = []


class _File(msgspec.Struct):
    dimensions: Any = None
    ts_metrics: Any = None
    model_metrics: _Kinds | None = None


def read_metrics_file(path: Path) -> tuple[Metric, ...]:
    """The rows a file declares for handlers. Raises: SpecError naming file and place."""
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise SpecError(f"metrics_config {path} cannot be read ({exc.strerror}): correct the path") from exc
    if len(content) > _MAX_FILE_BYTES:
        raise SpecError(f"metrics_config {path} has {len(content)} bytes: at most {_MAX_FILE_BYTES} are read")
    try:
        file = msgspec.yaml.decode(content, type=_File)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as exc:
        raise SpecError(f"metrics_config {path} is wrong: {exc}") from exc
    kinds = file.model_metrics or _Kinds()
    rows: dict[str, Metric] = {}
    for kind in ("counter", "gauge", "histogram"):
        for declared in getattr(kinds, kind):
            row = handler_row(declared.name, declared.unit, kind, declared.dimensions)
            if row is None or declared.name in rows:
                raise SpecError(
                    f"metrics_config {path}: model_metrics.{kind} {declared.name!r} has a name or a dimension that "
                    "Prometheus cannot show, that is the server's own, or that comes twice: rename it"
                )
            rows[row.name] = row
    if len(rows) > MAX_DETECTED:
        raise SpecError(f"metrics_config {path} declares {len(rows)} metrics: at most {MAX_DETECTED} are kept")
    return tuple(rows.values())
