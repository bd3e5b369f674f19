"""Flags of `argosy deploy` as fields of a service, and laid over a service as it is. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from argosy.cli.spec_flags import pairs
from argosy.core.engine import EngineSettings
from argosy.core.errors import InvalidRequest
from argosy.core.inference_service import InferenceServiceSpec, PromotionPolicy, RevisionTemplate

_Struct = TypeVar("_Struct", bound=msgspec.Struct)
Value = str | int | float | bool

# Flags of `argosy serve` that have a field of their own; every other one is passed on by its name.
_ENGINE_FLAGS = frozenset(EngineSettings.__struct_fields__) - {"engine_args", "cache_dir"}
NO_PROMOTION = "off"


def service_name(model: str) -> str:
    """What a service of this model is called if nobody says: `hf:org/Name@rev` → `name`, `/models/X_1.gguf` → `x-1`."""
    location = model.rpartition(":")[2].partition("@")[0].rstrip("/")
    stem = location.rpartition("/")[2].removesuffix(".gguf")
    return re.sub(r"[^a-z0-9.-]+", "-", stem.lower()).strip("-.")[:48].rstrip("-.")


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What was given: no None at any depth, and no mapping that is empty for it."""
    given = {}
    for name, value in fields.items():
        kept = without_none(value) if isinstance(value, Mapping) else value
        if kept is not None and kept != {}:
            given[name] = kept
    return given


def changed_spec(spec: InferenceServiceSpec | None, fields: Mapping[str, Any]) -> InferenceServiceSpec:
    """`spec`, or the defaults, with every field that was given in its place. Pure."""
    return _with(spec or InferenceServiceSpec(template=RevisionTemplate(model="")), fields)


def _with(current: _Struct, fields: Mapping[str, Any]) -> _Struct:
    changes = {}
    for name, value in fields.items():
        inner = getattr(current, name)
        changes[name] = (
            _with(inner, value) if isinstance(inner, msgspec.Struct) and isinstance(value, Mapping) else value
        )
    return msgspec.structs.replace(current, **changes)


def serve_fields(texts: list[str]) -> dict[str, Any]:
    """`max-num-seqs=8`, `max-waiting=64`: flags of `argosy serve` as fields of the template, with typed values.

    Raises: SpecError, InvalidRequest.
    """
    settings: dict[str, Value] = {}
    others: dict[str, Value] = {}
    for flag, text in pairs("serve-arg", texts).items():
        name = flag.removeprefix("--")
        field = name.replace("-", "_")
        if field in _ENGINE_FLAGS:
            settings[field] = typed(text)
        else:
            others[name] = typed(text)
    return {"engine_settings": settings, "serve_args": others}


def typed(text: str) -> Value:
    """`64` → 64, `0.5` → 0.5, `true` → True, all else as it is."""
    try:
        return msgspec.json.decode(text, type=bool | int | float)
    except msgspec.DecodeError:
        return text


def promotion_fields(
    steps: str | None, interval_seconds: float | None, min_requests: int | None
) -> dict[str, PromotionPolicy | None]:
    """`5,25,50,100` as the policy; `off` as none. Raises: InvalidRequest."""
    details = without_none({"interval_seconds": interval_seconds, "min_requests": min_requests})
    if steps is None or steps.strip().lower() == NO_PROMOTION:
        if details:
            flags = "--promote-interval and --promote-requests"
            raise InvalidRequest(f"{flags} are of no use without a promotion: add --promote 5,25,50,100")
        return {} if steps is None else {"promotion": None}
    try:
        percents = tuple(int(step.strip().removesuffix("%")) for step in steps.split(","))
    except ValueError as exc:
        raise InvalidRequest(f"--promote {steps[:64]!r} is no list of percents: write 5,25,50,100, or off") from exc
    return {"promotion": PromotionPolicy(steps=percents, **details)}
