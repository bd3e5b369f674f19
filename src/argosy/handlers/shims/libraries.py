"""Large libraries that an installation may lack, imported at their first use."""

from __future__ import annotations

import importlib
from typing import Any


class LazyLibrary:
    """Stands for a module: its attributes are the module's. Raises: ModuleNotFoundError at the first use."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)


torch: Any = LazyLibrary("torch")
functional: Any = LazyLibrary("torch.nn.functional")
pillow: Any = LazyLibrary("PIL.Image")
captum: Any = LazyLibrary("captum.attr")
