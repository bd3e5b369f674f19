"""A whole API in one process, small enough to compute by hand: bytes as tokens, an engine that repeats its prompt.

The chat template writes the messages' contents one after the other and ends the turn, so a chat is answered with its
own words, token by byte, and then stops; a completion repeats its prompt until `max_tokens`.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import tokenizers
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from argosy.core.adapter import Adapter
from argosy.core.engine import EngineFeature
from argosy.core.errors import ArgosyError
from argosy.core.model import ModelInfo
from argosy.engines.echo import EchoEngine
from argosy.observe.metrics import Metrics
from argosy.protocols.openai import routes
from argosy.protocols.openai.answer_shape import Stamps
from argosy.serving.admission_policy import AdmissionLimits
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import Identity, Language, ServedModel
from argosy.text.byte_alphabet import CHARACTER_OF_BYTE, ByteAlphabet
from argosy.text.chat_template import ChatTemplate
from argosy.text.tokenizer import Tokenizer
from argosy.text.vocabulary import Vocabulary
from argosy.web.errors import error_response

END = 256
TEMPLATE = (
    "{# tools are called as <tool_call>{json}</tool_call> #}{% if tools and enable_thinking %}{{ tools }}{% endif %}"
    "{% for message in messages %}{{ message['content'] }}{% endfor %}<|im_end|>"
)
INFO = ModelInfo(
    architecture="echo",
    num_layers=1,
    hidden_size=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=1,
    vocab_size=257,
    max_model_len=512,
    dtype="none",
    num_parameters=0,
    weight_bytes=0,
)


class ObligingEngine(EchoEngine):
    """Repeats its prompt, and claims every feature: a test gives it a prompt that obeys what it asks for."""

    def __init__(self) -> None:
        super().__init__()
        self._info = msgspec.structs.replace(
            self._info, features=frozenset(EngineFeature), max_model_len=512, max_num_seqs=8
        )


class VectorEngine(ObligingEngine):
    """Also gives vectors: the length of the prompt, and a half."""

    async def embed(self, prompts: Sequence[tuple[int, ...]]) -> list[list[float]]:
        return [[float(len(prompt)), 0.5] for prompt in prompts]


def byte_tokenizer(chat_template: str | None = TEMPLATE) -> Tokenizer:
    """256 bytes, each a token of its own number, and the end of a turn."""
    vocabulary = {character: byte for byte, character in CHARACTER_OF_BYTE.items()}
    engine = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    engine.decoder = decoders.ByteLevel()
    engine.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    return Tokenizer(
        engine,
        Vocabulary(
            size=257,
            alphabet=ByteAlphabet.BYTE_LEVEL,
            special_tokens={"<|im_end|>": END},
            reserved_tokens={"<|im_end|>": END},
            eos_token_ids=frozenset({END}),
            chat_template=chat_template,
        ),
    )


def served(name: str, engine: EchoEngine, *, template: str | None = TEMPLATE, **options: Any) -> ServedModel:
    """A model of that name over that engine."""
    language = Language(tokenizer=byte_tokenizer(template), chat_template=ChatTemplate(template) if template else None)
    identity = Identity(name=name, root=f"file:{name}", created=1_700_000_000, info=INFO)
    return ServedModel(identity, engine, language, metrics=Metrics(), **options)


def registry_of(*models: ServedModel) -> ModelRegistry:
    """A registry of these models."""
    registry = ModelRegistry()
    for model in models:
        registry.add(model)
    return registry


def app_of(registry: ModelRegistry) -> Starlette:
    """The protocol's routes, with counted ids and a clock that stands still, and its error handlers."""
    counter = itertools.count(1)
    stamps = Stamps(new_id=lambda: f"id-{next(counter)}", now=lambda: 1_750_000_000.5)

    async def handle(request: Request, exc: Exception) -> Response:
        return error_response(exc, request)

    return Starlette(
        routes=routes(registry, stamps=stamps),
        exception_handlers={ArgosyError: handle, HTTPException: handle},
    )


@pytest.fixture
def registry() -> ModelRegistry:
    """`echo`, which obliges everything and has an adapter; `base`, without a template; `vectors`."""
    echo = served("echo", ObligingEngine())
    echo.adapters["polite"] = Adapter(name="polite", path=Path("/adapters/polite"), base="echo")
    return registry_of(
        echo,
        served("base", EchoEngine(), template=None),
        served("vectors", VectorEngine(), template=None),
    )


@pytest.fixture
async def client(registry: ModelRegistry) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the API. An error that is not ours is raised in the test."""
    transport = httpx.ASGITransport(app_of(registry))
    async with httpx.AsyncClient(transport=transport, base_url="http://argosy") as client:
        yield client


@pytest.fixture
def make_app() -> Callable[..., Starlette]:
    """An app over a given registry, or over one model with its own limits."""
    return app_of


@pytest.fixture
def make_model() -> Callable[..., ServedModel]:
    """A model of a name over an engine."""
    return served


@pytest.fixture
def tight_model() -> ServedModel:
    """One runs, nobody waits."""
    return served("echo", ObligingEngine(), limits=AdmissionLimits(max_running=1, max_waiting=0))


@pytest.fixture
def chat_body() -> dict[str, Any]:
    """The smallest chat."""
    return {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
