"""The built-in handler `text_classifier`: how likely each class is for a text, one request at a time."""

from __future__ import annotations

from typing import Any

from argosy.handlers.shims.libraries import captum, functional, torch
from argosy.handlers.shims.text_handler import TextHandler
from argosy.handlers.shims.text_utils import ngrams_iterator
from argosy.handlers.shims.util import map_class_to_label


class TextClassifier(TextHandler):
    """For models over an embedding bag: `model(numbers, offsets)`. ngrams: the longest run of words looked up."""

    ngrams = 2

    def preprocess(self, data: list[dict[str, Any]]) -> Any:
        """The first request's text, cleaned, as numbers of the vocabulary; and its words."""
        text = data[0].get("data") or data[0].get("body") or ""
        if isinstance(text, bytes | bytearray):
            text = text.decode()
        text = self._expand_contractions(self._remove_html_tags(text).lower())
        words = self._tokenize(self._remove_punctuation(self._remove_accented_characters(text)))
        numbers = [self.source_vocab[word] for word in ngrams_iterator(words, self.ngrams)]
        return torch.as_tensor(numbers, device=self.device), words

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the model with the numbers, all of one text."""
        numbers, _ = data
        return super().inference(numbers, torch.as_tensor([0], device=self.device))

    def postprocess(self, data: Any) -> list[dict[str, Any]]:
        """The classes' probabilities by their names."""
        return map_class_to_label(functional.softmax(data, dim=-1).tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, _: Any, target: Any = 0) -> list[dict[str, Any]]:
        """What each word says for the class `target`. Needs captum."""
        numbers, words = text_preprocess
        reference = captum.TokenReferenceBase().generate_reference(numbers.shape[0], device=self.device).squeeze(0)
        offsets = torch.tensor([0]).to(self.device)
        attributions = self.lig.attribute(numbers, reference, additional_forward_args=(offsets,), target=target)
        return [
            {"importances": self.summarize_attributions(attributions).tolist(), "words": self.get_word_token(words)}
        ]
