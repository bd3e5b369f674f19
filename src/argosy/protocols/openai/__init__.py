"""The OpenAI wire protocol over `serving`, with vLLM's extra fields and error texts.

A request passes four steps, one file each: `decode.py` (bytes to a typed request, once; unknown fields are refused),
`chat_request.py` or `text_request.py` (what it asks for, in `serving`'s words), `chat.py` or `completions.py` (the
route), `chat_answer.py` or `text_answer.py` (deltas to bytes). `event_stream.py` holds the two responses, which own
the generation and give it up when the client leaves. `unhonoured.py` lists what we know and will not pretend to do;
docs/openai-api.md tells users of every field.

This package knows no token, engine or file: ranges of sampling values are checked in `core.sampling`, capabilities
and lengths in `serving`. Read first: `chat.py`, then `event_stream.py`.
"""

from __future__ import annotations

from starlette.routing import Route

from argosy.protocols.openai.answer_shape import Stamps
from argosy.protocols.openai.chat import ChatCompletions
from argosy.protocols.openai.completions import TextCompletions
from argosy.protocols.openai.embeddings import Embeddings
from argosy.protocols.openai.models import Models
from argosy.protocols.openai.tokens import Tokens
from argosy.serving.registry import ModelRegistry


def routes(registry: ModelRegistry, *, stamps: Stamps | None = None) -> list[Route]:
    """Every route of the protocol. `stamps` fixes ids and times (for tests that compare bytes)."""
    stamps = stamps or Stamps()
    models = Models(registry)
    tokens = Tokens(registry)
    return [
        Route("/v1/chat/completions", ChatCompletions(registry, stamps).create, methods=["POST"]),
        Route("/v1/completions", TextCompletions(registry, stamps).create, methods=["POST"]),
        Route("/v1/embeddings", Embeddings(registry, stamps).create, methods=["POST"]),
        Route("/v1/models", models.list, methods=["GET"]),
        Route("/v1/models/{model:path}", models.retrieve, methods=["GET"]),
        Route("/tokenize", tokens.tokenize, methods=["POST"]),
        Route("/detokenize", tokens.detokenize, methods=["POST"]),
    ]
