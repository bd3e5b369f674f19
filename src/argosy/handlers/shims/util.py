"""`ts.utils.util`: small helpers that handlers import, and `PredictionException`."""

from __future__ import annotations

import enum
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from argosy.core.errors import SpecError
from argosy.handlers.worker.calls import PredictionException
from argosy.handlers.worker.loading import classes_of

CLEANUP_REGEX = re.compile("<.*?>|&([a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")
_LOG = logging.getLogger("ts.util")


class PT2Backend(enum.StrEnum):
    """Backends of torch.compile that a model-config.yaml may name."""

    EAGER = "eager"
    AOT_EAGER = "aot_eager"
    INDUCTOR = "inductor"
    NVFUSER = "nvfuser"
    AOT_NVFUSER = "aot_nvfuser"
    AOT_CUDAGRAPHS = "aot_cudagraphs"
    OFI = "ofi"
    FX2TRT = "fx2trt"
    ONNXRT = "onnxrt"
    IPEX = "ipex"
    TORCHXLA_TRACE_ONCE = "torchxla_trace_once"
    OPENVINO = "openvino"
    TENSORRT = "tensorrt"
    HPU_BACKEND = "hpu_backend"


def list_classes_from_module(module: ModuleType, parent_class: type | None = None) -> list[type]:
    """The classes that a module defines itself."""
    return classes_of(module, parent_class)


def check_valid_pt2_backend(backend: str) -> bool:
    """Whether torch.compile may be asked for that backend."""
    is_known = backend in {each.value for each in PT2Backend}
    if not is_known:
        _LOG.warning("%s is not a supported backend", backend)
    return is_known


def load_label_mapping(mapping_file_path: str | Path) -> dict[str, str] | None:
    """Names of classes by their numbers, from index_to_name.json; None without the file. Raises: SpecError."""
    path = Path(mapping_file_path)
    if not path.is_file():
        _LOG.info("there is no %s: answers carry numbers of classes, not names", path.name)
        return None
    mapping = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(mapping, dict):
        raise SpecError(f'{path.name} must be an object {{"number": "name"}}')
    listed = mapping.get("object_type_names")
    if isinstance(listed, list):
        return {str(index): str(name) for index, name in enumerate(listed)}
    # ImageNet's form gives each class an id and a name.
    names = {key: value[-1] if isinstance(value, list) and value else value for key, value in mapping.items()}
    for key, name in names.items():
        if not isinstance(name, str):
            raise SpecError(f"{path.name}: the name of {key!r} must be a text or a list of texts")
    return names


def map_class_to_label(
    probs: list[Any], mapping: Mapping[str, str] | None = None, lbl_classes: Iterable[Sequence[Any]] | None = None
) -> list[dict[str, Any]]:
    """For each row the values by their classes' names; without names by their numbers."""
    if not isinstance(probs, list):
        raise TypeError("convert probabilities to a list before naming them")
    if mapping is not None and not isinstance(mapping, Mapping):
        raise TypeError("the mapping of classes must be a dict")
    classes = list(lbl_classes) if lbl_classes is not None else [range(len(row)) for row in probs]
    return [
        {
            mapping[str(number)] if mapping is not None else str(number): value
            for number, value in zip(*row, strict=False)
        }
        for row in zip(classes, probs, strict=False)
    ]


def get_yaml_config(yaml_file_path: str | Path) -> dict[str, Any]:
    """A YAML file as Python values, without any of its tags' power."""
    with Path(yaml_file_path).open(encoding="utf-8") as file:
        return yaml.safe_load(file) or {}


def deprecated(
    version: object, replacement: str = "", klass: type[Warning] = PendingDeprecationWarning
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Mark a function as one that has a successor."""

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def warned(*args: Any, **kwargs: Any) -> Any:
            text = f"{function.__name__} is deprecated in {version} and moved to {replacement}"
            warnings.warn(text, klass, stacklevel=2)
            return function(*args, **kwargs)

        return warned

    return mark


__all__ = [
    "CLEANUP_REGEX",
    "PT2Backend",
    "PredictionException",
    "check_valid_pt2_backend",
    "deprecated",
    "get_yaml_config",
    "list_classes_from_module",
    "load_label_mapping",
    "map_class_to_label",
]
