"""Predictions over HTTP: what reaches a handler, what a client gets back, and how each failure looks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from argosy.core.errors import (
    ArgosyError,
    DeadlineExceeded,
    HandlerError,
    NoWorker,
    OutOfResources,
    QueueFull,
    WorkerDied,
)
from argosy.core.model_archive import SequenceSettings, VersionSettings
from argosy.core.prediction import Prediction, PredictRequest
from argosy.core.torchserve_spec import Compat
from argosy.protocols.torchserve import WireSettings
from argosy.protocols.torchserve.prediction_answer import PredictionAnswer

pytestmark = pytest.mark.anyio

NO_ROUTE = "Requested resource is not found, please refer to API document."
NO_METHOD = "Requested method is not allowed, please refer to API document."
STRICT = WireSettings(compat=Compat.STRICT)
MULTIPART = "multipart/form-data; boundary=XX"
A_FORM = (
    b'--XX\r\nContent-Disposition: form-data; name="data"; filename="x"\r\nContent-Type: image/png\r\n\r\nPNG\r\n--XX--'
)


def piece(body: bytes = b"ok", **fields: Any) -> Prediction:
    return Prediction(index=0, body=body, **fields)


def answering(*pieces: Prediction) -> Any:
    return lambda request: pieces


def input_of(name: str, content: str, kind: str = "") -> dict[str, str]:
    return {"name": name, "content": content, "type": kind}


A_JSON = input_of("body", "{}", "application/json")
FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("method", "url", "content_type", "body", "parts"),
    [
        ("POST", "/predictions/echo", "application/json", b'{}', [A_JSON]),
        ("POST", "/predictions/echo/1.0?q=1", "text/plain", b"x", [input_of("body", "x", "text/plain")]),
        ("PUT", "/predictions/echo", "", b"\x00\xff", [input_of("body", "\x00\xff")]),
        ("GET", "/predictions/echo", "", b"", [input_of("body", "")]),
        ("POST", "/predictions/echo", MULTIPART, A_FORM, [input_of("data", "PNG", "image/png")]),
        ("POST", "/predictions/echo", FORM, b"a=1&b=2", [input_of("a", "1"), input_of("b", "2")]),
        ("POST", "/echo/predict?q=1&r=%C3%A9", "text/plain", b"x",
         [input_of("body", "x", "text/plain"), input_of("q", "1"), input_of("r", "Ã©")]),
        ("GET", "/echo/1.0/predict?q=1", "", b"", [input_of("body", ""), input_of("q", "1")]),
        ("POST", "/v1/models/echo:predict", "application/json", b"{}", [A_JSON]),
        ("POST", "/v2/models/echo/infer", "application/json", b"{}", [A_JSON]),
        ("POST", "/models/echo/invoke?q=1", "application/json", b"{}", [A_JSON]),
        ("POST", "/invocations?model_name=echo", "application/json", b"{}", [A_JSON, input_of("model_name", "echo")]),
    ],
)  # fmt: skip
async def test_what_reaches_the_handler(
    server, method: str, url: str, content_type: str, body: bytes, parts: list[dict[str, str]]
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    async with server.client() as client:
        answer = await client.request(method, url, content=body, headers=headers)
    assert (answer.status_code, answer.json()["parts"]) == (200, parts)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/predictions/echo", {"url_path": "", "explain": "False"}),
        ("/predictions/echo/1.0/", {"url_path": "", "explain": "False"}),
        ("/predictions/echo/1.0/v1/a%20b", {"url_path": "v1/a b", "explain": "False"}),
        ("/explanations/echo", {"explain": "True"}),
        ("/explanations/echo/1.0", {"explain": "True"}),
        ("/v1/models/echo:explain", {"explain": "True"}),
        ("/v2/models/echo/explain", {"explain": "True"}),
    ],
)
async def test_what_the_path_tells_the_handler(server, path: str, headers: dict[str, str]) -> None:
    async with server.client() as client:
        answer = await client.post(path, content=b"x", headers={"X-Own": "1", "Authorization": "Bearer secret"})
    assert answer.status_code == 200
    told = answer.json()["headers"]
    assert {name: told[name] for name in headers} == headers
    assert told["x-own"] == "1"
    assert "authorization" not in told


async def test_strict_lets_the_handler_see_the_callers_token(server) -> None:
    async with server.client(settings=STRICT) as client:
        answer = await client.post("/predictions/echo", headers={"Authorization": "Bearer secret"})
    assert answer.json()["headers"]["authorization"] == "Bearer secret"


@pytest.mark.parametrize(
    ("pieces", "status", "headers", "body"),
    [
        ([piece(b"hi")], 200, {"content-type": None, "content-length": "2"}, b"hi"),
        ([piece(b"{}", content_type="application/json")], 200, {"content-type": "application/json"}, b"{}"),
        ([piece(b"x", headers={"Content-Type": "text/x-own", "X-A": "é"})], 200, {"content-type": "text/x-own"}, b"x"),
        ([piece(b"x", status=404, phrase="Not here")], 404, {}, b"x"),
        ([piece(b"ignored", status=204)], 204, {"content-length": "0"}, b""),
        # What belongs to the connection is not the handler's.
        ([piece(b"x", headers={"Content-Length": "9", "Connection": "close", "a": "1"})], 200,
         {"content-length": "1", "connection": None, "a": "1"}, b"x"),
        ([piece(b"x", headers={"Cache-Control": "max-age=9"})], 200, {"cache-control": "max-age=9"}, b"x"),
        ([piece(b"a", is_last=False), piece(b"b", is_last=False), piece(b"c")], 200, {"content-length": None}, b"abc"),
        ([piece(b"a", status=201, content_type="text/plain", is_last=False), piece(b"", status=500)], 201,
         {"content-type": "text/plain"}, b"a"),
    ],
)  # fmt: skip
async def test_what_the_client_gets(
    opened, store, pieces: list[Prediction], status: int, headers: dict[str, str | None], body: bytes
) -> None:
    store.scripts["echo"] = answering(*pieces)
    async with opened(store) as server, server.client() as client:
        await server.load("echo.mar")
        answer = await client.post("/predictions/echo")
    assert (answer.status_code, answer.content) == (status, body)
    assert {name: answer.headers.get(name) for name in headers} == headers


NO_CACHE = {
    "pragma": "no-cache",
    "cache-control": "no-cache; no-store, must-revalidate, private",
    "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/predictions/echo", 200), ("GET", "/models", 200), ("GET", "/nowhere", 404), ("GET", "/", 405)],
)
async def test_every_reply_says_that_nobody_may_keep_it(server, method: str, path: str, status: int) -> None:
    async with server.client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert {name: answer.headers[name] for name in NO_CACHE} == NO_CACHE
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "bad",
    [
        piece(headers={"x-a": "1\r\nSet-Cookie: a=b"}),
        piece(headers={"x a": "1"}),
        piece(headers={"": "1"}),
        piece(headers={"x-a": "☃"}),
        piece(content_type="text/html\r\n\r\n<script>"),
        piece(status=99),
        piece(status=100),
        piece(status=700),
        piece(b"x" * 20),
    ],
)
async def test_d24_an_answer_that_would_break_the_response_apart_is_an_error(opened, store, bad: Prediction) -> None:
    store.scripts["echo"] = answering(bad)
    async with opened(store) as server, server.client(settings=WireSettings(max_response_bytes=10)) as client:
        await server.load("echo.mar")
        answer = await client.post("/predictions/echo")
    assert answer.status_code in (500, 503)
    assert answer.json()["type"] == "InternalServerException"
    assert "set-cookie" not in answer.headers


CRASH = HandlerError("Prediction failed", cause="KeyError: 'es'")
NO_WORKER_TEXT = (
    'Model "echo" has no worker to serve inference request. Please use scale workers API to add workers. If this is a '
    "sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)


@pytest.mark.parametrize(
    ("error", "status", "kind", "text", "reason"),
    [
        (CRASH, 503, "InternalServerException", "Prediction failed", "handler_error"),
        (HandlerError("no 'es'", status=400), 400, "InternalServerException", "no 'es'", "handler_error"),
        (HandlerError("odd", status=513), 513, "InternalServerException", "odd", "handler_error"),
        (WorkerDied("signal 9"), 500, "InternalServerException", "Worker died. signal 9", "worker_died"),
        (WorkerDied("Worker died."), 500, "InternalServerException", "Worker died.", "worker_died"),
        (OutOfResources("2 GB"), 507, "InternalServerException", "Out of resources: 2 GB", "out_of_resources"),
        (DeadlineExceeded("too late"), 504, "RequestTimeoutException", "too late", "deadline_exceeded"),
        (QueueFull("100 wait", retry_after_seconds=2.2), 503, "ServiceUnavailableException", "100 wait", "queue_full"),
        (NoWorker("none", retry_after_seconds=1), 503, "ServiceUnavailableException", "none", "no_worker"),
    ],
)  # fmt: skip
async def test_how_a_failure_looks(
    server, monkeypatch: pytest.MonkeyPatch, error: ArgosyError, status: int, kind: str, text: str, reason: str
) -> None:
    async def fail(request: PredictRequest) -> Any:
        raise error
        yield

    monkeypatch.setattr(server.administration.registry.get("echo"), "predict", fail)
    async with server.client() as client:
        answer = await client.post("/predictions/echo")
    assert (answer.status_code, answer.json()) == (
        status,
        {"code": status, "type": kind, "message": text, "reason": reason},
    )
    assert ("retry-after" in answer.headers) == isinstance(error, QueueFull | NoWorker)


@pytest.mark.parametrize(
    ("error", "status", "kind", "text"),
    [
        (CRASH, 503, "InternalServerException", "Prediction failed"),
        (WorkerDied("signal 9"), 500, "InternalServerException", "Worker died."),
        (OutOfResources("over 2 GB"), 507, "InternalServerException", "Out of resources"),
        (QueueFull("100 wait", retry_after_seconds=2.2), 503, "ServiceUnavailableException", NO_WORKER_TEXT),
        (NoWorker("none", retry_after_seconds=1), 503, "ServiceUnavailableException", NO_WORKER_TEXT),
    ],
)
async def test_strict_fails_as_torchserve_to_the_letter(
    server, monkeypatch: pytest.MonkeyPatch, error: ArgosyError, status: int, kind: str, text: str
) -> None:
    async def fail(request: PredictRequest) -> Any:
        raise error
        yield

    monkeypatch.setattr(server.administration.registry.get("echo"), "predict", fail)
    async with server.client(settings=STRICT) as client:
        answer = await client.post("/predictions/echo")
    assert (answer.status_code, answer.json()) == (status, {"code": status, "type": kind, "message": text})
    assert answer.headers["connection"] == "close"
    assert answer.text.endswith('"\n}\n')


async def test_a_cause_is_shown_only_where_the_operator_allows_it(opened, store) -> None:
    store.scripts["echo"] = lambda request: CRASH
    async with opened(store) as server:
        await server.load("echo.mar")
        async with server.client() as client, server.client(settings=WireSettings(shows_causes=True)) as open_client:
            assert "KeyError" not in (await client.post("/predictions/echo")).text
            assert (await open_client.post("/predictions/echo")).json()["cause"] == "KeyError: 'es'"


@pytest.mark.parametrize(
    ("path", "right", "strict"),
    [
        ("/predictions/nobody", "Model not found: nobody. This server has: echo.", "Model not found: nobody"),
        ("/predictions/ech", "Model not found: ech. Did you mean 'echo'? This server has: echo.",
         "Model not found: ech"),
        ("/predictions/echo/9.9", "Model version: 9.9 does not exist for model: echo; it has 1.0",
         "Model version: 9.9 does not exist for model: echo"),
    ],
)  # fmt: skip
async def test_a_model_or_version_that_is_not_there(server, path: str, right: str, strict: str) -> None:
    kind = "ModelVersionNotFoundException" if "9.9" in path else "ModelNotFoundException"
    async with server.client() as client, server.client(settings=STRICT) as strict_client:
        answer, original = await client.post(path), await strict_client.post(path)
    assert (answer.status_code, answer.json()["type"], answer.json()["message"]) == (404, kind, right)
    assert original.json() == {"code": 404, "type": kind, "message": strict}


@pytest.mark.parametrize(
    ("method", "path", "status", "kind", "text"),
    [
        ("GET", "/nowhere", 404, "ResourceNotFoundException", NO_ROUTE),
        ("GET", "/", 405, "MethodNotAllowedException", NO_METHOD),
        ("PUT", "/api-description", 405, "MethodNotAllowedException", NO_METHOD),
        ("DELETE", "/ping", 405, "MethodNotAllowedException", NO_METHOD),
    ],
)  # fmt: skip
async def test_paths_that_are_not_there(server, method: str, path: str, status: int, kind: str, text: str) -> None:
    async with server.client() as client:
        answer = await client.request(method, path)
    assert (answer.status_code, answer.json()) == (status, {"code": status, "type": kind, "message": text})


async def test_a_body_that_is_too_large_is_413(server) -> None:
    async with server.client(max_body_bytes=10) as client:
        answer = await client.post("/predictions/echo", content=b"x" * 11)
    assert (answer.status_code, answer.json()["type"]) == (413, "RequestEntityTooLargeException")


async def test_a_stream_that_fails_after_its_first_piece_is_cut(opened, store) -> None:
    def half(request: PredictRequest) -> Sequence[Prediction]:
        return [piece(b"a", is_last=False), piece(b"x" * 20)]

    store.scripts["echo"] = half
    async with opened(store) as server, server.client(settings=WireSettings(max_response_bytes=10)) as client:
        await server.load("echo.mar")
        with pytest.raises(HandlerError, match="20 bytes"):
            await client.post("/predictions/echo")


async def test_what_streams_has_a_body(opened, store) -> None:
    store.scripts["echo"] = lambda request: [piece(b"a", is_last=False, status=204), piece(b"b")]
    async with opened(store) as server, server.client() as client:
        await server.load("echo.mar")
        answer = await client.post("/predictions/echo")
    assert (answer.status_code, "status 204" in answer.json()["message"]) == (503, True)


async def test_f07_a_full_queue_is_503_at_once_while_others_wait(opened, store) -> None:
    store.gate = asyncio.Event()
    store.settings = VersionSettings(job_queue_size=1)
    async with opened(store) as server, server.client() as client, asyncio.TaskGroup() as group:
        await server.load("echo.mar")
        running = group.create_task(client.post("/predictions/echo"))
        await store.entered.wait()
        answers = [group.create_task(client.post("/predictions/echo")) for _ in range(2)]
        refused = await first_done(answers)
        assert (refused.status_code, refused.json()["reason"]) == (503, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert not running.done()
        store.gate.set()
    assert sorted(task.result().status_code for task in (running, *answers)) == [200, 200, 503]


async def first_done(tasks: list[asyncio.Task[Any]]) -> Any:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=5)
    return next(iter(done)).result()


async def test_f06_a_client_that_leaves_closes_the_prediction_at_once() -> None:
    entered, closed = asyncio.Event(), asyncio.Event()

    async def endless() -> Any:
        try:
            entered.set()
            await asyncio.Event().wait()
            yield piece()
        finally:
            closed.set()

    async def send(message: Any) -> None:
        raise AssertionError("nothing is to be sent")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(PredictionAnswer(endless(), 10)({}, send, send))
        await entered.wait()
        task.cancel()
    assert closed.is_set()


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        ({"ts_request_sequence_id": "s1"}, ("s1", False, False)),
        ({"ts_request_sequence_id": "s1", "ts_request_sequence_start": "true"}, ("s1", True, False)),
        ({"ts_request_sequence_id": "s1", "ts_request_sequence_end": "True"}, ("s1", False, True)),
    ],
)
async def test_a_sequence_is_named_begun_and_ended_by_headers(
    opened, store, sent: dict[str, str], seen: tuple[str, bool, bool]
) -> None:
    got: list[PredictRequest] = []

    def note(request: PredictRequest) -> Sequence[Prediction]:
        got.append(request)
        return [piece()]

    store.scripts["echo"] = note
    store.settings = VersionSettings(sequences=SequenceSettings())
    async with opened(store) as server, server.client() as client:
        await server.load("echo.mar")
        if not seen[1]:
            await client.post(
                "/predictions/echo", headers={"ts_request_sequence_id": "s1", "ts_request_sequence_start": "true"}
            )
        assert (await client.post("/predictions/echo", headers=sent)).status_code == 200
    assert (got[-1].sequence_id, got[-1].starts_sequence, got[-1].ends_sequence) == seen


async def test_who_begins_a_sequence_without_a_name_is_told_one(opened, store) -> None:
    store.settings = VersionSettings(sequences=SequenceSettings())
    async with opened(store) as server, server.client() as client:
        await server.load("echo.mar")
        answer = await client.post("/predictions/echo", headers={"ts_request_sequence_start": "true"})
    name = answer.headers["ts_request_sequence_id"]
    assert name.startswith("ts-seq-")
    assert answer.json()["headers"]["ts_request_sequence_id"] == name
