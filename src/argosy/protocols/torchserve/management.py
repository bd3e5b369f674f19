"""`/models`: register, scale, describe, list, unregister, versions; with TorchServe's own statuses and texts.

    GET  /models                          POST /models?url=…          (also as a JSON body)
    GET  /models/{model}[/{version}|/all] PUT  …?min_worker=…         DELETE …
    PUT  /models/{model}/{version}/set-default
    GET  /v1/models/{model}               KServe's readiness

Source: ManagementRequestHandler, ApiUtils of TorchServe 0.12.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from argosy.core.errors import (
    ArgosyError,
    ArtifactError,
    Conflict,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    OutOfResources,
)
from argosy.protocols.torchserve.answers import StatusBody, json_answer, status_answer
from argosy.protocols.torchserve.description import can_answer, described
from argosy.protocols.torchserve.errors import METHOD_NOT_ALLOWED, Refusal
from argosy.protocols.torchserve.operations import (
    DESCRIBE_QUERY,
    HEALTH,
    LIST_QUERY,
    MANAGE,
    REGISTER_QUERY,
    SCALE_QUERY,
    operation,
)
from argosy.protocols.torchserve.queries import Parameters, parameters_of
from argosy.protocols.torchserve.settings import WireSettings
from argosy.protocols.torchserve.swagger import management_document
from argosy.serving.predictions.administration import Administration
from argosy.serving.predictions.failures import StartFailed
from argosy.serving.predictions.requests import RegisterOptions, ScaleOptions
from argosy.web.errors import NotReady
from argosy.web.lifecycle import Lifecycle
from argosy.web.operation import describes

_MAX_PAGE = 100
_SECONDS_PER_MS = 0.001
_RUNTIMES = frozenset({"python", "python3", "lsp"})
_UPDATING = "Processing worker updates..."
_HOW_TO_ALLOW = (
    " Models are not registered or unregistered over HTTP here: the operator can allow it with --enable-model-api."
)


class Management:
    """The routes, over the models of one server."""

    def __init__(self, administration: Administration, lifecycle: Lifecycle, settings: WireSettings) -> None:
        self._administration = administration
        self._lifecycle = lifecycle
        self._settings = settings

    def routes(self) -> list[Route]:
        """Every path of the management API."""
        routes = [
            Route("/models", self.list_models, methods=["GET"]),
            Route("/models", self.register, methods=["POST"]),
            Route("/models/{model}/{version}/set-default", self.set_default, methods=["PUT"]),
            Route("/v1/models/{model}", self.readiness, methods=["GET"]),
        ]
        for path in ("/models/{model}", "/models/{model}/{version}"):
            routes += [
                Route(path, self.describe, methods=["GET"]),
                Route(path, self.scale, methods=["PUT"]),
                Route(path, self.unregister, methods=["DELETE"]),
            ]
        return [*routes, Route("/models/{model}", self.document, methods=["OPTIONS"])]

    @describes(operation("List models by name", MANAGE, response=dict, query=LIST_QUERY))
    async def list_models(self, request: Request) -> Response:
        """Names and archives, sorted, a page at a time."""
        query = Parameters(request.query_params)
        limit = query.whole("limit", _MAX_PAGE) or 0
        limit = limit if 0 <= limit <= _MAX_PAGE else _MAX_PAGE
        offset = max(0, query.whole("next_page_token", 0) or 0)
        page = self._administration.list(limit, offset)
        answer: dict[str, Any] = {"nextPageToken": page.next_page_token} if page.next_page_token else {}
        answer["models"] = [{"modelName": model.name, "modelUrl": model.url} for model in page.models]
        return json_answer(answer, headers=self._warnings(query))

    @describes(
        operation(
            "Register an archive", MANAGE, 400, 404, 405, 409, 500, 507, response=StatusBody, query=REGISTER_QUERY
        )
    )
    async def register(self, request: Request) -> Response:
        """Load an archive. Raises: as `Administration.register`; Refusal where TorchServe has another status."""
        self._require_allowed()
        self._require_ready()
        parameters = await _register_parameters(request)
        options = _register_options(parameters)
        if not options.url:
            if parameters.has("url"):
                raise Refusal(404, "ModelNotFoundException", "empty url")
            raise InvalidRequest("Parameter url is required.", param="url")
        try:
            done = await self._administration.register(options)
        except NotFound as error:
            raise Refusal(404, "ModelNotFoundException", self._text(error, options.url)) from error
        except Conflict as error:
            raise Refusal(409, "ConflictStatusException", self._text(error)) from error
        except ArtifactError as error:
            raise self._unusable(options.url, error) from error
        except OutOfResources as error:
            raise Refusal(507, "OutOfMemoryException", error.message) from error
        except StartFailed as error:
            text = f"Failed to start workers for model {error.name} version: {error.version}"
            told = text if self._settings.is_strict else error.message
            raise Refusal(500, "InternalServerException", told) from error
        if not done.is_complete:
            return status_answer(_UPDATING, 202, self._warnings(parameters))
        text = f'Model "{done.name}" Version: {done.version} registered with {done.num_workers} initial workers'
        if done.num_workers == 0:
            text += ". Use scale workers API to add workers for the model."
        return status_answer(text, 200, self._warnings(parameters))

    @describes(
        operation("Run more or fewer workers", MANAGE, 400, 404, 500, 507, response=StatusBody, query=SCALE_QUERY)
    )
    async def scale(self, request: Request) -> Response:
        """Run more or fewer workers. Raises: InvalidRequest, NotReady; as `Administration.scale`."""
        self._require_ready()
        query = Parameters(request.query_params)
        min_workers = query.whole("min_worker", 1, minimum=0) or 0
        max_workers = query.whole("max_worker", min_workers, minimum=0) or 0
        if max_workers < min_workers:
            raise InvalidRequest("max_worker cannot be less than min_worker.", param="max_worker")
        query.whole("number_gpu")
        is_synchronous = query.flag("synchronous", False)
        timeout = query.seconds("timeout", minimum=-1)
        name, version = _named(request)
        done = await self._administration.scale(
            name,
            version or query.text("model_version") or None,
            ScaleOptions(
                min_workers=min_workers,
                max_workers=max_workers,
                is_synchronous=is_synchronous,
                timeout_seconds=None if timeout == -1 else timeout,
            ),
        )
        if not is_synchronous:
            return status_answer(_UPDATING, 202, self._warnings(query))
        if not done.is_complete:
            return status_answer("Workers scaling in progress...", 206, self._warnings(query))
        asked = f", version: {done.version}" if version or query.text("model_version") else ""
        text = f"Workers scaled to {min_workers} for model: {done.name}{asked}"
        return status_answer(text, 200, self._warnings(query))

    @describes(operation("Describe versions of a model", MANAGE, 404, 500, 503, response=list, query=DESCRIBE_QUERY))
    async def describe(self, request: Request) -> Response:
        """The state of one version, or of all. Raises: ModelNotFound, NotFound; what the handler's describe raises."""
        query = Parameters(request.query_params)
        name, asked = _named(request)
        wants_metadata = query.flag("customized", False)
        elements = []
        for status in self._administration.describe(name, asked):
            own = await self._administration.describe_handler(name, status.version) if wants_metadata else None
            elements.append(described(status, metadata=own, strict=self._settings.is_strict))
        return json_answer(elements, headers=self._warnings(query))

    @describes(operation("Unregister a version", MANAGE, 404, 405, 408, response=StatusBody))
    async def unregister(self, request: Request) -> Response:
        """Drain a version and forget it. Raises: ModelNotFound, NotFound, NotReady; Refusal."""
        self._require_allowed()
        self._require_ready()
        name, version = _named(request)
        try:
            await self._administration.unregister(name, version, self._settings.unregister_timeout_seconds)
        except Forbidden as error:
            strict = f"Cannot remove default version for model {name}"
            told = strict if self._settings.is_strict else error.message
            raise Refusal(403, "InvalidModelVersionException", told) from error
        except DeadlineExceeded as error:
            raise Refusal(408, "RequestTimeoutException", f"Timed out while cleaning resources: {name}") from error
        return status_answer(f'Model "{name}" unregistered')

    @describes(operation("Make a version the default one", MANAGE, 404, response=StatusBody))
    async def set_default(self, request: Request) -> Response:
        """Let routes without a version use this one. Raises: ModelNotFound, NotReady; Refusal."""
        self._require_ready()
        name, version = request.path_params["model"], request.path_params["version"]
        try:
            await self._administration.set_default(name, version)
        except ModelNotFound:
            raise
        except NotFound as error:
            text = f"Model version {version} does not exist for model {name}"
            raise Refusal(404, "ModelVersionNotFoundException", text) from error
        return status_answer(f'Default version successfully updated for model "{name}" to "{version}"')

    @describes(operation("KServe: whether a model is ready", HEALTH, 404, response=dict))
    async def readiness(self, request: Request) -> Response:
        """KServe v1: whether the model's default version answers. Raises: ModelNotFound."""
        name = request.path_params["model"]
        (status,) = self._administration.describe(name, None)
        return json_answer({"name": name, "ready": can_answer(status)})

    @describes(operation("How one model is managed", MANAGE, 404, response=dict))
    async def document(self, request: Request) -> Response:
        """What our API offers for one model. Raises: ModelNotFound."""
        name = request.path_params["model"]
        self._administration.describe(name, None)
        return json_answer(management_document(name))

    def _unusable(self, url: str, error: ArtifactError) -> Refusal:
        if "://" not in url:
            return Refusal(400, "InvalidModelException", error.message)
        text = f"Failed to download archive from: {url}"
        told = text if self._settings.is_strict else f"{text}: {error.message}"
        return Refusal(400, "DownloadArchiveException", told)

    def _text(self, error: ArgosyError, after: str = "") -> str:
        """The error's message; for `strict` only its beginning, up to a colon that stands behind `after`."""
        text = error.message
        end = text.find(": ", text.find(after) + len(after)) if self._settings.is_strict else -1
        return text if end < 0 else text[:end]

    def _warnings(self, parameters: Parameters) -> dict[str, str]:
        return {} if self._settings.is_strict else parameters.headers()

    def _require_allowed(self) -> None:
        if not self._settings.may_change_models:
            how = "" if self._settings.is_strict else _HOW_TO_ALLOW
            raise Refusal(405, "MethodNotAllowedException", METHOD_NOT_ALLOWED + how)

    def _require_ready(self) -> None:
        """Models can be looked at in any phase of the server's life, and changed only while it serves."""
        if not self._lifecycle.is_ready:
            raise NotReady(self._lifecycle.reason, phase=self._lifecycle.phase.value)


