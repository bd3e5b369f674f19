"""Hugging Face and ModelScope: two listings of a repository, one way of pulling it.

A repository is resolved to a commit first and all files are asked for at that commit, so a push in between cannot
mix two versions. Large files come with the SHA-256 that git-lfs keeps; small ones with their git id or digest.

Source: Hugging Face Hub API, `/api/models/{id}/revision/{revision}?blobs=true` and `/{id}/resolve/{revision}/{path}`
(as in huggingface_hub 2.4, hf_api.model_info); ModelScope API, `/api/v1/models/{id}/repo/files` and `/repo` (as in
modelscope/hub/api.py, get_model_files and get_file_download_url).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from argosy.artifacts.blobs import BlobStore
from argosy.artifacts.download import RemoteFile, download
from argosy.artifacts.durable import require_space
from argosy.artifacts.network import UrlRules, require_https
from argosy.artifacts.parallel import all_of
from argosy.artifacts.progress import FetchPhase
from argosy.artifacts.selection import model_files
from argosy.artifacts.sources import Errand, Pulled
from argosy.artifacts.web import WebClient
from argosy.core.environment import read_environment
from argosy.core.errors import ArtifactError
from argosy.core.model import ModelRef, ModelScheme, is_digest, is_name
from argosy.core.network import NetworkSettings

# Domains of the hubs' own content servers, to which they redirect.
HF_CONTENT_HOSTS = ("huggingface.co", "hf.co")
MS_CONTENT_HOSTS = ("modelscope.cn", "modelscope.ai")


class Repository(msgspec.Struct, frozen=True, kw_only=True):
    """A repository at one commit."""

    revision: str
    files: dict[str, RemoteFile]


def hub_rules(ref: ModelRef, settings: NetworkSettings) -> UrlRules:
    """Where a hub reference may lead: the hub's endpoint and its content servers, nothing else."""
    if ref.scheme is ModelScheme.HF:
        endpoint = require_https(settings.hf_endpoint, "the Hugging Face endpoint")
        return UrlRules(prefixes=(f"{endpoint}/",), host_suffixes=HF_CONTENT_HOSTS)
    endpoint = require_https(settings.ms_endpoint, "the ModelScope endpoint")
    return UrlRules(prefixes=(f"{endpoint}/",), host_suffixes=MS_CONTENT_HOSTS)


async def pull(errand: Errand) -> Pulled:
    """Pull from the hub the reference names, with the token of the environment. See `pull_repository`."""
    async with WebClient(hub_rules(errand.ref, errand.network), errand.network) as client:
        return await pull_repository(errand, client, read_environment().hf_token)


async def pull_repository(errand: Errand, client: WebClient, token: str | None) -> Pulled:
    """List the repository, choose the files that make the model, bring them.

    Cancels: keeps what has arrived for the next try. Raises: ArtifactError, SpecError, Forbidden.
    """
    ref, blobs, meter = errand.ref, errand.blobs, errand.meter
    organisation, name, *inner = ref.location.split("/")
    headers = {"authorization": f"Bearer {token}"} if token is not None and ref.scheme is ModelScheme.HF else {}
    listing = _list_hugging_face if ref.scheme is ModelScheme.HF else _list_modelscope
    repository = await listing(f"{organisation}/{name}", ref.revision, client, headers)
    chosen = model_files(ref, repository.files, "/".join(inner) or None)
    files = [repository.files[each] for each in chosen]
    total = sum(file.size_bytes or 0 for file in files)
    require_space(blobs.partial, sum(file.size_bytes or 0 for file in files if not _is_here(file, blobs)))
    meter.begin(FetchPhase.DOWNLOAD, name, total)
    digests = await all_of(
        download(file, client, blobs, lambda size, file=file: meter.advance(size, file.name))  # type: ignore[misc]
        for file in files
    )
    resolved = ModelRef(scheme=ref.scheme, location=ref.location, revision=repository.revision)
    names = [each.rsplit("/", 1)[-1] for each in chosen]
    return Pulled(resolved=resolved, contents=dict(zip(names, digests, strict=True)))


def _is_here(file: RemoteFile, blobs: BlobStore) -> bool:
    return file.sha256 is not None and blobs.has(file.sha256)


async def _list_hugging_face(
    repository: str, revision: str | None, client: WebClient, headers: dict[str, str]
) -> Repository:
    endpoint = client.settings.hf_endpoint.rstrip("/")
    url = f"{endpoint}/api/models/{repository}/revision/{quote(revision or 'main', safe='')}?blobs=true"
    answer = await client.json(url, headers)
    commit = _field(answer, "sha", str, url)
    files = {}
    for row in _field(answer, "siblings", list, url):
        path = _field(row, "rfilename", str, url)
        if not _is_path(path):
            continue
        lfs = row.get("lfs") or {}
        files[path] = RemoteFile(
            name=path,
            url=f"{endpoint}/{repository}/resolve/{quote(commit, safe='')}/{quote(path)}",
            size_bytes=_size(row.get("size"), url),
            sha256=_digest(lfs.get("sha256") or lfs.get("oid"), url),
            git_blob=None if lfs else row.get("blobId"),
            headers=headers,
        )
    return Repository(revision=commit, files=files)


async def _list_modelscope(
    repository: str, revision: str | None, client: WebClient, headers: dict[str, str]
) -> Repository:
    endpoint = client.settings.ms_endpoint.rstrip("/")
    asked = revision or "master"
    url = f"{endpoint}/api/v1/models/{repository}/repo/files?Revision={quote(asked, safe='')}&Recursive=true"
    answer = await client.json(url, headers)
    files = {}
    for row in _field(_field(answer, "Data", dict, url), "Files", list, url):
        path = _field(row, "Path", str, url)
        if row.get("Type") == "tree" or not _is_path(path):
            continue
        files[path] = RemoteFile(
            name=path,
            url=(
                f"{endpoint}/api/v1/models/{repository}/repo"
                f"?Revision={quote(asked, safe='')}&FilePath={quote(path, safe='')}"
            ),
            size_bytes=_size(row.get("Size"), url),
            sha256=_digest(row.get("Sha256"), url),
            headers=headers,
        )
    return Repository(revision=asked, files=files)


def _field(row: Any, name: str, kind: type, url: str) -> Any:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, kind):
        raise ArtifactError(f"{url} answers without {name!r}: check that the endpoint is a model hub")
    return value


def _is_path(path: str) -> bool:
    """Whether a path of a listing is one we could store; others are never asked for (D-06)."""
    return len(path) <= 512 and all(is_name(part) for part in path.split("/"))


def _size(value: Any, url: str) -> int | None:
    if value is not None and (type(value) is not int or value < 0):
        raise ArtifactError(f"{url} answers the size {value!r}: it must be a number of bytes")
    return value


def _digest(value: Any, url: str) -> str | None:
    if not value:
        return None
    digest = f"sha256:{value}"
    if not is_digest(digest):
        raise ArtifactError(f"{url} answers the digest {str(value)[:80]!r}: it must be 64 hex digits")
    return digest
