"""Fixtures every room may use. Keep small: a fixture for one room lives beside that room's tests."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio only: uvicorn and the engines' threads speak to an asyncio loop."""
    return "asyncio"