async def _register_parameters(request: Request) -> Parameters:
    """From the query; a JSON body counts where there is one, as in TorchServe."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" and (body := await request.body()):
        return parameters_of(body)
    return Parameters(request.query_params)


def _register_options(parameters: Parameters) -> RegisterOptions:
    """Raises: InvalidRequest."""
    runtime = parameters.text("runtime")
    if runtime and runtime.lower() not in _RUNTIMES:
        raise InvalidRequest(f"Invalid RuntimeType value: {runtime[:64]}", param="runtime")
    return RegisterOptions(
        url=parameters.text("url"),
        model_name=parameters.text("model_name"),
        handler=parameters.text("handler"),
        runtime=runtime.lower(),
        batch_size=parameters.whole("batch_size", minimum=1),
        max_batch_delay_seconds=parameters.seconds("max_batch_delay", per_unit=_SECONDS_PER_MS, minimum=0),
        response_timeout_seconds=parameters.seconds("response_timeout", minimum=1),
        startup_timeout_seconds=parameters.seconds("startup_timeout", minimum=1),
        initial_workers=parameters.whole("initial_workers", minimum=0),
        is_synchronous=parameters.flag("synchronous", True),
    )


def _named(request: Request) -> tuple[str, str | None]:
    return request.path_params["model"], request.path_params.get("version")
