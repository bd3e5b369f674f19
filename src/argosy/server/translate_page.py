"""The translation page and what it asks for: `/translate`, its files, and which models translate what.

A replica that serves a T5 also answers `/predictions/{model}` with the tutorial's contract, so that the page, and a
client written for the tutorial, need no archive.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.errors import InvalidRequest, ModelNotFound
from argosy.core.prediction import InputPart
from argosy.server.translation import T5_LANGUAGES, TranslationModel, Wish, prompt_of, translate, wish_of
from argosy.serving.registry import ModelRegistry
from argosy.web.errors import ErrorBody
from argosy.web.operation import Operation, describes
from argosy.web.pages import translate_page

PAGE_PATH = "/translate"
PAGE_ASSETS = "/translate/assets/"


class TranslationModels(msgspec.Struct, frozen=True, kw_only=True):
    """What `/translate/models` answers."""

    models: list[TranslationModel]


class Translation(msgspec.Struct, frozen=True, kw_only=True):
    """What the tutorial's contract answers."""

    text: str


def translation_routes(list_models: Callable[[], list[TranslationModel]]) -> list[Route]:
    """The page, and the models it lets choose from."""

    @describes(
        Operation(
            summary="Which models translate, and between which languages",
            tag="Translate",
            response=TranslationModels,
            error_body=ErrorBody,
            errors=(401, 403, 503),
        )
    )
    async def models(_: Request) -> Response:
        body = msgspec.json.encode(TranslationModels(models=list_models()))
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    return [*translate_page().routes(), Route("/translate/models", models)]


class ReplicaTranslations:
    """The tutorial's contract over the models of a replica: those that are encoder-decoder."""

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def routes(self) -> list[Route]:
        """The page, and `POST /predictions/{model}` with or without a version."""
        predict = Route("/predictions/{model:path}", self.predict, methods=["POST"])
        return [*translation_routes(self.list), predict]

    def list(self) -> list[TranslationModel]:
        """The models that translate, by name."""
        return [
            TranslationModel(name=model.name, languages=T5_LANGUAGES)
            for model in self._registry.list()
            if model.info.is_encoder_decoder
        ]

    @describes(
        Operation(
            summary="Translate a text, as the GKE tutorial's handler does",
            tag="Translate",
            request=Wish,
            response=Translation,
            error_body=ErrorBody,
            errors=(400, 401, 403, 404, 413, 429, 500, 503, 504),
            example={"text": "twenty-three", "from": "en", "to": "fr"},
        )
    )
    async def predict(self, request: Request) -> Response:
        """One translation. Raises: ModelNotFound, InvalidRequest, and what generating raises."""
        name = self._model_name(request.path_params["model"])
        model = self._registry.get(name)
        if not model.info.is_encoder_decoder:
            raise ModelNotFound(
                f"{name!r} is no translation model: use /v1/chat/completions or /v1/completions, or serve a T5",
                param="model",
            )
        try:
            body = await request.body()
        except ClientDisconnect as exc:
            raise InvalidRequest("the client closed the connection before the body was complete") from exc
        prompt = prompt_of(wish_of([InputPart(name="body", content=body)]), T5_LANGUAGES)
        text = await translate(model, prompt, f"trans-{uuid.uuid4().hex}", getattr(request.state, "principal", ""))
        return Response(msgspec.json.encode(Translation(text=text)), media_type="application/json")

    def _model_name(self, path: str) -> str:
        """The model in `name`, or in `name/version`: a replica has one version of each, whatever it is called."""
        before, _, version = path.rpartition("/")
        return before if version and before in self._registry.names() else path
