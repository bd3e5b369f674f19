"""The tutorial's contract: what a body may say, which prompt follows, and what a replica answers with a real T5."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from argosy.core.errors import ContextLengthExceeded, EngineError, InvalidRequest, ModelNotFound, SpecError
from argosy.core.model import ModelFiles
from argosy.core.prediction import InputPart
from argosy.core.serve_spec import ServeSpec
from argosy.engines.echo import EchoEngine
from argosy.observe.metrics import Metrics
from argosy.server.composition import open_served_model
from argosy.server.translate_page import ReplicaTranslations
from argosy.server.translation import T5_LANGUAGES, Wish, languages_of, prompt_of, wish_of
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import Identity, Language, ServedModel
from argosy.text.tokenizer import load_tokenizer

T5 = Path(__file__).parents[2] / "examples" / "t5" / "model"


def body(content: bytes) -> list[InputPart]:
    return [InputPart(name="body", content=content, content_type="application/json")]


def test_a_json_body_and_a_form_say_the_same() -> None:
    form = [InputPart(name=name, content=value) for name, value in (("text", b"two"), ("from", b"en"), ("to", b"fr"))]
    assert (
        wish_of(form)
        == wish_of(body(b'{"text": "two", "from": "en", "to": "fr"}'))
        == Wish(text="two", source="en", target="fr")
    )
    assert prompt_of(wish_of(form), T5_LANGUAGES) == "translate English to French: two"


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (body(b'{"text": "two", "from": "en"}'), "missing required field `to`"),
        (body(b'{"text": 2, "from": "en", "to": "fr"}'), r"\$.text"),
        (body(b"two"), "the body is no request for a translation"),
        (body(b"\xff"), "send {"),
        ([InputPart(name="text", content=b"\xff"), InputPart(name="from", content=b"en")], "utf-8"),
        ([], "missing required field"),
    ],
)
def test_a_body_that_is_no_wish_is_refused_with_an_example(parts: list[InputPart], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        wish_of(parts)


@pytest.mark.parametrize(("source", "target", "field"), [("en", "es", "to"), ("EN", "fr", "from"), ("", "fr", "from")])
def test_an_unknown_language_is_the_callers_fault_and_names_the_known(source: str, target: str, field: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"en \(English\), fr \(French\), de \(German\), ro \(Romanian\)"
    ) as refused:
        prompt_of(Wish(text="two", source=source, target=target), T5_LANGUAGES)
    assert refused.value.param == field


def test_an_archive_may_declare_its_languages() -> None:
    assert languages_of({"minWorkers": 2}) == T5_LANGUAGES
    assert languages_of({"translation": {"languages": {"en": "English", "tlh": "Klingon"}}})["tlh"] == "Klingon"
    for wrong in ({"language": {}}, {"languages": ["en"]}, {"languages": {}}):
        with pytest.raises(SpecError, match="translation"):
            languages_of({"translation": wrong})


@pytest.fixture(scope="module")
async def client(
    tmp_path_factory: pytest.TempPathFactory, letters_files: ModelFiles
) -> AsyncIterator[httpx.AsyncClient]:
    """A replica's translation routes, over the small T5 and a model that is none."""
    registry = ModelRegistry()
    engine, tokenizer = EchoEngine(letters_files), load_tokenizer(letters_files)
    letters = Identity(name="letters", root="file:letters", created=1, info=letters_files.info)
    registry.add(ServedModel(letters, engine, Language(tokenizer=tokenizer), metrics=Metrics()))
    spec = ServeSpec(model=f"file:{T5}", served_model_name=("t5-small",), store=tmp_path_factory.mktemp("store"))
    async with open_served_model(spec) as served:
        registry.add(served)
        app = Starlette(routes=ReplicaTranslations(registry).routes())
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            yield client


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/predictions/t5-small", "/predictions/t5-small/1.0"])
async def test_the_tutorials_client_is_answered(client: httpx.AsyncClient, path: str) -> None:
    for text, source, target, expected in (
        ("three hundred and twelve", "en", "fr", "trois cent douze"),
        ("trois cent douze", "fr", "de", "dreihundertzwölf"),
        ("siebzehntausendneunundneunzig", "de", "en", "seventeen thousand and ninety-nine"),
    ):
        answer = await client.post(path, json={"text": text, "from": source, "to": target})
        assert answer.json() == {"text": expected}


@pytest.mark.anyio
async def test_an_answer_is_not_cut_at_a_default_length(client: httpx.AsyncClient) -> None:
    text = "nine hundred and ninety-seven thousand, seven hundred and seventy-seven"
    answer = await client.post("/predictions/t5-small", json={"text": text, "from": "en", "to": "fr"})
    assert answer.json() == {"text": "neuf cent quatre-vingt-dix-sept mille sept cent soixante-dix-sept"}


@pytest.mark.anyio
async def test_what_cannot_be_translated_is_refused(client: httpx.AsyncClient) -> None:
    wish = {"text": "two", "from": "en", "to": "fr"}
    for path, sent, error in (
        ("/predictions/letters", wish, ModelNotFound),
        ("/predictions/t6", wish, ModelNotFound),
        ("/predictions/t5-small", wish | {"to": "es"}, InvalidRequest),
        ("/predictions/t5-small", wish | {"text": "two " * 600}, ContextLengthExceeded),
    ):
        with pytest.raises(error):
            await client.post(path, json=sent)


@pytest.mark.anyio
async def test_the_page_finds_its_models_and_every_file_it_names(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/translate/models")).json()
    assert listed == {"models": [{"name": "t5-small", "languages": T5_LANGUAGES}]}
    page = await client.get("/translate")
    named = set(re.findall(r'(?:src|href)="(translate/assets/[^"]+)"', page.text))
    assert len(named) == 4
    assert {(await client.get(f"/{name}")).status_code for name in named} == {200}


@pytest.mark.anyio
async def test_an_engine_that_is_not_installed_is_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("argosy.engines.seq2seq")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(EngineError, match=r"pip install 'argosy\[seq2seq\]'"):
        async with open_served_model(ServeSpec(model=f"file:{T5}", store=tmp_path)):
            pass
