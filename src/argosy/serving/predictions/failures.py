"""How the administration fails in its own way; all else it raises is the core's."""

from __future__ import annotations

from argosy.core.errors import EngineError


class StartFailed(EngineError):
    """A version's first workers did not start, and it was unregistered again. name, version: which."""

    def __init__(self, name: str, version: str, error: EngineError) -> None:
        super().__init__(f"Failed to start workers for model {name} version: {version}: {error.message}")
        self.name = name
        self.version = version
