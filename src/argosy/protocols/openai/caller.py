"""What every route of this protocol asks first: which model, for whom, under which id.

The server's edge leaves `principal` (the name of the API key) and optionally `deadline_seconds` in `request.state`;
without an edge (in tests) there are none.
"""

from __future__ import annotations

from starlette.requests import Request

from argosy.core.errors import InvalidRequest
from argosy.core.prefix import prefix_of
from argosy.core.sampling import SamplingOverrides
from argosy.protocols.openai.request_fields import GenerationFields, answers_wanted, text_params
from argosy.serving.options import GenerateOptions
from argosy.serving.registry import ModelRegistry
from argosy.serving.served_model import ServedModel


def find_model(registry: ModelRegistry, name: str | None) -> ServedModel:
    """The model a request names; without a name the only one there is. Raises: ModelNotFound, InvalidRequest."""
    if name is not None:
        return registry.get(name)
    models = registry.list()
    if len(models) != 1:
        known = ", ".join(model.name for model in models[:10]) or "none"
        raise InvalidRequest(f"model is missing, and this server has {len(models)}: name one of {known}", param="model")
    return models[0]


async def generate_options(
    fields: GenerationFields, request: Request, *, request_id: str, sampling: SamplingOverrides, model: ServedModel
) -> GenerateOptions:
    """How to answer. The body has been read before. Raises: InvalidRequest."""
    prefix = None if model.prefixes is None else prefix_of(await request.body())
    return GenerateOptions(
        request_id=request_id,
        sampling=sampling,
        text=text_params(fields),
        n=answers_wanted(fields),
        adapter=fields.model if fields.model in model.adapters else None,
        priority=fields.priority or 0,
        deadline_seconds=getattr(request.state, "deadline_seconds", None),
        principal=getattr(request.state, "principal", ""),
        prefix_blocks=prefix.blocks if prefix else (),
    )
