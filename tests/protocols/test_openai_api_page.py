"""docs/openai-api.md and docs/errors.md list exactly what the code has: no field undocumented, none invented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from argosy.core import errors
from argosy.protocols.openai import routes
from argosy.protocols.openai.chat_request import ChatCompletionRequest
from argosy.protocols.openai.embeddings import EmbeddingRequest
from argosy.protocols.openai.request_fields import GenerationFields
from argosy.protocols.openai.text_request import CompletionRequest
from argosy.protocols.openai.tokens import DetokenizeRequest, TokenizeRequest
from argosy.protocols.openai.unhonoured import UNHONOURED
from argosy.serving.registry import ModelRegistry
from argosy.web.errors import TYPES_BY_STATUS
from argosy.web.operation import operation_of

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "openai-api.md").read_text(encoding="utf-8")
ERRORS = (DOCS / "errors.md").read_text(encoding="utf-8")


def listed(heading: str) -> set[str]:
    """The names in the first column of the tables under a heading."""
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (.+?) \|", section, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def own_fields(body: type[msgspec.Struct]) -> set[str]:
    """The fields a body has beside those shared by both kinds of completion."""
    shared = GenerationFields.__struct_encode_fields__ if issubclass(body, GenerationFields) else ()
    return set(body.__struct_encode_fields__) - set(shared)


@pytest.mark.parametrize(
    ("heading", "body"),
    [
        ("Chat", ChatCompletionRequest),
        ("Text completions", CompletionRequest),
        ("Embeddings", EmbeddingRequest),
        ("Tokenize", TokenizeRequest),
        ("Detokenize", DetokenizeRequest),
    ],
)
def test_every_field_of_a_route_is_on_the_page(heading: str, body: type[msgspec.Struct]) -> None:
    assert listed(heading) == own_fields(body)


def test_every_shared_field_is_on_the_page() -> None:
    assert listed("Fields of both kinds of completion") == set(GenerationFields.__struct_encode_fields__)


def test_every_refused_field_is_on_the_page() -> None:
    assert listed("Known and not honoured") == set(UNHONOURED)


def test_no_field_is_both_honoured_and_refused() -> None:
    honoured = {*ChatCompletionRequest.__struct_encode_fields__, *CompletionRequest.__struct_encode_fields__}
    assert not honoured & set(UNHONOURED)


def test_every_route_is_on_the_page_and_describes_itself() -> None:
    for route in routes(ModelRegistry()):
        path = route.path.replace("{model:path}", "{id}")
        assert f"`{path}`" in PAGE
        assert operation_of(route) is not None


def leaves(root: type[errors.ArgosyError]) -> Iterator[type[errors.ArgosyError]]:
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from leaves(child)


def test_every_error_code_is_on_the_page_with_its_status_and_type() -> None:
    for error in leaves(errors.ArgosyError):
        assert f"| `{error.code}` | {error.status} | `{TYPES_BY_STATUS[error.status]}` |" in ERRORS
