"""`TextHandler`: cleaning English text, and the vocabulary of a text model.

The vocabulary is `source_vocab.json`, numbers by words. TorchServe's `source_vocab.pt` is a pickle: it is loaded only
where the operator allowed that content, and only as far as PyTorch's own restricted reader goes.
"""

from __future__ import annotations

import json
import re
import string
import unicodedata
from functools import cached_property
from pathlib import Path
from typing import Any

from argosy.handlers.shims.base_handler import BaseHandler
from argosy.handlers.shims.contractions import CONTRACTION_MAP
from argosy.handlers.shims.libraries import captum, functional, torch
from argosy.handlers.shims.text_utils import get_tokenizer
from argosy.handlers.shims.util import CLEANUP_REGEX
from argosy.handlers.shims.weights import check_allowed
from argosy.handlers.worker.calls import PredictionException
from argosy.handlers.worker.context import Context

CONTRACTIONS_PATTERN = re.compile(f"({'|'.join(CONTRACTION_MAP)})", flags=re.IGNORECASE | re.DOTALL)
_VOCABULARY = "source_vocab.json"
_UNKNOWN = "<unk>"


class Vocabulary(dict[str, int]):
    """Numbers by words. A word that is not in it has the number of `<unk>`, if that is."""

    def __missing__(self, word: str) -> int:
        if _UNKNOWN not in self:
            raise PredictionException(f"the model's vocabulary has no {word!r}, and no {_UNKNOWN}", 400)
        return self[_UNKNOWN]


class TextHandler(BaseHandler):
    """Loads model and vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.source_vocab: Any = None
        self.tokenizer = get_tokenizer("basic_english")
        self.input_text: Any = None

    @cached_property
    def lig(self) -> Any:
        """Integrated gradients of the model's embedding, for explanations. Needs captum."""
        return captum.LayerIntegratedGradients(self.model, self.model.embedding)

    def initialize(self, context: Context) -> None:
        """Raises: SpecError if the archive has no vocabulary that may be loaded."""
        super().initialize(context)
        root = Path(context.system_properties["model_dir"])
        if (root / _VOCABULARY).is_file():
            self.source_vocab = Vocabulary(json.loads((root / _VOCABULARY).read_text(encoding="utf-8")))
            return
        path = root / self.manifest["model"].get("sourceVocab", "source_vocab.pt")
        check_allowed(path, context.allowed_content)
        self.source_vocab = torch.load(path, weights_only=True)

    def _expand_contractions(self, text: str) -> str:
        def written_out(match: re.Match[str]) -> str:
            found = match.group(0)
            return found[0] + CONTRACTION_MAP[found.lower()][1:]

        return CONTRACTIONS_PATTERN.sub(written_out, text).replace("'", "")

    def _remove_accented_characters(self, text: str) -> str:
        return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()

    def _remove_html_tags(self, text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(str.maketrans("", "", string.punctuation))

    # As TorchServe spells it, too.
    _remove_puncutation = _remove_punctuation

    def _tokenize(self, text: str) -> list[str]:
        return self.tokenizer(text)

    def get_word_token(self, input_tokens: list[str]) -> list[str]:
        """Words without the mark that byte-level tokenizers put before them."""
        return [token.replace("Ġ", "") for token in input_tokens]

    def summarize_attributions(self, attributions: Any) -> Any:
        """What each word contributed, of length 1 together."""
        summed = functional.softmax(attributions, dim=-1).sum(dim=-1)
        return summed / torch.norm(summed)
