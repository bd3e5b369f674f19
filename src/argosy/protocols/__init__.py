"""Wire formats over `serving`: JSON in, JSON or server-sent events out.

A protocol is one function from the registry of served models to routes; that is its whole interface. Protocols
decode bytes once into typed requests, call `serving`, and encode its deltas. They know no token, engine or file.

Read first: `openai/chat.py`, then `openai/stream.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import Route

from argosy.serving.registry import ModelRegistry

Routes = Callable[[ModelRegistry], list[Route]]

PROTOCOLS = {"openai": "argosy.protocols.openai:routes"}
