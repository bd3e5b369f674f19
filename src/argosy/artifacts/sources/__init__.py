"""Where models come from, one file per kind of place.

Each source is one function: it puts contents into the store's blobs and answers what it found, as `Pulled`. It
knows nothing of manifests, snapshots or formats; `fetch.py` does the rest, the same for all.
"""

from __future__ import annotations

import msgspec

from argosy.core.model import ModelRef


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
