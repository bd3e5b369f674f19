"""What a declaration would change, in sentences: one for each field that differs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from argosy.core.inference_service import InferenceService

_MAX_SHOWN = 200


def differences(before: InferenceService | None, after: InferenceService) -> tuple[str, ...]:
    """The sentences; none if nothing would change. before: None = there is no such service yet."""
    name = after.metadata.name
    if before is None:
        return (f"{name} would be made, with {after.spec.template.model!r} as its model",)
    old = {"labels": before.metadata.labels, "spec": msgspec.to_builtins(before.spec)}
    new = {"labels": after.metadata.labels, "spec": msgspec.to_builtins(after.spec)}
    return tuple(_sentences(old, new, ""))


def _sentences(before: Any, after: Any, path: str) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in after:
                yield f"{inner} would be removed (it is {_shown(before[key])})"
            elif key not in before:
                yield f"{inner} would be set to {_shown(after[key])}"
            else:
                yield from _sentences(before[key], after[key], inner)
    else:
        yield f"{path} would change from {_shown(before)} to {_shown(after)}"


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
