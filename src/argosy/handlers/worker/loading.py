"""Finding the handler that a manifest names, in the forms that TorchServe takes.

`file.py`, or `file` without a suffix: the module's function `handle(data, context)`, else its only class with a method
`handle`. `file.py:name`: that function or class. A name that is no file of the archive: a handler of ours, of `shims`.
A function is called once with `None` for its data, to initialise; a class by `initialize(context)`.
Source: ts/model_loader.py of 0.12.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from argosy.core.errors import SpecError
from argosy.core.plugins import resolve
from argosy.handlers.worker.context import Context

# What a manifest may name without bringing a file.
BUILT_IN = {
    "base_handler": "argosy.handlers.shims.base_handler:BaseHandler",
    "image_classifier": "argosy.handlers.shims.image_classifier:ImageClassifier",
    "image_segmenter": "argosy.handlers.shims.image_segmenter:ImageSegmenter",
    "object_detector": "argosy.handlers.shims.object_detector:ObjectDetector",
    "text_classifier": "argosy.handlers.shims.text_classifier:TextClassifier",
}
NOT_SERVED = {
    "dali_image_classifier": "NVIDIA DALI",
    "trt_llm_handler": "TensorRT-LLM",
    "vllm_handler": "vLLM: serve the model itself with `argosy serve MODEL --engine vllm`",
}


class EntryPoint(msgspec.Struct, frozen=True):
    """What answers a batch. initialize: called once before. owner: the handler's object; None for a function."""

    handle: Callable[[Any, Context], Any]
    initialize: Callable[[Context], Any]
    owner: Any = None


def find_entry_point(handler: str, root: Path) -> EntryPoint:
    """The handler that `handler` names. Raises: SpecError if there is none; whatever its module raises."""
    name, _, attribute = handler.partition(":")
    path = root / (name if name.endswith(".py") else f"{name}.py")
    if not path.is_file() or ".." in path.parts or not path.is_relative_to(root):
        # Archives are flat: the file of a path lies at the root. No path leads out of it.
        path = root / path.name
    if path.is_file():
        return _entry_point(load_module(path), attribute)
    return _object_entry_point(_built_in(name, handler))


def _built_in(name: str, handler: str) -> type:
    if name in NOT_SERVED:
        raise SpecError(
            f"the handler {name!r} is not served here ({NOT_SERVED[name]}): see docs/migrating-from-torchserve.md"
        )
    if not handler:
        raise SpecError("the manifest names no handler: make the archive again with --handler")
    if name not in BUILT_IN:
        raise SpecError(
            f"the manifest names the handler {handler!r}, and the archive has no such file: "
            f"built in are {', '.join(sorted(BUILT_IN))}"
        )
    try:
        found: type = resolve(BUILT_IN, name, "handler")
    except ModuleNotFoundError as exc:
        raise SpecError(f"the handler {name!r} needs the package {exc.name!r}, which is not installed") from exc
    return found


def load_module(path: Path) -> ModuleType:
    """The module in a file of the archive, imported under the file's own name if that is free."""
    name = path.stem
    loaded = sys.modules.get(name)
    if loaded is not None:
        if getattr(loaded, "__file__", None) == str(path):
            return loaded
        name = f"archive_{name}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SpecError(f"{path.name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def classes_of(module: ModuleType, parent: type | None = None) -> list[type]:
    """The classes that a module defines itself."""
    found = [each for _, each in inspect.getmembers(module, inspect.isclass) if each.__module__ == module.__name__]
    return [each for each in found if parent is None or issubclass(each, parent)]


def _entry_point(module: ModuleType, attribute: str) -> EntryPoint:
    named = getattr(module, attribute or "handle", None)
    if inspect.isclass(named):
        return _object_entry_point(named)
    if callable(named):
        function: Callable[[Any, Context], Any] = named
        return EntryPoint(function, lambda context: function(None, context))
    if attribute:
        raise SpecError(f"{module.__name__}.py has no function or class {attribute!r}")
    classes = classes_of(module)
    if len(classes) > 1:
        classes = [each for each in classes if callable(getattr(each, "handle", None)) and not inspect.isabstract(each)]
        classes = [each for each in classes if not any(each in other.__mro__[1:] for other in classes)]
    if len(classes) != 1:
        names = ", ".join(each.__name__ for each in classes) or "none"
        raise SpecError(
            f"{module.__name__}.py must have a function handle(data, context) or one class with a method handle; "
            f"its handler classes are: {names}. Name one in the manifest: {module.__name__}.py:Class"
        )
    return _object_entry_point(classes[0])


def _object_entry_point(found: type) -> EntryPoint:
    if not callable(getattr(found, "handle", None)):
        raise SpecError(f"the class {found.__name__} has no method handle(data, context)")
    owner = found()
    return EntryPoint(owner.handle, getattr(owner, "initialize", _nothing), owner)


def _nothing(context: Context) -> None:
    """For a class without `initialize`."""
