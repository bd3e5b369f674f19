"""Models in object stores, `s3:`, `gs:` and `oss:`, through fsspec (extra `remote`) and the machine's own credentials.

A reference names one .gguf object or a "directory" of model files, and must begin with a prefix that a person
allowed. Each object is one thread's stream into the store; a broken one goes on where it stopped if the object is
still the same (size and entity tag).
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from argosy.artifacts.blobs import BlobStore
from argosy.artifacts.durable import CHUNK_BYTES, disk_full_means, require_space, sha256_of
from argosy.artifacts.parallel import all_of
from argosy.artifacts.progress import FetchPhase, ProgressMeter
from argosy.artifacts.selection import model_files
from argosy.artifacts.sources import Errand, Pulled
from argosy.core.errors import ArtifactError, Forbidden
from argosy.core.model import ModelRef, is_name

MAX_PARALLEL_OBJECTS = 4


def require_allowed(ref: ModelRef, allow_sources: Sequence[str]) -> str:
    """The reference as a URL. Raises: Forbidden unless it lies below an allowed prefix."""
    url = f"{ref.scheme.value}:{ref.location}"
    for prefix in allow_sources:
        if f"{url}/".startswith(prefix if prefix.endswith("/") else f"{prefix}/"):
            return url
    bucket = "/".join(url.split("/")[:3])
    raise Forbidden(f"{url} is not on the allow-list: if you trust it, pass --allow-source {bucket}/")


async def pull(errand: Errand) -> Pulled:
    """Bring the object, or the model files of the directory.

    Cancels: after the pieces in flight; keeps what has arrived. Raises: ArtifactError, SpecError, Forbidden.
    """
    ref, blobs, meter = errand.ref, errand.blobs, errand.meter
    url = require_allowed(ref, errand.allow_sources)
    files = await asyncio.to_thread(_open_file_system, ref)
    listed = await asyncio.to_thread(_listing, files, url)
    names = list(listed) if len(listed) == 1 else model_files(ref, listed, None)
    total = sum(int(listed[name].get("size") or 0) for name in names)
    require_space(blobs.partial, total)
    meter.begin(FetchPhase.DOWNLOAD, names[0], total)
    gate = asyncio.Semaphore(MAX_PARALLEL_OBJECTS)

    async def bring(name: str) -> str:
        async with gate:
            return await _bring_object(files, listed[name], blobs, meter)

    digests = await all_of(bring(name) for name in names)
    return Pulled(resolved=ref, contents=dict(zip(names, digests, strict=True)))


def _open_file_system(ref: ModelRef) -> Any:
    try:
        fsspec = importlib.import_module("fsspec")
        return fsspec.filesystem(ref.scheme.value)
    except ImportError as error:
        raise ArtifactError(
            f"{ref.scheme.value}: references need more packages ({error}): run `pip install 'argosy[remote]'`"
        ) from error


def _listing(files: Any, url: str) -> dict[str, dict[str, Any]]:
    """Plain file name -> what the object store says of it."""
    try:
        here = files.info(url)
        rows = [here] if here["type"] == "file" else files.ls(url, detail=True)
    except OSError as error:
        raise ArtifactError(f"{url} cannot be read ({error}): check the path and the credentials") from error
    listed = {str(row["name"]).rsplit("/", 1)[-1]: row for row in rows if row["type"] == "file"}
    return {name: row for name, row in listed.items() if is_name(name)}


async def _bring_object(files: Any, row: dict[str, Any], blobs: BlobStore, meter: ProgressMeter) -> str:
    size = int(row.get("size") or 0)
    tag = {key: str(row[key]) for key in ("ETag", "etag", "LastModified", "mtime") if key in row}
    key = hashlib.sha256(json.dumps([row["name"], size, tag], sort_keys=True).encode()).hexdigest()
    partial = blobs.partial / f"{key}.part"
    have = partial.stat().st_size if partial.exists() and tag else 0
    meter.advance(have, str(row["name"]))
    try:
        with disk_full_means(blobs.partial, size - have):
            while have < size:
                got = await asyncio.to_thread(_append_piece, files, row["name"], partial, have, size)
                have += got
                meter.advance(got, str(row["name"]))
    except (EOFError, TimeoutError, ConnectionError) as error:
        raise ArtifactError(f"{row['name']}: {error}; what has arrived is kept: pull again", retryable=True) from error
    digest = await asyncio.to_thread(sha256_of, partial)
    await asyncio.to_thread(blobs.adopt, partial, digest)
    return digest


def _append_piece(files: Any, name: str, partial: Path, offset: int, size: int) -> int:
    piece: bytes = files.cat_file(name, start=offset, end=min(offset + CHUNK_BYTES, size))
    if not piece:
        raise EOFError(f"the object ends at byte {offset}, it has {size}")
    with partial.open("r+b" if offset else "wb") as target:
        target.seek(offset)
        target.write(piece)
    return len(piece)
