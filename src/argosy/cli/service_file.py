"""A service as a YAML file, and the short notations of flags: `1..4`, `2Gi`, `v1=90`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import yaml

from argosy.core.errors import InvalidRequest, SpecError
from argosy.core.inference_service import InferenceService, InferenceServiceSpec
from argosy.core.metadata import Metadata
from argosy.core.model import require_name

_KIND = "InferenceService"
_MAX_FILE_BYTES = 2**20
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kKMGT]i?)?B?")
_FACTORS = {
    "": 1.0, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "ki": 2.0**10, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip

# In one line, as errors are.
EXAMPLE = "{kind: InferenceService, metadata: {name: chat}, spec: {template: {model: smollm2}}}"


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    labels: dict[str, str] = {}


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    kind: str
    metadata: _Header
    spec: InferenceServiceSpec


def read_services(path: Path) -> list[InferenceService]:
    """Every service of a YAML file, in its order; `-` in place of a path is read by the caller.

    Raises: SpecError naming the document, the field and the value.
    """
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise SpecError(f"service file {path} cannot be read ({exc.strerror}): check the path after -f") from exc
    return parse_services(content, str(path))


def parse_services(content: bytes, source: str) -> list[InferenceService]:
    """The services in YAML text. Raises: SpecError."""
    if len(content) > _MAX_FILE_BYTES:
        raise SpecError(f"{source} is larger than {_MAX_FILE_BYTES} bytes: this is no service file")
    try:
        documents = [each for each in yaml.safe_load_all(content) if each is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as exc:
        raise SpecError(f"{source} is not YAML: {' '.join(str(exc).split())[:300]}") from exc
    if not documents:
        raise SpecError(f"{source} holds no document: write one such as {EXAMPLE}")
    return [_service(document, f"{source}, document {number}") for number, document in enumerate(documents, 1)]


def _service(document: Any, source: str) -> InferenceService:
    if isinstance(document, Mapping) and document.get("kind", _KIND) != _KIND:
        raise SpecError(f"{source}: kind {str(document['kind'])[:64]!r} is not known here: write kind: {_KIND}")
    try:
        decoded = msgspec.convert(document, _Document)
    except (msgspec.ValidationError, RecursionError) as exc:
        raise SpecError(
            f"{source}: {exc}: a service looks like {EXAMPLE}, and docs/configuration.md has every field"
        ) from exc
    name = require_name(decoded.metadata.name, "service name")
    return InferenceService(metadata=Metadata(name=name, labels=decoded.metadata.labels), spec=decoded.spec)


def yaml_of(service: InferenceService) -> str:
    """The document `parse_services` reads as this service: its name, labels, and all that is not a default."""
    spec = {"template": {"model": service.spec.template.model}, **differing(service.spec)}
    labels = {"labels": service.metadata.labels} if service.metadata.labels else {}
    document = {"kind": _KIND, "metadata": {"name": service.metadata.name, **labels}, "spec": spec}
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100)


def differing(value: msgspec.Struct) -> dict[str, Any]:
    """The fields of a struct that are not as they are by default, as plain data."""
    found = {}
    for field in msgspec.structs.fields(value):
        now = getattr(value, field.name)
        default = (
            field.default_factory() if field.default is msgspec.NODEFAULT and not field.required else field.default
        )
        if now == default:
            continue
        found[field.name] = (
            differing(now) if isinstance(now, msgspec.Struct) else msgspec.to_builtins(now, enc_hook=str)
        )
    return found


def parse_replicas(text: str) -> tuple[int, int]:
    """`3` → (3, 3); `1..4` → (1, 4). Raises: InvalidRequest."""
    least, dots, most = text.partition("..")
    if least.isdecimal() and (most.isdecimal() if dots else not most):
        bounds = (int(least), int(most) if dots else int(least))
        if bounds[0] <= bounds[1]:
            return bounds
    raise InvalidRequest(f"replicas {text[:32]!r} is neither a number nor a range: write 2, or 1..4", param="replicas")


def parse_quantity(text: str, what: str) -> float:
    """`2`, `500m`, `1.5G`, `2Gi` as Kubernetes writes them. Raises: InvalidRequest."""
    match = _QUANTITY.fullmatch(text.strip())
    value = float(match[1]) * _FACTORS[match[2] or ""] if match else math.nan
    if not math.isfinite(value):
        raise InvalidRequest(f"{what} {text[:32]!r} is not a quantity: write 2, 500m or 2Gi", param=what)
    return value


def parse_weights(pairs: list[str]) -> dict[str, int]:
    """`v1=90 v2=10` → weights. Raises: InvalidRequest unless they are whole percents that sum to 100."""
    weights: dict[str, int] = {}
    for pair in pairs:
        revision, equals, percent = pair.partition("=")
        percent = percent.removesuffix("%")
        if not (revision and equals and percent.isdecimal() and int(percent) <= 100):
            raise InvalidRequest(f"traffic {pair[:64]!r} is not revision=percent: write v1=90 v2=10", param="traffic")
        if revision in weights:
            raise InvalidRequest(f"revision {revision!r} is given twice: give each one weight", param="traffic")
        weights[revision] = int(percent)
    if sum(weights.values()) != 100:
        raise InvalidRequest(
            f"the weights sum to {sum(weights.values())}, not 100: write {_completed(weights)}", param="traffic"
        )
    return weights


def _completed(weights: dict[str, int]) -> str:
    """The nearest set of weights that would be right, as an example."""
    last = list(weights)[-1]
    rest = 100 - sum(weight for name, weight in weights.items() if name != last)
    if rest < 0:
        return "v1=90 v2=10"
    return " ".join(f"{name}={rest if name == last else weight}" for name, weight in weights.items())
