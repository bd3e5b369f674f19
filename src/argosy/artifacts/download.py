"""One remote file into the blob store: in parallel ranges, resumable, verified.

A big file is cut into ranges that several connections fetch at once into one sparse file; a journal beside it says
which ranges are whole. After a crash, ^C or a dropped line the next pull asks only for what is missing. The journal
need not be trusted: the digest of the finished file decides, and a file without a published digest is resumed only
under the server's own tag for its content (`ETag`).

Source: RFC 9110 §14 (Range, Content-Range), §13.1.5 (If-Range).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from argosy.artifacts.blobs import BlobStore
from argosy.artifacts.durable import disk_full_means, require_space, sha256_of
from argosy.artifacts.parallel import all_of
from argosy.artifacts.web import TransientFault, WebClient
from argosy.core.errors import ArtifactError

MAX_UNVERIFIED_BYTES = 64 * 2**20  # files without a digest and a tag: configs and tokenizers
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")
GRACE_SECONDS = 30.0


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file on a web server and what is known of it before it comes.

    sha256: `sha256:…` of its bytes. git_blob: its git object id (SHA-1 of a header and its bytes). etag: a strong tag.
    """

    name: str
    url: str
    size_bytes: int | None = None
    sha256: str | None = None
    git_blob: str | None = None
    etag: str | None = None
    headers: dict[str, str] = {}

    @property
    def identity(self) -> str | None:
        """What names exactly this content, across sessions; None if nothing does."""
        return self.sha256 or (f"{self.url} {self.etag}" if self.etag else None)


class _Journal(msgspec.Struct, kw_only=True):
    """Which ranges of a partial file are whole."""

    size_bytes: int
    range_bytes: int
    done: list[int]


async def download(file: RemoteFile, client: WebClient, blobs: BlobStore, on_bytes: Callable[[int], None]) -> str:
    """Bring the file into the store and return its digest.

    on_bytes: told of every byte that need not be fetched any more, including those from an earlier try.
    Cancels: keeps the ranges that are whole. Raises: ArtifactError, Forbidden.
    """
    if file.sha256 is not None and await asyncio.to_thread(blobs.has, file.sha256):
        on_bytes(file.size_bytes or 0)
        return file.sha256
    size = file.size_bytes
    if size is not None and size > client.settings.max_file_bytes:
        raise ArtifactError(f"{file.name} holds {size:,} bytes, may hold {client.settings.max_file_bytes:,}")
    if file.identity is not None and size is not None and size > 0:
        return await _RangedDownload(file, client, blobs, on_bytes, size).run()
    return await _download_whole(file, client, blobs, on_bytes)


