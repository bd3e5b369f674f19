"""A handler called in this process: forms of handlers, values in and out, statuses, failures, streams, envelopes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from handlers_world import json_request, request
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import SpecError
from argosy.core.prediction import InputPart, Prediction, PredictRequest
from argosy.handlers.worker import torchserve_names
from argosy.handlers.worker.calls import Calls
from argosy.handlers.worker.context import Context
from argosy.handlers.worker.envelopes import in_envelope
from argosy.handlers.worker.loading import EntryPoint, find_entry_point
from argosy.handlers.worker.messages import EVENTS, HEADER, Answer, DeclaredMetric, Event, Failed, frame
from argosy.handlers.worker.metrics import CachingMetric, Dimension, MetricsCache, MetricsCacheKeyError, MetricTypes
from argosy.handlers.worker.payloads import output_bytes

Handle = Callable[[Any, Context], Any]


def context_of(config: dict[str, Any] | None = None, **properties: Any) -> Context:
    manifest = {"model": {"modelName": "m", "modelVersion": "2.0"}}
    return Context("m", manifest, properties, MetricsCache("m"), config or {})


def run(handle: Handle, *batch: PredictRequest, envelope: str = "", decodes: bool = True) -> tuple[Any, list[Event]]:
    entry = EntryPoint(handle, lambda context: None)
    sent: list[Event] = []
    calls = Calls(in_envelope(envelope, entry) if envelope else entry, context_of(), sent.append, decodes_input=decodes)
    answer = calls.answer(batch, 7)
    # It is what the server reads, too.
    assert EVENTS.decode(frame(answer)[HEADER.size :]) == answer
    return answer, sent


def results(handle: Handle, *batch: PredictRequest, envelope: str = "", decodes: bool = True) -> list[bytes]:
    answer, _ = run(handle, *batch, envelope=envelope, decodes=decodes)
    assert isinstance(answer, Answer), answer
    return [prediction.body for prediction in answer.predictions]


class TestInput:
    def seen(self, given: PredictRequest, *, decodes: bool = True) -> Any:
        rows: list[Any] = []
        run(lambda data, context: rows.extend(data) or [""], given, decodes=decodes)
        return rows[0]

    @pytest.mark.parametrize(
        ("body", "content_type", "value"),
        [
            (b'{"a": [1, 2]}', "application/json", {"a": [1, 2]}),
            (b"{broken", "application/json", bytearray(b"{broken")),
            (b"[" * 100_000, "application/json", bytearray(b"[" * 100_000)),
            ("grüß".encode(), "text/plain", "grüß"),
            (b"\xff", "text/plain", bytearray(b"\xff")),
            (b"raw", "application/octet-stream", bytearray(b"raw")),
            (b"raw", "", bytearray(b"raw")),
        ],
    )
    def test_is_what_its_type_says_or_bytes(self, body: bytes, content_type: str, value: Any) -> None:
        assert self.seen(request(body, content_type)) == {"body": value}

    def test_is_bytes_where_decoding_is_off(self) -> None:
        assert self.seen(json_request({}), decodes=False) == {"body": bytearray(b"{}")}

    def test_has_each_part_by_its_name(self) -> None:
        parts = (InputPart(name="text", content=b"hi", content_type="text/plain"), InputPart(name="to", content=b"fr"))
        assert self.seen(PredictRequest(request_id="1", parts=parts)) == {"text": "hi", "to": bytearray(b"fr")}


class Matrix:
    """Stands for a tensor or an array."""

    def tolist(self) -> list[list[int]]:
        return [[1, 2]]


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (b"raw", b"raw"),
        (bytearray(b"raw"), b"raw"),
        ("grüß", "grüß".encode()),
        ({"a": 1}, b'{\n  "a": 1\n}'),
        (3, b"3"),
        (None, b"null"),
        (Matrix(), b"[\n  [\n    1,\n    2\n  ]\n]"),
        ({"m": Matrix()}, b'{\n  "m": [\n    [\n      1,\n      2\n    ]\n  ]\n}'),
    ],
)
def test_output_is_bytes_text_or_json_and_never_a_pickle(value: Any, body: bytes) -> None:
    assert results(lambda data, context: [value], request()) == [body]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.booleans(), inner),
)


@given(JSON)
def test_json_is_byte_for_byte_what_torchserve_writes(value: Any) -> None:
    if not isinstance(value, str):
        assert output_bytes(value) == json.dumps(value, indent=2).encode()


def raising(exc: Exception) -> Handle:
    def handle(data: Any, context: Context) -> Any:
        raise exc

    return handle


class PredictionError(Exception):
    pass


FAILURES = [
    (lambda data, context: "text", "handler", 503, "Invalid model predict output"),
    (lambda data, context: [1, 2], "handler", 503, "number of batch response mismatched"),
    (lambda data, context: [object()], "handler", 503, "Unsupported model output data type."),
    (raising(ValueError("inside")), "handler", 503, "Prediction failed"),
    (raising(MemoryError()), "memory", 507, "Out of resources"),
    (raising(RuntimeError("CUDA error: out of memory")), "memory", 507, "Out of resources"),
    (raising(RuntimeError("DefaultCPUAllocator: can't allocate memory")), "memory", 507, "Out of resources"),
]


@pytest.mark.parametrize(("handle", "kind", "status", "message"), FAILURES)
def test_failures_have_torchserves_texts(handle: Handle, kind: str, status: int, message: str) -> None:
    failed, _ = run(handle, request())
    assert isinstance(failed, Failed)
    assert (failed.kind, failed.status, failed.message) == (kind, status, message)


@pytest.mark.parametrize(("code", "status"), [(418, 418), (500, 500), (9, 500), (100, 500), ("x", 500)])
def test_a_prediction_exception_chooses_text_and_status(names: None, code: Any, status: int) -> None:
    util = __import__("ts.utils.util", fromlist=["PredictionException"])
    failed, _ = run(raising(util.PredictionException("teapots only", code)), request())
    assert (failed.kind, failed.status, failed.message) == ("handler", status, "teapots only")


def test_the_context_knows_the_batch_and_shapes_its_answers() -> None:
    def handle(data: Any, context: Context) -> list[str]:
        assert context.request_ids == {0: "a", 1: "b"}
        assert context.get_request_id(1) == "b"
        assert context.get_request_header(0, "X-Tenant") == "blue"
        assert context.get_request_header(0, "body") == {"content-type": "text/plain"}
        assert context.get_request_header(1, "x-tenant") is None
        assert context.get_sequence_id(1) == ""
        context.set_response_content_type(0, "text/csv")
        context.set_response_header(0, "x-cost", "3")
        context.set_response_status(201, "Made", idx=0)
        context.set_response_status(404, "Not there", idx=1)
        assert context.get_response_content_type(0) == "text/csv"
        assert context.get_response_status(1) == (404, "Not there")
        return ["one", "two"]

    headers = {"x-tenant": "blue"}
    first = PredictRequest(request_id="a", parts=request(b"", "text/plain").parts, headers=headers)
    answer, _ = run(handle, first, request(id="b"))
    assert answer.predictions == (
        Prediction(index=0, body=b"one", status=201, phrase="Made", content_type="text/csv", headers={"x-cost": "3"}),
        Prediction(index=1, body=b"two", status=404, phrase="Not there"),
    )


def test_a_sequence_is_known_by_its_header() -> None:
    def handle(data: Any, context: Context) -> list[str]:
        return [context.get_sequence_id(0)]

    assert results(handle, PredictRequest(request_id="1", parts=(), sequence_id="s-7")) == [b"s-7"]


def test_intermediate_pieces_carry_the_status_of_their_time(names: None) -> None:
    streaming = __import__("ts.handler_utils.utils", fromlist=["send_intermediate_predict_response"])

    def handle(data: Any, context: Context) -> list[str]:
        context.set_all_response_status(206)
        streaming.send_intermediate_predict_response(["a", "b"], context.request_ids, "ok", 200, context)
        context.set_all_response_status(200)
        return ["c", "d"]

    answer, sent = run(handle, request(), request())
    (first,) = sent
    assert isinstance(first, Answer)
    assert not first.is_end
    assert [(each.index, each.body, each.status, each.is_last) for each in first.predictions] == [
        (0, b"a", 206, False), (1, b"b", 206, False),
    ]  # fmt: skip
    assert [(each.body, each.status, each.is_last) for each in answer.predictions] == [
        (b"c", 200, True), (b"d", 200, True),
    ]  # fmt: skip


def test_a_piece_for_a_request_that_is_over_reaches_no_other(names: None) -> None:
    streaming = __import__("ts.handler_utils.utils", fromlist=["send_intermediate_predict_response"])

    def handle(data: Any, context: Context) -> list[str]:
        # As a thread of an earlier call would, which kept the ids of its own requests; then half of this one's.
        for ids in ({0: "earlier", 1: "too"}, {1: context.request_ids[1]}):
            streaming.send_intermediate_predict_response(["a", "b"], ids, "ok", 200, context)
        return ["c", "d"]

    _, sent = run(handle, request(id="r0"), request(id="r1"))
    assert [(each.number, [(one.index, one.body) for one in each.predictions]) for each in sent] == [(7, [(1, b"b")])]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("half \ud800"), "ValueError: half \\ud800"),
        (Unspeakable(), "Unspeakable: a Unspeakable that cannot be written as text"),
    ],
)
def test_whatever_an_exception_says_it_can_be_told(error: Exception, cause: str) -> None:
    def handle(data: Any, context: Context) -> list[str]:
        raise error

    failed, _ = run(handle, request())
    assert (failed.message, failed.cause) == ("Prediction failed", cause)


def test_heads_are_text_whatever_a_handler_sets() -> None:
    def handle(data: Any, context: Context) -> list[str]:
        context.set_response_status(201, 5)
        context.set_response_header(0, "X-Count", 3)
        context.set_response_header(0, "X-Half", "\ud800")
        context.set_response_header(0, "Content-Type", "text/plain")
        context.metrics.add_metric("Odd", 1, None, dimensions=[Dimension("Half", "\udfff")])
        return [""]

    answer, _ = run(handle, request())
    (prediction,) = answer.predictions
    assert (prediction.phrase, prediction.content_type) == ("5", "text/plain")
    assert prediction.headers == {"X-Count": "3", "X-Half": "\\ud800"}
    assert answer.metrics[0].unit == "unit"
    assert answer.metrics[0].dimensions["Half"] == "\\udfff"


def test_the_model_is_told_though_a_handler_tells_the_level() -> None:
    metrics = MetricsCache("m")
    metrics.add_counter("Seen", 1, None, [Dimension("Level", "Mine")])
    assert metrics.drain()[0].dimensions == {"Level": "Mine", "ModelName": "m"}


def test_raw_bytes_cannot_be_written_into_the_wire() -> None:
    def handle(data: Any, context: Context) -> list[str]:
        assert context.cl_socket is not None
        context.cl_socket.sendall(b"TorchServe's frame")
        return [""]

    failed, _ = run(handle, request())
    assert "TypeError: only what create_predict_response returns" in failed.cause


def test_a_continuous_batch_goes_on_until_each_request_has_stopped() -> None:
    """Requests want as many tokens as their body says; those that have enough leave, the others are asked again."""

    def handle(data: Any, context: Context) -> list[str]:
        assert context.request_ids is not None
        wanted = [row["body"] for row in data]
        for index, request_id in context.request_ids.items():
            made[request_id] = made.get(request_id, 0) + 1
            enough[index] = made[request_id] >= wanted[index]
        context.stopping_criteria = [lambda result, index=index: enough[index] for index in range(len(data))]
        return [f"{request_id}{made[request_id]}" for request_id in context.request_ids.values()]

    made: dict[str, int] = {}
    enough: dict[int, bool] = {}
    batch = [json_request(count, id=name) for name, count in (("a", 1), ("b", 3), ("c", 2))]
    answer, sent = run(handle, *batch)
    pieces = [piece for event in [*sent, answer] for piece in event.predictions]
    assert [(piece.index, piece.body, piece.is_last) for piece in pieces] == [
        (0, b"a1", True), (1, b"b1", False), (2, b"c1", False),
        (1, b"b2", False), (2, b"c2", True),
        (1, b"b3", True),
    ]  # fmt: skip


class TestEnvelopes:
    def doubled(self, data: Any, context: Context) -> Any:
        return [row * 2 for row in data]

    def test_body(self) -> None:
        assert results(self.doubled, json_request(2), json_request("ab"), envelope="body") == [b"4", b"abab"]

    def test_json_joins_and_parts_again(self) -> None:
        batch = (json_request({"instances": [1, 2]}), json_request({"instances": [3]}))
        bodies = results(self.doubled, *batch, envelope="json")
        assert [json.loads(body) for body in bodies] == [{"predictions": [2, 4]}, {"predictions": [6]}]

    def test_json_decodes_base64(self) -> None:
        def kinds(data: Any, context: Context) -> Any:
            return [repr(row) for row in data]

        (body,) = results(
            kinds, json_request({"instances": [{"b64": "aGk="}, {"x": {"b64": "aGk="}}]}), envelope="json"
        )
        assert json.loads(body) == {"predictions": ["b'hi'", "{'x': b'hi'}"]}

    def test_kserve_answers_every_request_of_the_batch(self) -> None:
        batch = (json_request({"instances": [1]}), json_request({"instances": [2, 3]}))
        bodies = results(self.doubled, *batch, envelope="kserve")
        assert [json.loads(body) for body in bodies] == [{"predictions": [2]}, {"predictions": [4, 6]}]

    def test_kserve_explains(self) -> None:
        (body,) = results(self.doubled, json_request({"instances": [1]}, explain="True"), envelope="kserve")
        assert json.loads(body) == {"explanations": [2]}

    def test_kserve_2_shapes_inputs_and_names_outputs(self) -> None:
        def sums(data: Any, context: Context) -> Any:
            assert data[0]["data"] == [[1, 2], [3, 4]]
            return [sum(sum(row) for row in data[0]["data"]), data[1]["data"]]

        inputs = [
            {"name": "x", "shape": [2, 2], "datatype": "INT64", "data": [1, 2, 3, 4]},
            {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["hi"]},
        ]
        (body,) = results(sums, json_request({"id": "7", "inputs": inputs}), envelope="kservev2")
        assert json.loads(body) == {
            "id": "7",
            "model_name": "m",
            "model_version": "2.0",
            "outputs": [
                {"name": "x", "datatype": "INT64", "data": [10], "shape": [1]},
                {"name": "t", "datatype": "BYTES", "data": ["hi"], "shape": [1]},
            ],
        }

    def test_a_wrong_count_is_the_handlers_failure(self) -> None:
        failed, _ = run(lambda data, context: [1], json_request({"instances": [1, 2]}), envelope="json")
        assert failed.cause == "ValueError: the handler returned 1 results for 2 instances"

    def test_an_unknown_one_is_refused_by_name(self) -> None:
        with pytest.raises(SpecError, match=r"'soap'.*body, json, kserve, kservev2"):
            run(self.doubled, request(), envelope="soap")


@pytest.fixture
def names() -> Iterator[None]:
    """`ts` found in this process, for one test."""
    before, modules = list(sys.meta_path), set(sys.modules)
    torchserve_names.install()
    torchserve_names.install()
    assert len(sys.meta_path) == len(before) + 1
    yield
    sys.meta_path[:] = before
    for name in {name for name in set(sys.modules) - modules if name.partition(".")[0] == "ts"}:
        del sys.modules[name]


class TestTorchServesNames:
    @pytest.mark.parametrize("name", [each for each in torchserve_names.MODULES if "hf_batch" not in each])
    def test_each_is_a_module_of_ours_under_two_names(self, names: None, name: str) -> None:
        module = __import__(name, fromlist=["x"])
        assert isinstance(module, ModuleType)
        assert module is sys.modules[torchserve_names.MODULES[name]]
        assert module.__spec__ is not None
        assert module.__spec__.name == module.__name__

    def test_one_we_lack_names_the_page(self, names: None) -> None:
        with pytest.raises(ModuleNotFoundError, match=r"ts\.torch_handler\.vllm_handler.*migrating-from-torchserve"):
            __import__("ts.torch_handler.vllm_handler")

    def test_are_not_found_outside_a_worker(self) -> None:
        with pytest.raises(ModuleNotFoundError, match="No module named 'ts'"):
            __import__("ts")


LOADABLE = [
    ("handler.py", "def handle(data, context): return ['function']"),
    ("handler", "def handle(data, context): return ['function']"),
    ("some/where/handler.py", "def handle(data, context): return ['function']"),
    ("handler.py:other", "def other(data, context): return ['function']\ndef handle(data, context): return [0]"),
    ("handler.py", "class H:\n  def handle(self, data, context): return ['function']"),
    ("handler.py:H", "class H:\n  def handle(self, data, context): return ['function']\nclass G(H): pass"),
    (
        "handler.py",
        "class A:\n  def handle(self, d, c): return [0]\nclass B(A):\n  def handle(self, d, c): return ['function']",
    ),
    ("handler.py", "class Helper: pass\nclass H:\n  def handle(self, data, context): return ['function']"),
]


@pytest.mark.parametrize(("handler", "source"), LOADABLE)
def test_handlers_are_found_in_all_forms(tmp_path: Path, fresh: None, handler: str, source: str) -> None:
    (tmp_path / "handler.py").write_text(source)
    entry = find_entry_point(handler, tmp_path)
    entry.initialize(context_of())
    assert entry.handle([{}], context_of()) == ["function"]


UNLOADABLE = [
    ("handler.py", "x = 1", "must have a function handle"),
    ("handler.py", "class A:\n  def handle(s, d, c): 0\nclass B:\n  def handle(s, d, c): 0", "A, B"),
    ("handler.py:gone", "x = 1", "no function or class 'gone'"),
    ("handler.py:H", "class H: pass", "no method handle"),
    ("absent.py", "x = 1", "the archive has no such file"),
    ("vllm_handler", "x = 1", "argosy serve MODEL --engine vllm"),
    ("", "x = 1", "names no handler"),
]


@pytest.mark.parametrize(("handler", "source", "text"), UNLOADABLE)
def test_what_is_no_handler_is_refused(tmp_path: Path, fresh: None, handler: str, source: str, text: str) -> None:
    (tmp_path / "handler.py").write_text(source)
    with pytest.raises(SpecError) as refused:
        find_entry_point(handler, tmp_path)
    assert text in refused.value.message


@pytest.mark.parametrize("handler", ["../evil.py", "OUT/evil.py", "x/../../evil.py"])
def test_d06_no_handler_lies_outside_the_archive(tmp_path: Path, fresh: None, handler: str) -> None:
    (tmp_path / "evil.py").write_text("def handle(data, context): return ['evil']")
    (tmp_path / "root" / "x").mkdir(parents=True)
    with pytest.raises(SpecError, match="no such file"):
        find_entry_point(handler.replace("OUT", str(tmp_path)), tmp_path / "root")


def test_a_file_called_as_a_loaded_module_takes_nothing_from_it(tmp_path: Path, fresh: None) -> None:
    (tmp_path / "json.py").write_text("def handle(data, context): return ['mine']")
    assert find_entry_point("json.py", tmp_path).handle([{}], context_of()) == ["mine"]
    assert sys.modules["json"] is json


@pytest.fixture
def fresh() -> Iterator[None]:
    modules = set(sys.modules)
    yield
    for name in {"handler", "archive_handler", "archive_json"} & (set(sys.modules) - modules):
        del sys.modules[name]


class TestMetrics:
    def test_an_observation_as_old_handlers_make_it(self, names: None) -> None:
        metric = __import__("ts.metrics.metric", fromlist=["Metric"]).Metric(
            "Took", 2, "ms", [Dimension("Level", "Me")]
        )
        metric.update(3)
        assert str(metric) == "Took.Milliseconds:3|#Level:Me"
        assert metric.to_dict()["MetricName"] == "Took"

    def test_take_torchserves_dimensions_and_units(self) -> None:
        cache = MetricsCache("m")
        cache.add_size("Cache", 3)
        cache.add_percent("Share", 50)
        cache.add_error("Oops", "text")
        assert [(each.name, each.unit, each.kind, each.value, each.dimensions) for each in cache.drain()] == [
            ("Cache", "Megabytes", "gauge", 3.0, {"ModelName": "m", "Level": "Model"}),
            ("Share", "Percent", "gauge", 50.0, {"ModelName": "m", "Level": "Model"}),
            ("Oops", "unit", "counter", 1.0, {"Level": "Error"}),
        ]
        assert cache.drain() == ()

    def test_declared_and_added_ones_are_found_again(self) -> None:
        declared = DeclaredMetric(name="Hits", kind="counter", unit="count", dimensions=("Where",))
        cache = MetricsCache("m", (declared,))
        cache.get_metric("Hits").add_or_update(2, ["here"])
        assert isinstance(cache.add_metric_to_cache("Size", "MB", ["A"], MetricTypes.GAUGE), CachingMetric)
        cache.get_metric("Size", MetricTypes.GAUGE).add_or_update(1, ["x"])
        assert [(each.name, each.value, each.dimensions) for each in cache.drain()] == [
            ("Hits", 2.0, {"Where": "here"}), ("Size", 1.0, {"A": "x"}),
        ]  # fmt: skip
        with pytest.raises(MetricsCacheKeyError, match="no gauge is called 'Hits'"):
            cache.get_metric("Hits", MetricTypes.GAUGE)

    def test_wrong_observations_are_left_out(self) -> None:
        cache = MetricsCache("m")
        metric = cache.add_metric_to_cache("Hits", "count", ["Where"])
        metric.add_or_update(1, [])
        metric.add_or_update(-1, ["here"])
        assert cache.drain() == ()

    def test_are_bounded_between_answers(self) -> None:
        cache = MetricsCache("m")
        for _ in range(5_000):
            cache.add_counter("Spin", 1)
        assert len(cache.drain()) == 1_000
