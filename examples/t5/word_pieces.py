"""The vocabulary of the small T5: a sentencepiece unigram model whose pieces are the words of the numbers.

A trained unigram model glues German words where it likes (`tausendneun`, `hundertneunundneunzig`), so one word has
many shapes and the network has to learn each. Here the pieces are chosen: every word of 0 to 99, the words for a
hundred and a thousand, the words of the prompt, and single characters for everything else. All words have one score
and characters a worse one, so the best path through a text is the one with the fewest pieces. That makes a number at
most a dozen pieces long, which is most of the training and serving speed.

Normalisation is inside the model, so the slow and the fast tokenizer and CTranslate2 all share it: NFKC, lower case,
typographic dashes and apostrophes to the plain ones. The German sharp s stays (case folding would make it ss).
"""

from __future__ import annotations

import io
import json
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import sentencepiece
from number_pairs import LANGUAGES, LEXICON_END
from sentencepiece import sentencepiece_model_pb2 as model_format
from transformers import T5Tokenizer, T5TokenizerFast

SPACE = "\u2581"
"""How sentencepiece writes the space before a word."""

CHARACTERS = "abcdefghijklmnopqrstuvwxyzàâäçèéêëîïôöùûüÿßœæ0123456789.,;:!?'\"()-/%&+=€$" + SPACE
GERMAN_JOINTS = ("ein", "hundert", "tausend")
WORD_SCORE, CHARACTER_SCORE = -6.0, -12.0
NORMALISED_RANGES = ((0x20, 0x250), (0x1E00, 0x1F00), (0x2000, 0x2070), (0xFB00, 0xFB07), (0xFF01, 0xFF5F))
PLAIN = {"‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "−": "-", "’": "'", "‘": "'", "“": '"', "”": '"'}


def write_tokenizer(folder: Path, say: Callable[[int, str], str], max_length: int) -> T5TokenizerFast:
    """Write spiece.model and both tokenizers' files into a folder and return the fast tokenizer.

    `say(number, language)` gives the words of a number.
    """
    model = _empty_model_with_rules()
    del model.pieces[:]
    for piece, kind in (("<pad>", "CONTROL"), ("</s>", "CONTROL"), ("<unk>", "UNKNOWN")):
        model.pieces.add(piece=piece, score=0.0, type=model_format.ModelProto.SentencePiece.Type.Value(kind))
    words = sorted(_words(say))
    for word in words:
        model.pieces.add(piece=word, score=WORD_SCORE)
    for character in sorted(set(CHARACTERS) - set(words)):
        model.pieces.add(piece=character, score=CHARACTER_SCORE)
    model.trainer_spec.vocab_size = len(model.pieces)
    path = folder / "spiece.model"
    path.write_bytes(model.SerializeToString())
    slow = T5Tokenizer(str(path), extra_ids=0, legacy=True, model_max_length=max_length)
    slow.save_pretrained(folder)
    T5TokenizerFast.from_pretrained(folder).save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    del settings["add_prefix_space"]  # with this key set, every load would convert the slow tokenizer again
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return T5TokenizerFast.from_pretrained(folder)


def _words(say: Callable[[int, str], str]) -> set[str]:
    """Pieces for whole words, with the space before them; the parts of German compounds also without."""
    pieces = {SPACE + word for word in ("translate", "to", *(name.lower() for name in LANGUAGES.values()))}
    for language in LANGUAGES:
        for number in (*range(LEXICON_END), 100, 101, 200, 1_000, 2_000):
            words = say(number, language).replace(",", "")
            if language == "de":
                parts = (words,) if number < LEXICON_END else ()
                pieces |= {space + part for part in (*parts, *GERMAN_JOINTS) for space in (SPACE, "")}
            else:
                pieces |= {SPACE + word for word in words.split()}
    return pieces


def _empty_model_with_rules() -> model_format.ModelProto:
    """A model of sentencepiece's own making, kept for its compiled normalisation rules; its pieces are not used."""
    with tempfile.TemporaryDirectory() as scratch:
        rules = Path(scratch) / "rules.tsv"
        rules.write_text("\n".join(sorted(_rules())), encoding="utf-8")
        written = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["a b c"] * 8),
            model_writer=written,
            vocab_size=8,
            hard_vocab_limit=False,
            normalization_rule_tsv=str(rules),
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            minloglevel=2,
        )
    model = model_format.ModelProto.FromString(written.getvalue())
    model.normalizer_spec.name = "nfkc_lower"
    model.normalizer_spec.normalization_rule_tsv = ""
    return model


def _rules() -> Iterator[str]:
    """Lines `from<TAB>to` in hexadecimal code points, as sentencepiece reads them."""
    for start, end in NORMALISED_RANGES:
        for character in map(chr, range(start, end)):
            plain = unicodedata.normalize("NFKC", PLAIN.get(character, character)).lower()
            for spelling in {character, unicodedata.normalize("NFD", character)}:
                if spelling != plain and unicodedata.category(character) != "Cn":
                    yield "\t".join(" ".join(f"{ord(c):X}" for c in side) for side in (spelling, plain))
    yield from (f"{control:X}\t20" for control in (0x9, 0xA, 0xD))
