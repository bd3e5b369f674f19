"""A single GGUF file at an `https:` URL that a person allowed.

Such a server publishes no digest, so what is stored is what TLS delivered; the digest is recorded then and held from
there on. Resuming is safe only under a strong `ETag`; without one the file is fetched in one go, up to 64 MiB.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.artifacts.download import RemoteFile, download
from argosy.artifacts.network import UrlRules
from argosy.artifacts.progress import FetchPhase
from argosy.artifacts.sources import Errand, Pulled
from argosy.artifacts.web import WebClient
from argosy.core.errors import SpecError
from argosy.core.model import is_name


def url_rules(allow_sources: Sequence[str]) -> UrlRules:
    """Web addresses a person allowed, by prefix."""
    return UrlRules(prefixes=tuple(prefix for prefix in allow_sources if prefix.startswith(("https://", "http://"))))


async def pull(errand: Errand) -> Pulled:
    """Bring the file, over a client of its own. See `pull_url`."""
    async with WebClient(url_rules(errand.allow_sources), errand.network) as client:
        return await pull_url(errand, client)


async def pull_url(errand: Errand, client: WebClient) -> Pulled:
    """Bring the file. Cancels: keeps what has arrived. Raises: ArtifactError, SpecError, Forbidden."""
    ref, meter = errand.ref, errand.meter
    url = f"https:{ref.location}"
    name = ref.location.rsplit("/", 1)[-1]
    if not name.endswith(".gguf") or not is_name(name):
        raise SpecError(f"{ref} must end in the plain name of a .gguf file: other formats are several files")
    file = await client.retried(lambda: probe(name, url, client), url)
    meter.begin(FetchPhase.DOWNLOAD, name, file.size_bytes)
    digest = await download(file, client, errand.blobs, meter.advance)
    return Pulled(resolved=ref, contents={name: digest})


async def probe(name: str, url: str, client: WebClient) -> RemoteFile:
    """What the server says of the file, from the head of one answer whose body is not read."""
    async with client.get(url, {}) as response:
        length = response.headers.get("content-length", "")
        etag = response.headers.get("etag", "")
    file = RemoteFile(name=name, url=url, size_bytes=int(length) if length.isdecimal() else None)
    return msgspec.structs.replace(file, etag=etag) if etag.startswith('"') else file
