"""The sockets: what an engine, a predictor, a backend and a store are.

(A wire protocol is one function type, `argosy.protocols.Routes`; a balancer is one, too, in `argosy.core.routing`.)

Adding an engine = one file + one line in `argosy.engines.ENGINES` + passing tests/contract/test_engine.py. Predictors
(tests/contract/test_predictor.py), backends (`argosy.backends.BACKENDS`, tests/contract/test_backend.py) and stores
(tests/contract/test_store.py) likewise.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import msgspec

from argosy.core.adapter import Adapter
from argosy.core.engine import EngineInfo, EngineStats
from argosy.core.errors import ArgosyError
from argosy.core.generation import GenerateOutput, GenerateRequest
from argosy.core.metadata import Metadata
from argosy.core.prediction import HandlerMetric, Prediction, PredictRequest, WorkerFacts
from argosy.core.resources import DeviceStatus
from argosy.core.workload import ReplicaUse, Workload, WorkloadStatus


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


class Predictor(Protocol):
    """Payloads in, payloads out, a batch at a time: one worker process with a handler, or a preset over an engine."""

    async def start(self) -> None:
        """Load the model; return when it can predict.

        Cancels: leaves nothing running. Raises: EngineError with what the handler said, OutOfResources, SpecError.
        """
        ...

    def predict(self, batch: Sequence[PredictRequest]) -> AsyncGenerator[Prediction]:
        """Answer every request of the batch; one call at a time. Each index gets pieces, the last one `is_last`.

        Cancels: closing the generator gives the answers up; a predictor that cannot stop its handler's call ends it.
        Raises: HandlerError if the call failed as a whole (some pieces may be out), OutOfResources, WorkerDied if it
        cannot be used any more.
        """
        ...

    async def describe(self) -> Any:
        """What the handler says of itself, as JSON values; None if it says nothing. Raises: as `predict`."""
        ...

    def facts(self) -> WorkerFacts:
        """The process now. Never blocks."""
        ...

    def report_metrics(self, on_metric: Callable[[HandlerMetric], None]) -> None:
        """Call `on_metric` with each observation the handler reports from now on."""
        ...

    async def close(self) -> None:
        """End it; what runs is given up. Idempotent."""
        ...


@runtime_checkable
class ConcurrentCalls(Protocol):
    """A predictor that takes several calls of `predict` at a time; closing one of them costs the others nothing."""

    @property
    def max_concurrent_calls(self) -> int:
        """How many it takes at a time."""
        ...


@runtime_checkable
class CallsAhead(Protocol):
    """A predictor that can be given calls before it has answered the one at hand, so that it need not wait for them.

    It begins and answers them in the order in which they were first iterated. If it ends, a call it had not begun
    raises NotBegun. Closing one that it had not begun takes it back.
    """

    @property
    def max_calls_ahead(self) -> int:
        """How many further calls may be open beside the one being answered."""
        ...


@runtime_checkable
class EndReports(Protocol):
    """A predictor that says when it has come to an end by itself, also while nobody calls it."""

    async def ended(self) -> ArgosyError:
        """Return why, once it cannot be used any more. Cancels: stops watching."""
        ...


class Backend(Protocol):
    """Runs Workloads somewhere. Idempotent and level-triggered: doing it twice is doing it once."""

    def render(self, workload: Workload) -> str:
        """Exactly what `apply` would submit, for people to read. Pure."""
        ...

    async def apply(self, workload: Workload) -> None:
        """Create, resize or update in place; returns once it is noted, not once it runs.

        Fewer replicas: those that are not ready go first, then the youngest; each drains before it ends.
        Raises: Unschedulable if it can never fit, BackendError.
        """
        ...

    async def delete(self, name: str) -> None:
        """Drain and end all replicas. An absent workload is success. Raises: BackendError."""
        ...

    async def list(self) -> list[WorkloadStatus]:
        """What is, not what was asked; replicas still draining after a delete included. Raises: BackendError."""
        ...

    def logs(self, name: str, replica: str, *, follow: bool) -> AsyncGenerator[str]:
        """A replica's log lines, oldest first, also of one that failed. Raises: NotFound, on the first iteration.

        Cancels: stops following.
        """
        ...

    async def changed(self) -> None:
        """Return when something may have changed: a hint, may be spurious, may be lost."""
        ...


@runtime_checkable
class DeviceReports(Protocol):
    """A backend that knows its devices."""

    async def devices(self) -> list[DeviceStatus]:
        """What there is, and who holds it."""
        ...


@runtime_checkable
class UsageReports(Protocol):
    """A backend that knows what its replicas take."""

    async def usage(self) -> Mapping[str, ReplicaUse]:
        """By replica name; those without a process are left out."""
        ...


class Resource(Protocol):
    """What a store keeps: a frozen struct with metadata, mostly also `spec` and `status`."""

    @property
    def metadata(self) -> Metadata:
        """Identity and versions."""
        ...


R = TypeVar("R", bound=Resource)


class Change(msgspec.Struct, Generic[R], frozen=True, kw_only=True):
    """A resource as it is now, or as it was when it was deleted."""

    resource: R
    is_deleted: bool = False


class Store(Protocol):
    """Desired state with optimistic concurrency. SQLite on a laptop, custom resources on Kubernetes.

    Every method raises StoreError if the medium fails; what was stored before is then untouched.
    """

    async def get(self, kind: type[R], name: str) -> R:
        """Raises: NotFound."""
        ...

    async def list(self, kind: type[R]) -> list[R]:
        """All of a kind, by name."""
        ...

    async def put(self, resource: R) -> R:
        """Create (resource_version 0) or replace; returns it as stored. A changed spec raises the generation.

        The status given is ignored when replacing. Raises: Conflict if it exists already, or changed since it was read.
        """
        ...

    async def put_status(self, resource: R) -> R:
        """Replace the status only; the spec given is ignored. Raises: NotFound, Conflict."""
        ...

    async def delete(self, kind: type[R], name: str) -> None:
        """Raises: NotFound."""
        ...

    def watch(self, kind: type[R]) -> AsyncGenerator[Change[R]]:
        """All there is, then every change from then on. A slow reader misses states in between, never the last one.

        Cancels: stops watching.
        """
        ...
