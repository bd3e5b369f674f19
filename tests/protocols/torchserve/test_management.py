"""The management API: status and text of every answer, the description, lists by page, parameters that are wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from argosy.core.errors import ArgosyError, ArtifactError, HandlerError, NotFound, OutOfResources, SpecError
from argosy.core.model_archive import SequenceSettings, VersionSettings
from argosy.core.prediction_status import VersionStatus, WorkerPhase, WorkerStatus
from argosy.core.torchserve_spec import Compat
from argosy.protocols.torchserve import Api, WireSettings
from argosy.protocols.torchserve.description import described
from argosy.protocols.torchserve.queries import Parameters

pytestmark = pytest.mark.anyio

UPDATING = "Processing worker updates..."


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("POST", "/models?url=echo-2.mar&initial_workers=1", 200,
         'Model "echo" Version: 2.0 registered with 1 initial workers'),
        ("POST", "/models?url=echo.mar&model_name=other&initial_workers=0", 200,
         'Model "other" Version: 1.0 registered with 0 initial workers. '
         "Use scale workers API to add workers for the model."),
        ("POST", "/models?url=echo.mar&model_name=other&initial_workers=1&synchronous=false", 202, UPDATING),
        ("PUT", "/models/echo?min_worker=2&synchronous=true", 200, "Workers scaled to 2 for model: echo"),
        ("PUT", "/models/echo/1.0?min_worker=2&synchronous=true", 200,
         "Workers scaled to 2 for model: echo, version: 1.0"),
        ("PUT", "/models/echo?min_worker=2", 202, UPDATING),
        ("PUT", "/models/echo", 202, UPDATING),
        ("PUT", "/models/echo?min_worker=2&synchronous=true&timeout=-1&model_version=1.0", 200,
         "Workers scaled to 2 for model: echo, version: 1.0"),
        ("PUT", "/models/echo?min_worker=2&synchronous=true&timeout=0", 206, "Workers scaling in progress..."),
        ("PUT", "/models/echo/1.0/set-default", 200,
         'Default version successfully updated for model "echo" to "1.0"'),
        ("DELETE", "/models/echo", 200, 'Model "echo" unregistered'),
        ("DELETE", "/models/echo/1.0?synchronous=true&timeout=3", 200, 'Model "echo" unregistered'),
    ],
)  # fmt: skip
async def test_what_is_done_is_said_in_torchserves_words(
    server, method: str, path: str, status: int, text: str
) -> None:
    async with server.client(Api.MANAGEMENT) as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"status": text})
    assert answer.text == f'{{\n  "status": {json.dumps(text)}\n}}\n'


BAD_REQUEST = "BadRequestException"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "text"),
    [
        ("POST", "/models", 400, BAD_REQUEST, "Parameter url is required."),
        ("POST", "/models?url=", 404, "ModelNotFoundException", "empty url"),
        ("POST", "/models?url=absent.mar", 404, "ModelNotFoundException", "Model not found in model store: absent.mar"),
        ("POST", "/models?url=echo.mar&runtime=cobol", 400, BAD_REQUEST, "Invalid RuntimeType value: cobol"),
        ("POST", "/models?url=echo.mar&batch_size=0", 400, BAD_REQUEST,
         "Parameter batch_size is 0: it cannot be less than 1."),
        ("POST", "/models?url=echo.mar&initial_workers=-1", 400, BAD_REQUEST,
         "Parameter initial_workers is -1: it cannot be less than 0."),
        ("POST", "/models?url=bad.mar", 400, "InvalidModelException", "no manifest"),
        ("POST", "/models?url=cut.mar", 400, "InvalidModelException", "no zip"),
        ("POST", "/models?url=http://far/a.mar", 400, "DownloadArchiveException",
         "Failed to download archive from: http://far/a.mar: it answers 404"),
        ("PUT", "/models/nobody", 404, "ModelNotFoundException", "Model not found: nobody. This server has: echo."),
        ("PUT", "/models/echo/9.9", 404, "ModelVersionNotFoundException",
         "Model version: 9.9 does not exist for model: echo; it has 1.0"),
        ("PUT", "/models/echo?min_worker=3&max_worker=1", 400, BAD_REQUEST,
         "max_worker cannot be less than min_worker."),
        ("PUT", "/models/echo?min_worker=-1", 400, BAD_REQUEST,
         "Parameter min_worker is -1: it cannot be less than 0."),
        ("GET", "/models/nobody", 404, "ModelNotFoundException", "Model not found: nobody. This server has: echo."),
        ("GET", "/models/nobody/all", 404, "ModelNotFoundException", "Model not found: nobody. This server has: echo."),
        ("GET", "/v1/models/nobody", 404, "ModelNotFoundException", "Model not found: nobody. This server has: echo."),
        ("PUT", "/models/echo/3.0/set-default", 404, "ModelVersionNotFoundException",
         "Model version 3.0 does not exist for model echo"),
        ("PUT", "/models/nobody/1.0/set-default", 404, "ModelNotFoundException",
         "Model not found: nobody. This server has: echo."),
        ("PUT", "/models/nobody1.0/1.0/set-default", 404, "ModelNotFoundException",
         "Model not found: nobody1.0. This server has: echo."),
        ("DELETE", "/models/nobody", 404, "ModelNotFoundException", "Model not found: nobody. This server has: echo."),
        ("PUT", "/models/echo?model_version=3.0", 404, "ModelVersionNotFoundException",
         "Model version: 3.0 does not exist for model: echo; it has 1.0"),
        ("PUT", "/models", 405, "MethodNotAllowedException",
         "Requested method is not allowed, please refer to API document."),
        ("PUT", "/models/echo/1.0/set-other", 404, "ResourceNotFoundException",
         "Requested resource is not found, please refer to API document."),
        ("POST", "/predictions/echo", 404, "ResourceNotFoundException",
         "Requested resource is not found, please refer to API document."),
    ],
)  # fmt: skip
async def test_what_is_refused(server, store, method: str, path: str, status: int, kind: str, text: str) -> None:
    store.failures = {
        "bad.mar": SpecError("no manifest"),
        "cut.mar": ArtifactError("no zip"),
        "http://far/a.mar": ArtifactError("it answers 404"),
    }
    async with server.client(Api.MANAGEMENT) as client:
        answer = await client.request(method, path)
    body = answer.json()
    assert (answer.status_code, body["code"], body["type"], body["message"]) == (status, status, kind, text)


@pytest.mark.parametrize(
    ("url", "error", "text"),
    [
        ("a.mar", NotFound("Model not found at: a.mar: the store has b.mar"), "Model not found at: a.mar"),
        ("http://x/a", NotFound("Given URL http://x/a is not allowed: ask"), "Given URL http://x/a is not allowed"),
        ("http://x/a", ArtifactError("404"), "Failed to download archive from: http://x/a"),
        ("echo.mar", None, "Model version 1.0 is already registered for model echo"),
    ],
)  # fmt: skip
async def test_strict_says_no_more_than_torchserve(server, store, url: str, error: Any, text: str) -> None:
    if error is not None:
        store.failures[url] = error
    async with server.client(settings=WireSettings(compat=Compat.STRICT)) as client:
        assert (await client.post(f"/models?url={url}")).json()["message"] == text


async def test_versions_of_a_model(server) -> None:
    async with server.client() as client:
        assert (await client.post("/models?url=echo.mar")).json()["type"] == "ConflictStatusException"
        assert (await client.post("/models?url=echo-2.mar&initial_workers=1")).status_code == 200
        versions = [element["modelVersion"] for element in (await client.get("/models/echo/all")).json()]
        assert versions == ["1.0", "2.0"]
        refused = await client.delete("/models/echo")
        assert (refused.status_code, refused.json()["type"]) == (403, "InvalidModelVersionException")
        assert (await client.put("/models/echo/2.0/set-default")).status_code == 200
        assert (await client.get("/models/echo")).json()[0]["modelVersion"] == "2.0"
        assert (await client.delete("/models/echo/1.0")).status_code == 200
        assert (await client.post("/predictions/echo/1.0")).status_code == 404
        assert (await client.post("/predictions/echo")).status_code == 200


async def test_a_registration_may_come_as_json(server) -> None:
    asked = {"url": "echo.mar", "model_name": "j", "initial_workers": 0, "synchronous": True, "batch_size": 4,
             "max_batch_delay": 50, "response_timeout": 60, "startup_timeout": "70"}  # fmt: skip
    async with server.client() as client:
        assert (await client.post("/models", json=asked)).status_code == 200
        (element,) = (await client.get("/models/j")).json()
        taken = {"batchSize": 4, "maxBatchDelay": 50, "responseTimeout": 60, "startupTimeout": 70}
        assert {name: element[name] for name in taken} == taken
        for body in (b'{"url": ', b"[]", b"\xff", b"[" * 5000):
            answer = await client.post("/models", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["type"]) == (400, BAD_REQUEST)


@pytest.mark.parametrize(
    ("error", "status", "kind", "right", "strict"),
    [
        (HandlerError("no such file"), 500, "InternalServerException",
         "Failed to start workers for model broken version: 1.0: no such file",
         "Failed to start workers for model broken version: 1.0"),
        (OutOfResources("over 1 GB"), 507, "OutOfMemoryException", "over 1 GB", "over 1 GB"),
        (SpecError("no handler"), 400, "InvalidModelException", "no handler", "no handler"),
    ],
)  # fmt: skip
async def test_a_model_whose_workers_cannot_start_is_not_registered(
    server, store, error: ArgosyError, status: int, kind: str, right: str, strict: str
) -> None:
    store.scripts["broken"] = store.scripts["echo"]
    store.start_errors["broken"] = error
    for settings, text in ((WireSettings(), right), (WireSettings(compat=Compat.STRICT), strict)):
        async with server.client(settings=settings) as client:
            answer = await client.post("/models?url=broken.mar&initial_workers=1")
            assert (answer.status_code, answer.json()["type"], answer.json()["message"]) == (status, kind, text)
            assert (await client.get("/models/broken")).status_code == 404


@pytest.mark.parametrize(
    ("query", "names", "token"),
    [
        ("", ["a", "b", "c", "echo"], None),
        ("?limit=2", ["a", "b"], "2"),
        ("?limit=2&next_page_token=2", ["c", "echo"], None),
        ("?limit=3&next_page_token=2", ["c", "echo"], None),
        ("?limit=2&next_page_token=100", [], None),
        ("?limit=1000", ["a", "b", "c", "echo"], None),
        ("?limit=-1&next_page_token=-5", ["a", "b", "c", "echo"], None),
        ("?limit=two&next_page_token=x", ["a", "b", "c", "echo"], None),
    ],
)
async def test_models_are_listed_by_name_a_page_at_a_time(
    server, query: str, names: list[str], token: str | None
) -> None:
    for name in ("c", "b", "a"):
        await server.load("echo.mar", model_name=name, initial_workers=0)
    async with server.client() as client:
        answer = await client.get(f"/models{query}")
    assert [model["modelName"] for model in answer.json()["models"]] == names
    assert answer.json().get("nextPageToken") == token


async def test_a_parameter_that_is_no_number_is_its_default_and_the_answer_says_so(server) -> None:
    async with server.client() as client:
        listed = await client.get("/models?limit=tw%22o")
        scaled = await client.put("/models/echo?min_worker=few&synchronous=maybe")
        plain = await client.get("/models?limit=2")
    assert listed.headers["warning"] == "299 argosy \"limit='tw?o' is not a whole number, 100 is used\""
    assert (scaled.status_code, scaled.headers["warning"].count("299 argosy")) == (202, 2)
    async with server.client(settings=WireSettings(compat=Compat.STRICT)) as strict:
        silent = await strict.get("/models?limit=two")
    assert "warning" not in {**plain.headers, **silent.headers}


@pytest.mark.parametrize(
    ("given", "value", "warns"),
    [("5", 5, 0), ("+5", 5, 0), ("-5", -5, 0), ("", 7, 0), (" 5 ", 5, 0), ("5.0", 7, 1), ("5_0", 7, 1), ("٥", 7, 1),
     ("1e3", 7, 1), ("99999999999", 7, 1), (5, 5, 0), (True, 7, 1), (None, 7, 0), ([1], 7, 1)],
)  # fmt: skip
def test_whole_numbers(given: Any, value: int, warns: int) -> None:
    parameters = Parameters({"n": given})
    assert (parameters.whole("n", 7), len(parameters.warnings)) == (value, warns)


@pytest.mark.parametrize(
    ("given", "value", "warns"),
    [("true", True, 0), ("False", False, 0), (True, True, 0), ("", True, 0), ("yes", False, 1), ("0", False, 1)],
)
def test_flags(given: Any, value: bool, warns: int) -> None:
    parameters = Parameters({"f": given})
    assert (parameters.flag("f", True), len(parameters.warnings)) == (value, warns)


async def test_models_cannot_be_changed_where_the_operator_says_so(server) -> None:
    async with server.client(settings=WireSettings(may_change_models=False)) as client:
        for method, path in (("POST", "/models?url=echo-2.mar"), ("DELETE", "/models/echo")):
            answer = await client.request(method, path)
            assert (answer.status_code, answer.json()["type"]) == (405, "MethodNotAllowedException")
            assert "--enable-model-api" in answer.json()["message"]
        assert (await client.put("/models/echo?min_worker=1")).status_code == 202
        assert (await client.get("/models/echo")).status_code == 200


async def test_customized_metadata_is_what_the_handler_says_of_itself(opened, store) -> None:
    store.descriptions["echo"] = {"inputs": ["text"]}
    async with opened(store) as server, server.client() as client:
        await server.load("echo.mar")
        plain, asked = [(await client.get(f"/models/echo{query}")).json()[0] for query in ("", "?customized=true")]
        assert "customizedMetadata" not in plain
        assert asked["customizedMetadata"] == {"inputs": ["text"]}
        assert (await client.options("/predictions/echo")).json() == {"inputs": ["text"]}


STATUS = VersionStatus(
    name="m",
    version="1.0",
    url="m.mar",
    runtime="python",
    is_default=True,
    is_loaded_at_startup=False,
    is_healthy=True,
    settings=VersionSettings(
        job_queue_size=100,
        client_timeout_seconds=1.5,
        device_ids=(0,),
        sequences=SequenceSettings(max_idle_seconds=2, max_sequences=4),
    ),
    batch_size=1,
    max_batch_delay_seconds=0.0,
    num_queued=3,
    num_running=1,
    workers=(
        WorkerStatus(seat=9000, phase=WorkerPhase.READY, pid=7, started_at=1_706_696_430.123, memory_bytes=123_456),
        WorkerStatus(seat=9001, phase=WorkerPhase.FAILED, reason="it died", restarts=2),
    ),
)


def test_strict_describes_a_version_with_torchserves_members_in_its_order() -> None:
    assert described(STATUS, metadata={}, strict=True) == {
        "modelName": "m", "modelVersion": "1.0", "modelUrl": "m.mar", "runtime": "python", "minWorkers": 1,
        "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 100, "responseTimeout": 120, "startupTimeout": 120,
        "maxRetryTimeoutInSec": 300, "clientTimeoutInMills": 1500, "parallelType": "", "parallelLevel": 0,
        "deviceType": "cpu", "deviceIds": [0], "continuousBatching": False, "useJobTicket": False, "useVenv": False,
        "stateful": True, "sequenceMaxIdleMSec": 2000, "sequenceTimeoutMSec": 0, "maxNumSequence": 4,
        "maxSequenceJobQueueSize": 1, "loadedAtStartup": False,
        "workers": [
            {"id": "9000", "startTime": "2024-01-31T10:20:30.123Z", "status": "READY", "memoryUsage": 123456, "pid": 7,
             "gpu": False, "gpuUsage": "N/A"},
            {"id": "9001", "startTime": "1970-01-01T00:00:00.000Z", "status": "UNLOADING", "memoryUsage": 0,
             "pid": -1, "gpu": False, "gpuUsage": "N/A"},
        ],
        "jobQueueStatus": {"remainingCapacity": 97, "pendingRequests": 3},
        "customizedMetadata": {},
    }  # fmt: skip


def test_right_also_says_what_is_wrong_with_a_worker() -> None:
    element = described(STATUS, strict=False)
    assert element["workers"][1] | {"phase": "failed", "reason": "it died", "restarts": 2} == element["workers"][1]
    assert element["argosy"]["runningRequests"] == 1


async def test_strict_is_a_setting_of_the_server(server) -> None:
    async with server.client(settings=WireSettings(compat=Compat.STRICT)) as client:
        assert "argosy" not in (await client.get("/models/echo")).json()[0]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/workflows?url=w.war", 501, "NotImplementedException"),
        ("GET", "/workflows/w", 404, "WorkflowNotFoundException"),
        ("DELETE", "/workflows/w", 404, "WorkflowNotFoundException"),
        ("POST", "/wfpredict/w", 404, "WorkflowNotFoundException"),
        ("GET", "/token?type=inference", 501, "NotImplementedException"),
    ],
)
async def test_what_is_not_served_says_so(server, method: str, path: str, status: int, kind: str) -> None:
    async with server.client() as client:
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["type"]) == (status, kind)
        assert (await client.get("/workflows")).json() == {"workflows": []}
