"""One process's models and its phase: what `run.py` moves through its life and the routes ask."""

from __future__ import annotations

from collections.abc import Callable

from argosy.serving.registry import ModelRegistry
from argosy.web.lifecycle import Lifecycle


class Replica(Lifecycle):
    """A server whose work is models. It is ready once they answer, and dead when an engine is."""

    def __init__(self, start_seconds: Callable[[], dict[str, float]] | None = None) -> None:
        super().__init__("the model is loading")
        self.registry = ModelRegistry()
        self.start_seconds = start_seconds or self.start_seconds
