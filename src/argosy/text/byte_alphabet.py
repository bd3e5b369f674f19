"""How vocabularies spell bytes: three alphabets, one question, `which bytes does this vocabulary entry stand for?`

- *byte-level* (GPT-2 and everything after it): each of the 256 bytes is written as one printable character, so an
  entry is bytes in disguise: "Ġworld" is b" world".
- *sentencepiece* (Llama 2, Mistral, Gemma, T5): an entry is text with "▁" for a space, or `<0xE4>` for one byte.
- *wordpiece* (BERT): an entry is text; "##" means it continues a word, its absence a space before it.

Source: GPT-2's `bytes_to_unicode` (openai/gpt-2, encoder.py); sentencepiece's byte_fallback; BERT's WordPiece.
"""

from __future__ import annotations

from enum import StrEnum

_BYTE_TOKEN_LENGTH = len("<0x00>")


class ByteAlphabet(StrEnum):
    """Which of the three a vocabulary uses."""

    BYTE_LEVEL = "byte_level"
    SENTENCEPIECE = "sentencepiece"
    WORDPIECE = "wordpiece"


def _byte_level_alphabet() -> dict[int, str]:
    """Byte → character: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up, in order."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable}
    alphabet.update({byte: chr(0x100 + index) for index, byte in enumerate(others)})
    return alphabet


CHARACTER_OF_BYTE = _byte_level_alphabet()
_BYTE_OF_CHARACTER = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}


def entry_bytes(entry: str, alphabet: ByteAlphabet) -> bytes:
    """The bytes `entry` adds to the text."""
    if alphabet is ByteAlphabet.BYTE_LEVEL:
        try:
            return bytes([_BYTE_OF_CHARACTER[character] for character in entry])
        except KeyError:
            return entry.encode("utf-8", "replace")
    if alphabet is ByteAlphabet.SENTENCEPIECE:
        byte = byte_token(entry)
        return entry.replace("▁", " ").encode("utf-8", "replace") if byte is None else bytes([byte])
    return (entry[2:] if entry.startswith("##") else " " + entry).encode("utf-8", "replace")


def byte_token(entry: str) -> int | None:
    """The byte that a byte-fallback entry `<0xE4>` stands for; None for any other entry."""
    if len(entry) != _BYTE_TOKEN_LENGTH or not entry.startswith("<0x") or not entry.endswith(">"):
        return None
    try:
        return int(entry[3:5], 16)
    except ValueError:
        return None
