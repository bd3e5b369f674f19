"""The second reading of a tokenizer: the same model, blind to special tokens.

`tokenizers` finds added tokens in any text it is given. A user's text must not be read so (D-28).
"""

from __future__ import annotations

import secrets

import tokenizers
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import Metaspace

from argosy.text.vocabulary import Vocabulary


def without_reserved(engine: tokenizers.Tokenizer, vocabulary: Vocabulary) -> tokenizers.Tokenizer:
    """A tokenizer over the same model object (nothing is copied) that finds no reserved token in text.

    Added tokens get ids in the order they are added, so a reserved one that is not an entry of the model keeps its
    place by a random name nobody can write.
    """
    plain = tokenizers.Tokenizer(engine.model)
    if engine.normalizer is not None:
        plain.normalizer = engine.normalizer
    if engine.pre_tokenizer is not None:
        plain.pre_tokenizer = engine.pre_tokenizer
    model_size = engine.get_vocab_size(with_added_tokens=False)
    added = []
    for index, token in sorted(engine.get_added_tokens_decoder().items()):
        if token.content not in vocabulary.reserved_tokens:
            added.append(token)
        elif index >= model_size:
            added.append(AddedToken(f"\ue000{secrets.token_hex(16)}\ue001", special=True, normalized=False))
    plain.add_tokens(added)
    return plain


def inside_text(plain: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """`plain` for stretches that do not begin the text: a vocabulary that puts a space only there must not do so."""
    metaspace = plain.pre_tokenizer
    if not isinstance(metaspace, Metaspace) or metaspace.prepend_scheme != "first":
        return plain
    inside = tokenizers.Tokenizer(plain.model)
    if plain.normalizer is not None:
        inside.normalizer = plain.normalizer
    inside.pre_tokenizer = Metaspace(replacement=metaspace.replacement, prepend_scheme="never", split=metaspace.split)
    inside.add_tokens([token for _, token in sorted(plain.get_added_tokens_decoder().items())])
    return inside
