"""The GKE tutorial's handler contract in a few lines: `{"text", "from", "to"}` → T5's prompt → `{"text"}`.

Codes are looked up, never passed on: an unknown one is refused by name (the tutorial's handler answered 503). Nothing
here knows of an engine; `serve` gives the prompt to whatever model the caller has.

Source: model/handler.py of GoogleCloudPlatform/kubernetes-engine-samples, ai-ml/t5-model-serving.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from argosy.core.errors import EngineError, InvalidRequest, SpecError
from argosy.core.prediction import InputPart
from argosy.core.sampling import SamplingOverrides
from argosy.serving.options import GenerateOptions
from argosy.serving.served_model import ServedModel

# What T5 was trained to translate between. Source: the prompts of the T5 paper, appendix D.
T5_LANGUAGES = {"en": "English", "fr": "French", "de": "German", "ro": "Romanian"}
CONFIG_SECTION = "translation"


class TranslationModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that translates, as the page shows it. languages: code → English name, as its prompts use it."""

    name: str
    languages: dict[str, str]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    languages: dict[str, str] = msgspec.field(default_factory=lambda: dict(T5_LANGUAGES))


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What a client wants translated. source, target: codes."""

    text: str
    source: str = msgspec.field(name="from")
    target: str = msgspec.field(name="to")


def languages_of(config: Mapping[str, Any]) -> dict[str, str]:
    """The languages a model-config.yaml declares (`translation: {languages: {en: English}}`), or T5's.

    Raises: SpecError.
    """
    try:
        section = msgspec.convert(config.get(CONFIG_SECTION, {}), _Section)
    except msgspec.ValidationError as error:
        raise SpecError(f"model-config.yaml: {CONFIG_SECTION}: {error}; write `languages: {{en: English}}`") from error
    if not section.languages:
        raise SpecError(f"model-config.yaml: {CONFIG_SECTION}.languages is empty: name at least one")
    return section.languages


def wish_of(parts: Sequence[InputPart]) -> Wish:
    """What a request's body says: a JSON object, or a form with the same three fields. Raises: InvalidRequest."""
    try:
        if len(parts) == 1 and parts[0].name == "body":
            return msgspec.json.decode(parts[0].content, type=Wish)
        return msgspec.convert({part.name: part.content.decode() for part in parts}, Wish)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            f'the body is no request for a translation ({error}): send {{"text": "…", "from": "en", "to": "fr"}}'
        ) from error


def prompt_of(wish: Wish, languages: Mapping[str, str]) -> str:
    """T5's prompt for a wish. Pure. Raises: InvalidRequest naming the codes there are."""
    for field, code in (("from", wish.source), ("to", wish.target)):
        if code not in languages:
            known = ", ".join(f"{each} ({languages[each]})" for each in languages)
            raise InvalidRequest(
                f'"{field}" is {code[:40]!r}, and this model knows {known}: send one of these', param=field
            )
    return f"translate {languages[wish.source]} to {languages[wish.target]}: {wish.text}"


async def translate(model: ServedModel, prompt: str, request_id: str, principal: str = "") -> str:
    """The likeliest answer to a prompt. Cancels: the engine stops with the step under way.

    principal: whom the model's queue counts the request to.

    Raises: ContextLengthExceeded, Overloaded, DeadlineExceeded, EngineError, EngineDead.
    """
    sampling = SamplingOverrides(temperature=0.0)
    options = GenerateOptions(request_id=request_id, sampling=sampling, principal=principal)
    prepared = await model.prepare_completion(prompt, options)
    async with model.generate(prepared) as generation:
        pieces = [delta async for delta in generation]
    if not pieces or pieces[-1].finish_reason is None:
        raise EngineError("the answer broke off without an end: send the request again")
    return "".join(delta.text for delta in pieces)
