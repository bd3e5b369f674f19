"""The sockets of the data plane: what an engine is. (A wire protocol is one function type: `argosy.protocols`.)

Adding an engine = one file + one line in `argosy.engines.ENGINES` + passing tests/contract/test_engine.py.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from argosy.core.adapter import Adapter
from argosy.core.engine import EngineInfo, EngineStats
from argosy.core.generation import GenerateOutput, GenerateRequest


class Engine(Protocol):
    """Prompt token ids in, completion token ids out. Knows nothing of text, HTTP, or model names."""

    @property
    def info(self) -> EngineInfo:
        """The engine's facts; complete once `start` has returned."""
        ...

    async def start(self) -> None:
        """Load the weights and be ready to generate.

        Cancels: leaves nothing running. Raises: EngineError; SpecError if the files are wrong.
        """
        ...

    def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateOutput]:
        """Generate one sequence, output by output; the last one carries `finish_reason`.

        Cancels: closing the generator aborts the request and frees its KV cache before aclose() returns.
        Raises: EngineError for this request only, EngineDead for all; never before the first iteration.
        """
        ...

    def stats(self) -> EngineStats:
        """The load now. Never blocks."""
        ...

    async def check_health(self) -> None:
        """Return if the engine can serve. Raises: EngineDead."""
        ...

    async def close(self) -> None:
        """Abort what runs, free everything. Idempotent."""
        ...


@runtime_checkable
class AdapterSupport(Protocol):
    """An engine that serves LoRA adapters beside its base model."""

    async def load_adapter(self, adapter: Adapter) -> None:
        """Make the adapter usable. Raises: SpecError if it does not fit the base; the base serves on."""
        ...

    async def unload_adapter(self, name: str) -> None:
        """Forget the adapter once its running requests end. Raises: NotFound."""
        ...


@runtime_checkable
class StartReports(Protocol):
    """An engine that says what its start is doing, and what it consisted of."""

    @property
    def start_seconds(self) -> Mapping[str, float]:
        """The parts of a finished start, in order."""
        ...

    def report_start(self, on_activity: Callable[[str], None]) -> None:
        """Call `on_activity` with what start() does, each time that changes; "" = nothing worth a word."""
        ...


@runtime_checkable
class EmbeddingSupport(Protocol):
    """An engine that turns token ids into one vector each."""

    async def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """One unit-length vector per prompt. Raises: EngineError."""
        ...
