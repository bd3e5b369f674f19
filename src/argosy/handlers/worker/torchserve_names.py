"""Imports of `ts.…`, TorchServe's own package, find Argosy's modules: inside a worker, and nowhere else.

A handler that was written for TorchServe says `from ts.torch_handler.base_handler import BaseHandler`. The finder here
answers from one table, so there is one module under two names. A name that is not in the table is refused with the page
that says what to do instead.
"""

from __future__ import annotations

import importlib
import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

from argosy.handlers.worker.context import SERVER_VERSION

_ROOT = "ts"
_PACKAGES = (
    "ts",
    "ts.handler_utils",
    "ts.metrics",
    "ts.protocol",
    "ts.torch_handler",
    "ts.torch_handler.request_envelope",
    "ts.utils",
)
_SHIMS = "argosy.handlers.shims"
_WORKER = "argosy.handlers.worker"
MODULES = {
    "ts.context": f"{_WORKER}.context",
    "ts.service": f"{_SHIMS}.service",
    "ts.utils.util": f"{_SHIMS}.util",
    "ts.utils.timeit_decorator": f"{_SHIMS}.timer",
    "ts.handler_utils.hf_batch_streamer": f"{_SHIMS}.hf_batch_streamer",
    "ts.handler_utils.micro_batching": f"{_SHIMS}.micro_batching",
    "ts.handler_utils.text_utils": f"{_SHIMS}.text_utils",
    "ts.handler_utils.timer": f"{_SHIMS}.timer",
    "ts.handler_utils.utils": f"{_SHIMS}.streaming",
    "ts.protocol.otf_message_handler": f"{_SHIMS}.streaming",
    **{
        f"ts.metrics.{name}": f"{_SHIMS}.metrics"
        for name in (
            "caching_metric", "dimension", "metric", "metric_abstract", "metric_cache_abstract", "metric_cache_errors",
            "metric_cache_yaml_impl", "metric_type_enum", "metrics_store", "unit",
        )
    },
    **{
        f"ts.torch_handler.{name}": f"{_SHIMS}.{name}"
        for name in (
            "base_handler", "contractions", "image_classifier", "image_segmenter", "object_detector",
            "text_classifier", "text_handler", "vision_handler",
        )
    },
    **{
        f"ts.torch_handler.request_envelope.{name}": f"{_WORKER}.envelopes"
        for name in ("base", "body", "json", "kserve", "kservev2")
    },
}  # fmt: skip


class TorchServeNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finder and loader of everything below `ts`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a name of TorchServe's; None for other names. Raises: ModuleNotFoundError for one we lack."""
        del path, target
        if fullname != _ROOT and not fullname.startswith(_ROOT + "."):
            return None
        if fullname in _PACKAGES or fullname in MODULES:
            return ModuleSpec(fullname, self, is_package=fullname in _PACKAGES)
        if fullname.rpartition(".")[0] in _PACKAGES and fullname.startswith("ts.__"):
            return None
        raise ModuleNotFoundError(
            f"Argosy has no {fullname!r}; docs/migrating-from-torchserve.md says what takes its place", name=fullname
        )

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module of ours that stands behind the name."""
        if spec.name in _PACKAGES:
            package = ModuleType(spec.name, "TorchServe's name for what Argosy's handlers room holds.")
            package.__dict__["__version__"] = SERVER_VERSION
            return package
        module = importlib.import_module(MODULES[spec.name])
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """It has run already; only its own spec is put back, which importing it under a second name replaced."""
        if module.__spec__ is not None and module.__spec__.loader_state is not None:
            module.__spec__ = module.__spec__.loader_state


def install() -> None:
    """Have imports of `ts` in this process find ours, also where TorchServe is installed. Idempotent."""
    if not any(isinstance(finder, TorchServeNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, TorchServeNames())
