"""`GET /v1/models/{model}` on a listener that has both APIs: KServe's readiness and OpenAI's model object in one.

Each client finds its own members (`name`, `ready`; `id`, `object`, …) and reads over the others. On listeners of their
own the management port answers KServe's and the inference port OpenAI's.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from argosy.core.errors import ModelNotFound
from argosy.protocols.torchserve.answers import json_answer
from argosy.protocols.torchserve.operations import HEALTH, operation
from argosy.web.operation import describes

Endpoint = Callable[[Request], Awaitable[Response]]


class MergedModel:
    """The route, over the two it stands for."""

    def __init__(self, kserve: Endpoint, openai: Endpoint) -> None:
        self._kserve = kserve
        self._openai = openai

    @describes(operation("KServe's and OpenAI's view of a model", HEALTH, 404, response=dict))
    async def retrieve(self, request: Request) -> Response:
        """What either knows of the model. Raises: ModelNotFound if neither does."""
        known: dict[str, Any] = {}
        missing: ModelNotFound | None = None
        for endpoint in (self._openai, self._kserve):
            try:
                response = await endpoint(request)
            except ModelNotFound as error:
                missing = error
            else:
                known |= msgspec.json.decode(response.body, type=dict[str, Any])
        if not known and missing is not None:
            raise missing
        return json_answer(known)
