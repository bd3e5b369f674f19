"""How the routes describe themselves in `/openapi.json`: what they share, and the query parameters of each.

(What TorchServe's own clients read is `swagger.py`.)
"""

from __future__ import annotations

from argosy.protocols.torchserve.errors import WireError
from argosy.web.operation import Operation, QueryParameter

PREDICT, MANAGE, HEALTH = "TorchServe: predictions", "TorchServe: models", "TorchServe: health"

LIST_QUERY = (
    QueryParameter(name="limit", summary="Most models to list: 100 at most and by default", kind=int),
    QueryParameter(name="next_page_token", summary="What the page before ended with", kind=int),
)
REGISTER_QUERY = (
    QueryParameter(name="url", summary="The archive: a file of the model store, or an allowed URL"),
    QueryParameter(name="model_name", summary="Name to register it under; the archive's own by default"),
    QueryParameter(name="handler", summary="Handler instead of the archive's own"),
    QueryParameter(name="runtime", summary="python is the only one"),
    QueryParameter(name="batch_size", summary="Most requests one call of the handler gets", kind=int),
    QueryParameter(name="max_batch_delay", summary="Longest wait for a batch to fill, in milliseconds", kind=int),
    QueryParameter(name="response_timeout", summary="Longest call of the handler, in seconds", kind=int),
    QueryParameter(name="startup_timeout", summary="Longest start of a worker, in seconds", kind=int),
    QueryParameter(name="initial_workers", summary="Workers to start", kind=int),
    QueryParameter(name="synchronous", summary="Answer only when they are there; true by default", kind=bool),
)
SCALE_QUERY = (
    QueryParameter(name="min_worker", summary="Workers that shall run; 1 by default", kind=int),
    QueryParameter(name="max_worker", summary="Most workers that may run; as many as min_worker by default", kind=int),
    QueryParameter(name="synchronous", summary="Answer only when they are there; false by default", kind=bool),
    QueryParameter(name="timeout", summary="Longest wait of a synchronous call, in seconds; -1 as without", kind=int),
    QueryParameter(name="model_version", summary="The version, where the path names none"),
)
DESCRIBE_QUERY = (QueryParameter(name="customized", summary="Ask the handler, too", kind=bool),)
METRICS_QUERY = (QueryParameter(name="name[]", summary="A metric to show; may come several times"),)


def operation(
    summary: str,
    tag: str,
    *errors: int,
    response: type | None = None,
    query: tuple[QueryParameter, ...] = (),
    is_text: bool = False,
) -> Operation:
    """A route of this protocol. response: the type of its JSON; None = it depends on the handler, or is text."""
    return Operation(
        summary=summary,
        tag=tag,
        response=response,
        query=query,
        is_text=is_text,
        error_body=WireError,
        errors=errors,
    )
