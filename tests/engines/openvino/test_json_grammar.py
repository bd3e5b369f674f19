"""JSON schemas as grammars: what is written, what is left to the library, and that real answers obey without filler."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openvino_genai")

from argosy.core.engine import EngineSettings
from argosy.core.generation import FinishReason, GenerateRequest
from argosy.core.model import ModelFiles
from argosy.core.sampling import Constraint, ConstraintKind, SamplingParams
from argosy.engines.openvino.engine import OpenVinoEngine
from argosy.engines.openvino.json_grammar import schema_grammar
from argosy.text.tokenizer import Tokenizer, load_tokenizer

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "maxLength": 64},
        "age": {"type": ["integer", "null"]},
        "kind": {"enum": ['a "b"', 2, None]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "minItems": 1, "maxItems": 2},
        "nick": {"anyOf": [{"type": "boolean"}, {"const": "é"}], "default": None},
    },
    "required": ["name", "kind", "tags"],
    "additionalProperties": False,
    "$defs": {"tag": {"type": "object", "properties": {"t": {"type": "boolean"}}, "required": ["t"]}},
}
LIST = {"type": "array", "items": {"type": "boolean"}, "minItems": 3, "maxItems": 3}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "integer", "minimum": 3},
        {"type": "string", "maxLength": 65},
        {"type": "object", "properties": {"a": {"type": "null"}}, "additionalProperties": True},
        {"type": "object", "properties": {}, "required": ["missing"]},
        {"allOf": [{"type": "string"}]},
        {"$ref": "#/$defs/missing"},
        {"type": "array", "minItems": 3, "maxItems": 2},
        {"type": "array", "minItems": "3"},
        {"type": "nonsense"},
        [],
        7,
    ],
)
def test_what_is_not_known_is_left_to_the_library(schema: Any) -> None:
    assert schema_grammar(json.dumps(schema)) is None


def test_a_schema_without_bottom_is_left_to_the_library() -> None:
    assert schema_grammar("{") is None
    assert schema_grammar('{"anyOf":[' * 3000 + "true" + "]}" * 3000) is None


def test_optional_members_may_be_missing_at_either_end() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "required": ["b"]}
    grammar = str(schema_grammar(json.dumps(schema)))
    rules = dict(line.split(" ::= ", 1) for line in grammar.splitlines() if " ::= " in line)
    assert rules["root"] == '"{" r3'
    assert rules["r3"] == 'r2 r1 | r0 "}"'
    assert rules["r1"] == 'comma r0 "}"'


@pytest.fixture(scope="module")
async def engine(smollm2_files: ModelFiles, smollm2_cache: Path) -> AsyncIterator[OpenVinoEngine]:
    engine = OpenVinoEngine(smollm2_files, EngineSettings(max_num_seqs=8, cache_dir=smollm2_cache))
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture(scope="module")
def tokenizer(smollm2_files: ModelFiles) -> Tokenizer:
    return load_tokenizer(smollm2_files)


async def answer(engine: OpenVinoEngine, tokenizer: Tokenizer, constraint: Constraint, seed: int) -> str:
    prompt = tuple(tokenizer.encode("<|im_start|>user\nDescribe Ann as JSON.<|im_end|>\n<|im_start|>assistant\n"))
    params = SamplingParams(max_tokens=400, temperature=1.0, seed=seed, constraint=constraint, stop_token_ids=(2,))
    ids: list[int] = []
    async with aclosing(
        engine.generate(GenerateRequest(request_id="r", prompt_token_ids=prompt, sampling=params))
    ) as s:
        async for output in s:
            ids += output.token_ids
            reason = output.finish_reason
    text = tokenizer.decode(ids)
    assert reason is FinishReason.STOP, text
    return text


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(4))
async def test_answers_obey_their_schema_and_hold_no_filler(
    engine: OpenVinoEngine, tokenizer: Tokenizer, seed: int
) -> None:
    schema = Constraint(kind=ConstraintKind.JSON_SCHEMA, text=json.dumps(PERSON))
    text = await answer(engine, tokenizer, schema, seed)
    person = json.loads(text)
    assert list(person) == [name for name in PERSON["properties"] if name in person]  # type: ignore[attr-defined]
    assert {"name", "kind", "tags"} <= set(person)
    assert len(person["name"]) <= 64
    assert isinstance(person.get("age"), int | None)
    assert person["kind"] in ('a "b"', 2, None)
    assert 1 <= len(person["tags"]) <= 2
    assert all(isinstance(tag["t"], bool) for tag in person["tags"])
    assert person.get("nick", True) in (True, False, "é")
    assert len(text) <= len(json.dumps(person, ensure_ascii=False))


@pytest.mark.anyio
async def test_an_array_has_as_many_items_as_asked(engine: OpenVinoEngine, tokenizer: Tokenizer) -> None:
    text = await answer(engine, tokenizer, Constraint(kind=ConstraintKind.JSON_SCHEMA, text=json.dumps(LIST)), 1)
    assert [isinstance(item, bool) for item in json.loads(text)] == [True] * 3
