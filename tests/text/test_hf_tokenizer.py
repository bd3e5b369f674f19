"""Tokenizers from Hugging Face folders: roles, end tokens, templates, and broken files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Engine

from argosy.core.errors import SpecError
from argosy.core.model import ModelFiles
from argosy.text.byte_alphabet import CHARACTER_OF_BYTE
from argosy.text.hf_tokenizer import read_hf_tokenizer
from argosy.text.tokenizer import Tokenizer, load_tokenizer
from argosy.text.user_text import Segment

# A merge that joins to no entry, on which the library panics instead of raising.
PANICS = '{"version": "1.0", "model": {"type": "BPE", "vocab": {"x": 0}, "merges": [["x", "x"]]}, "added_tokens": []}'


def write_model(root: Path, **files: Any) -> Path:
    engine = Engine(models.BPE({CHARACTER_OF_BYTE[byte]: byte for byte in range(256)}, []))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens(["<s>", "</s>", AddedToken("<|end|>", rstrip=True)])
    engine.add_tokens([AddedToken("<think>", special=False), AddedToken("<|user|>", special=False)])
    engine.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    engine.save(str(root / "tokenizer.json"))
    for name, content in files.items():
        (root / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return root


def load(root: Path) -> Tokenizer:
    return Tokenizer(*read_hf_tokenizer(root))


def test_roles_and_every_end_token(tmp_path: Path) -> None:
    config = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": "{{ messages }}"}
    tokenizer = load(write_model(tmp_path, tokenizer_config=config, generation_config={"eos_token_id": [257, 259]}))
    assert (tokenizer.bos_token_id, tokenizer.vocab_size) == (256, 261)
    assert tokenizer.eos_token_ids == {257, 258, 259}
    assert tokenizer.encode("a") == [256, 97]
    assert tokenizer.encode("a", add_special_tokens=False) == [97]
    assert tokenizer.chat_template == "{{ messages }}"


def test_a_template_file_wins_and_named_templates_have_a_default(tmp_path: Path) -> None:
    named = {"chat_template": [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]}
    write_model(tmp_path, tokenizer_config=named)
    assert load(tmp_path).chat_template == "D"
    (tmp_path / "chat_template.jinja").write_text("J")
    assert load(tmp_path).chat_template == "J"


def test_d28_ids_of_added_tokens_keep_their_place(tmp_path: Path) -> None:
    tokenizer = load(write_model(tmp_path))
    assert tokenizer.encode("<think>", add_special_tokens=False) == [259]
    assert tokenizer.encode("<think>", add_special_tokens=False, parse_special=False) == [259]
    assert tokenizer.encode("<|user|>", add_special_tokens=False) == [260]
    assert tokenizer.encode("<|user|>", add_special_tokens=False, parse_special=False) == list(b"<|user|>")


def test_special_tokens_that_take_the_space_behind_them(tmp_path: Path) -> None:
    tokenizer = load(write_model(tmp_path))
    segments = [Segment("a", False), Segment("<|end|>", True), Segment("  b", False)]
    assert (
        tokenizer.encode_segments(segments)
        == tokenizer.encode("a<|end|>  b", add_special_tokens=False)
        == [97, 258, 98]
    )


def test_a_space_only_before_the_whole_text(tmp_path: Path) -> None:
    engine = Engine(models.BPE({"<s>": 0, "▁": 1, "a": 2, "b": 3}, []))
    engine.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    engine.decoder = decoders.Metaspace(prepend_scheme="first")
    engine.add_special_tokens(["<s>"])
    engine.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load(tmp_path)
    segments = [Segment("a", False), Segment("<s>", True), Segment("b", False)]
    assert tokenizer.encode_segments(segments) == tokenizer.encode("a<s>b", add_special_tokens=False) == [1, 2, 0, 3]
    assert tokenizer.decode([1, 2]) == "a"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model": {"type": "BPE"}}', PANICS])
def test_broken_files_are_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(SpecError, match=r"tokenizer\.json is not a valid"):
        read_hf_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(SpecError, match=r"tokenizer\.json does not exist"):
        read_hf_tokenizer(tmp_path)


def test_a_folder_loads_by_its_format(letters_files: ModelFiles) -> None:
    assert load_tokenizer(letters_files).encode("<s>a", add_special_tokens=False)[0] == 256


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_broken_settings_are_named(tmp_path: Path, content: str) -> None:
    write_model(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(SpecError, match=r"tokenizer_config\.json is not a JSON object"):
        read_hf_tokenizer(tmp_path)