class _RangedDownload:
    """The parallel, resumable way, for files of known size and identity."""

    def __init__(
        self, file: RemoteFile, client: WebClient, blobs: BlobStore, on_bytes: Callable[[int], None], size: int
    ) -> None:
        self.file, self.client, self.blobs, self.on_bytes, self.size = file, client, blobs, on_bytes, size
        key = hashlib.sha256((file.identity or "").encode()).hexdigest()
        self.partial = blobs.partial / f"{key}.part"
        self.journal_path = blobs.partial / f"{key}.json"
        self.journal = self._read_journal()
        self._are_ranges_honoured = True

    async def run(self) -> str:
        missing = [index for index in range(self._num_ranges()) if index not in set(self.journal.done)]
        self.on_bytes(sum(self._length(index) for index in self.journal.done))
        needed = sum(self._length(index) for index in missing)
        require_space(self.blobs.partial, needed)
        descriptor = os.open(self.partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with disk_full_means(self.blobs.partial, needed):
                os.ftruncate(descriptor, self.size)
                await self._fetch_all(descriptor, missing)
        finally:
            os.close(descriptor)
        return await asyncio.to_thread(self._finish)

    async def _fetch_all(self, descriptor: int, missing: list[int]) -> None:
        """The first range alone, to see whether the server knows ranges; the others at once, or all as one."""
        for index in missing[:1]:
            await self._fetch_and_note(descriptor, index)
        queue = iter(missing[1:])
        if not self._are_ranges_honoured and len(missing) > 1:
            self.on_bytes(-sum(self._length(index) for index in self.journal.done))
            self.journal = _Journal(size_bytes=self.size, range_bytes=self.size, done=[])
            queue = iter([0])

        async def work() -> None:
            for index in queue:
                await self._fetch_and_note(descriptor, index)

        await all_of(work() for _ in range(min(self.client.settings.num_connections, len(missing))))

    async def _fetch_and_note(self, descriptor: int, index: int) -> None:
        await self._fetch_range(descriptor, index)
        self.journal.done.append(index)
        self._write_journal()

    async def _fetch_range(self, descriptor: int, index: int) -> None:
        start = index * self.journal.range_bytes
        length, got = self._length(index), 0

        async def attempt() -> None:
            nonlocal got
            first, last = start + got, start + length - 1
            headers = {**self.file.headers, "range": f"bytes={first}-{last}"}
            if self.file.etag is not None:
                headers["if-range"] = self.file.etag
            limit = GRACE_SECONDS + (length - got) / self.client.settings.min_bytes_per_second
            async with self.client.get(self.file.url, headers) as response, asyncio.timeout(limit):
                self._are_ranges_honoured = response.status_code == 206
                skip = _bytes_to_skip(response, first, last, self.size, self.file)
                async for piece in response.aiter_raw():
                    if skip >= len(piece):
                        skip -= len(piece)
                        continue
                    kept = piece[skip:][: length - got]
                    skip = 0
                    await asyncio.to_thread(_write_at, descriptor, kept, start + got)
                    got += len(kept)
                    self.on_bytes(len(kept))
                    if got == length:
                        return
            raise TransientFault(f"the answer ends {length - got} bytes early")

        await self.client.retried(attempt, self.file.url, lambda: got)

    def _finish(self) -> str:
        digest = sha256_of(self.partial)
        self.journal_path.unlink(missing_ok=True)
        if self.file.sha256 is not None and digest != self.file.sha256:
            self.partial.unlink()
            raise ArtifactError(
                f"{self.file.name} from {self.file.url} has digest {digest}, must have {self.file.sha256}: "
                "it was thrown away; pull again, and if it repeats do not trust that server"
            )
        self.blobs.adopt(self.partial, digest)
        return digest

    def _num_ranges(self) -> int:
        return -(-self.size // self.journal.range_bytes)

    def _length(self, index: int) -> int:
        return min(self.journal.range_bytes, self.size - index * self.journal.range_bytes)

    def _read_journal(self) -> _Journal:
        """The journal of an earlier try, if it is about this content and its data is there; else an empty one."""
        fresh = _Journal(size_bytes=self.size, range_bytes=self.client.settings.range_bytes, done=[])
        try:
            found = msgspec.json.decode(self.journal_path.read_bytes(), type=_Journal)
            is_whole = self.partial.stat().st_size == self.size == found.size_bytes and found.range_bytes > 0
        except (FileNotFoundError, msgspec.MsgspecError):
            return fresh
        limit = -(-self.size // found.range_bytes) if is_whole else 0
        return found if is_whole and all(0 <= index < limit for index in found.done) else fresh

    def _write_journal(self) -> None:
        aside = self.journal_path.with_suffix(".json.tmp")
        aside.write_bytes(msgspec.json.encode(self.journal))
        aside.replace(self.journal_path)


def _bytes_to_skip(response: httpx.Response, first: int, last: int, size: int, file: RemoteFile) -> int:
    """How many bytes of the body come before `first`: none for the range we asked, all before it for a whole file."""
    name = file.name
    if file.etag is not None and response.headers.get("etag") != file.etag:
        raise ArtifactError(f"{name} changed at the server while it was pulled: pull again")
    if response.status_code == 200:
        length = response.headers.get("content-length", str(size))
        if length != str(size):
            raise ArtifactError(f"{name} is {length} bytes at the server, must be {size}: pull again")
        return first
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or (int(found[1]), int(found[2]), int(found[3])) != (first, last, size):
        shown = response.headers.get("content-range", "nothing")[:80]
        raise ArtifactError(f"{name}: the server sends {shown}, asked was bytes {first}-{last}/{size}: pull again")
    return 0


def _write_at(descriptor: int, content: bytes, offset: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


async def _download_whole(
    file: RemoteFile, client: WebClient, blobs: BlobStore, on_bytes: Callable[[int], None]
) -> str:
    """The simple way, for small files without a digest: all at once, from the start at each try."""
    limit = file.size_bytes if file.size_bytes is not None else MAX_UNVERIFIED_BYTES
    if limit > MAX_UNVERIFIED_BYTES:
        raise ArtifactError(
            f"{file.name} holds {limit:,} bytes and its server gives no digest and no tag: it cannot be verified"
        )
    body = bytearray()

    async def attempt() -> None:
        body.clear()
        patience = GRACE_SECONDS + limit / client.settings.min_bytes_per_second
        async with client.get(file.url, file.headers) as response, asyncio.timeout(patience):
            async for piece in response.aiter_raw():
                body.extend(piece)
                if len(body) > limit:
                    raise ArtifactError(f"{file.name} is longer than {limit:,} bytes: it is refused")
        if file.size_bytes is not None and len(body) != file.size_bytes:
            raise TransientFault(f"the answer ends {file.size_bytes - len(body)} bytes early")

    await client.retried(attempt, file.url)
    git_blob = hashlib.sha1(b"blob %d\0" % len(body) + body, usedforsecurity=False).hexdigest()
    if file.git_blob is not None and git_blob != file.git_blob:
        raise ArtifactError(f"{file.name} has git id {git_blob}, must have {file.git_blob}: pull again")
    on_bytes(len(body))
    return await asyncio.to_thread(_store_small, bytes(body), blobs)


def _store_small(content: bytes, blobs: BlobStore) -> str:
    require_space(blobs.partial, len(content))
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with (
        blobs.scratch_directory("small") as scratch,
        disk_full_means(blobs.partial, len(content)),
    ):
        aside = Path(scratch) / "content"
        aside.write_bytes(content)
        blobs.adopt(aside, digest)
    return digest
