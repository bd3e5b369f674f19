"""One history of writes, for the tests that interrupt it: what a store holds after each step is known by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from argosy.core.errors import StoreError
from argosy.core.inference_service import (
    InferenceService,
    InferenceServiceSpec,
    InferenceServiceStatus,
    Revision,
    RevisionTemplate,
    ServicePhase,
)
from argosy.core.interfaces import Resource, Store
from argosy.core.metadata import Event, Metadata

NOW = 1_000.0
BULK_STEPS = 80


def service(name: str, model: str, labels: dict[str, str] | None = None) -> InferenceService:
    spec = InferenceServiceSpec(template=RevisionTemplate(model=model))
    return InferenceService(metadata=Metadata(name=name, labels=labels or {}), spec=spec)


async def replaced(store: Store, name: str, model: str) -> None:
    current = await store.get(InferenceService, name)
    spec = InferenceServiceSpec(template=RevisionTemplate(model=model))
    await store.put(msgspec.structs.replace(current, spec=spec))


async def observed(store: Store, name: str, phase: ServicePhase) -> None:
    current = await store.get(InferenceService, name)
    await store.put_status(msgspec.structs.replace(current, status=InferenceServiceStatus(phase=phase)))


async def logged(store: Store, name: str) -> None:
    await store.put(Event(metadata=Metadata(name=name), service="a", subject="a", reason="R", message="m" * 2_000))


STEPS: tuple[Callable[[Store], Any], ...] = (
    lambda store: store.put(service("a", "m0")),
    lambda store: observed(store, "a", ServicePhase.PROGRESSING),
    lambda store: logged(store, "e1"),
    lambda store: store.put(service("b", "m1")),
    lambda store: replaced(store, "a", "m2"),
    lambda store: store.delete(InferenceService, "b"),
    lambda store: logged(store, "e2"),
    lambda store: observed(store, "a", ServicePhase.READY),
    lambda store: store.delete(Event, "e1"),
)


def bulky(number: int) -> Callable[[Store], Any]:
    return lambda store: store.put(service(f"bulk-{number}", "m", {"text": f"{number:05}" * 13_000}))


def steps(bulk: int) -> tuple[Callable[[Store], Any], ...]:
    """bulk: 1 adds writes of 64 KiB, enough for the log to be folded into the file on the way."""
    return STEPS + tuple(bulky(number) for number in range(bulk * BULK_STEPS))


def _nothing(_: int) -> None:
    pass


async def play(
    store: Store,
    bulk: int = 0,
    acknowledged: Callable[[int], None] = _nothing,
    failed: Callable[[int], None] = _nothing,
) -> None:
    """Every step, one after the other, whether or not those before were possible."""
    for number, step in enumerate(steps(bulk)):
        try:
            await step(store)
        except StoreError:
            failed(number)
            return
        acknowledged(number)


def _anonymous(resource: Any) -> Any:
    labels = {key: f"{len(text)}:{text[:9]}" for key, text in resource.metadata.labels.items()}
    return msgspec.to_builtins(
        msgspec.structs.replace(resource, metadata=msgspec.structs.replace(resource.metadata, uid="", labels=labels))
    )


async def fingerprint(store: Store) -> list[Any]:
    """All a store holds, without what is random."""
    found: list[Resource] = []
    for kind in (InferenceService, Revision, Event):
        found += await store.list(kind)
    return [_anonymous(each) for each in found]
