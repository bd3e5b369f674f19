"""Which archive a name or URL means, and whether it may be fetched (D-01, D-02).

A bare name lies in the model store. A URL is refused unless it begins with a prefix that a person allowed; then its
host must resolve to a public address, the address that was checked is the one connected to, and every redirect is
checked again (`artifacts.network`). `file://` outside the model store is a URL like any other.

Texts that clients of TorchServe look for come first. Source: ArchiveUtils and ModelArchive of TorchServe 0.12.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from argosy.artifacts.blobs import BlobStore
from argosy.artifacts.download import download
from argosy.artifacts.locks import held
from argosy.artifacts.network import parse_url
from argosy.artifacts.sources.https import probe, url_rules
from argosy.artifacts.web import WebClient
from argosy.core.errors import Forbidden, InvalidRequest, ModelNotFound, NotFound
from argosy.core.model import is_name
from argosy.core.network import NetworkSettings

_WEB = ("http", "https")
_SUFFIXES = (".mar", ".model", ".tar.gz", ".tgz")


class ArchiveLocations:
    """The archives a server may open. model_store: bare names are in it. root: where fetched ones are kept."""

    def __init__(self, model_store: Path, root: Path, allow_sources: Sequence[str], network: NetworkSettings) -> None:
        self._model_store = model_store.resolve()
        self._root = root
        self._allow_sources = tuple(allow_sources)
        self._network = network

    def all(self) -> list[str]:
        """The names of every archive in the model store: files by their suffix, and directories."""
        found = [
            path.name
            for path in self._model_store.iterdir()
            if not path.name.startswith(".") and (path.is_dir() or path.name.endswith(_SUFFIXES))
        ]
        return sorted(found)

    async def find(self, url: str) -> Path:
        """Where the archive lies, fetched if it must be and may be.

        Cancels: what has arrived is kept. Raises: NotFound, InvalidRequest, Forbidden, ArtifactError.
        """
        try:
            scheme = urlsplit(url).scheme.lower() if "://" in url else ""
        except ValueError as error:
            raise InvalidRequest(f"{url[:200]!r} is not a URL ({error}): correct it", param="url") from error
        if scheme in _WEB:
            return await self._fetch(url)
        if scheme == "file":
            return self._local(url)
        if scheme:
            raise self._not_allowed(url)
        return self._named(url)

    def _named(self, name: str) -> Path:
        if not name or "\0" in name:
            raise ModelNotFound("empty url")
        if ".." in Path(name).parts:
            raise ModelNotFound(f"Relative path is not allowed in url: {name[:200]}")
        if Path(name).is_absolute() or Path(name) == Path():
            raise ModelNotFound(f"{name[:200]} is not in the model store: give the name of an archive in it")
        path = _existing(self._model_store / name)
        if path is None:
            known = ", ".join(self.all()[:20]) or "no archive"
            raise ModelNotFound(f"Model not found at: {name[:200]}: the model store has {known}")
        if path == self._model_store or not path.is_relative_to(self._model_store):
            raise ModelNotFound(
                f"{name[:200]} is a link that leads out of the model store: put the archive itself there"
            )
        return path

    def _local(self, url: str) -> Path:
        split = urlsplit(url)
        path = Path(unquote(split.path))
        if split.netloc not in ("", "localhost") or ".." in path.parts or "\0" in str(path):
            raise ModelNotFound(f"Relative path is not allowed in url: {url[:200]}")
        allowed = [Path(unquote(urlsplit(each).path)) for each in self._allow_sources if each.startswith("file://")]
        folders = [self._model_store, *(folder.resolve() for folder in allowed)]
        if not any(path.is_relative_to(folder) for folder in (*folders, *allowed)):
            raise self._not_allowed(url)
        found = _existing(path)
        if found is None:
            raise ModelNotFound(f"Model not found at: {url[:200]}")
        if found == self._model_store or not any(found.is_relative_to(folder) for folder in folders):
            raise self._not_allowed(url)
        return found

    async def _fetch(self, url: str) -> Path:
        """The archive at a web address, as a file under its own name. Fetched again only if it changed there."""
        target = parse_url(url)
        name = target.path.rsplit("/", 1)[-1]
        rules = url_rules(self._allow_sources)
        try:
            rules.check(target)
        except Forbidden as refused:
            raise self._not_allowed(url) from refused
        if not is_name(name) or not name.endswith(_SUFFIXES):
            raise InvalidRequest(f"{url[:200]} must end in the plain name of a .mar or .tar.gz file", param="url")
        blobs = BlobStore(self._root)
        blobs.create()
        async with held(self._root / "fetch.lock"), WebClient(rules, self._network) as client:
            file = await client.retried(lambda: probe(name, url, client), url)
            digest = await download(file, client, blobs, lambda _: None)
            return await asyncio.to_thread(_under_its_name, blobs.path(digest), self._root / "fetched", name)

    def _not_allowed(self, url: str) -> NotFound:
        return ModelNotFound(
            f"Given URL {url[:200]} does not match any allowed URL(s): put the archive into the model store, or let "
            "the operator start the server with --allow-source and the beginning of the URL"
        )


def _existing(path: Path) -> Path | None:
    """The path without links; None if there is nothing, or if no file can be called so, or links lead in a circle."""
    try:
        return path.resolve(strict=True)
    except (OSError, RuntimeError):
        return None


def _under_its_name(blob: Path, folder: Path, name: str) -> Path:
    """A second name for a blob: archives are named after their files."""
    path = folder / blob.name / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.hardlink_to(blob)
    return path
