"""The server's side without a process: frames, checks of what a worker sends, instructions, log lines, preloading."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from handlers_world import write_archive
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import EngineError, HandlerError, SpecError
from argosy.core.model_archive import VersionSettings
from argosy.core.prediction import Prediction
from argosy.handlers.answers import check_answer
from argosy.handlers.instructions import gpu_of, load_command, threads_of
from argosy.handlers.options import HandlerOptions
from argosy.handlers.output import MAX_LINE_BYTES, OutputLines
from argosy.handlers.preloading import imports_in, imports_of
from argosy.handlers.shims.contractions import CONTRACTION_MAP
from argosy.handlers.shims.text_handler import Vocabulary
from argosy.handlers.shims.text_utils import get_tokenizer, ngrams_iterator
from argosy.handlers.shims.util import load_label_mapping, map_class_to_label
from argosy.handlers.shims.weights import WeightsKind, check_allowed, kind_of
from argosy.handlers.worker.calls import PredictionException
from argosy.handlers.worker.messages import COMMANDS, EVENTS, Answer, Describe, FrameBuffer, frame


@given(numbers=st.lists(st.integers(0, 2**40), max_size=20), cuts=st.lists(st.integers(1, 7), min_size=1))
def test_frames_come_whole_however_they_are_cut(numbers: list[int], cuts: list[int]) -> None:
    stream = b"".join(frame(Describe(number)) for number in numbers)
    buffer, bodies, place, turn = FrameBuffer(), [], 0, 0
    while place < len(stream):
        step = cuts[turn % len(cuts)]
        bodies += buffer.push(stream[place : place + step])
        place, turn = place + step, turn + 1
    assert [COMMANDS.decode(body) for body in bodies] == [Describe(number) for number in numbers]


@given(st.binary(max_size=64))
def test_d23_whatever_a_worker_sends_is_a_message_or_refused(noise: bytes) -> None:
    try:
        for body in FrameBuffer(max_frame_bytes=2**10).push(noise):
            EVENTS.decode(body)
    except (EngineError, msgspec.DecodeError):
        pass


def test_d23_a_length_beyond_the_cap_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(EngineError, match="4294967295 bytes"):
        FrameBuffer().push(b"\xff\xff\xff\xff")


@pytest.mark.parametrize(
    "changes",
    [
        {"index": 1},
        {"index": -1},
        {"status": 99},
        {"status": 101},
        {"headers": {"a b": "x"}},
        {"headers": {"a": "x\r\nset-cookie: y"}},
        {"headers": {"a": "x\0"}},
        {"content_type": "text/plain\n"},
        {"phrase": "OK\r\n\r\n<html>"},
        {"phrase": "日本"},
    ],
)
def test_an_answer_that_would_break_http_is_the_handlers_failure(changes: dict[str, Any]) -> None:
    sound = Prediction(index=0, body=b"", headers={"x-a": "b"}, content_type="text/plain; charset=utf-8", phrase="Fine")
    check_answer(Answer(predictions=(sound,)), 1)
    with pytest.raises(HandlerError, match="Invalid model predict output"):
        check_answer(Answer(predictions=(msgspec.structs.replace(sound, **changes),)), 1)


class TestInstructions:
    def test_tell_the_manifest_as_the_archive_has_it_and_what_was_decided(self, tmp_path: Path) -> None:
        archive = write_archive(tmp_path, "", {"serviceEnvelope": "json"}, model_name="renamed")
        (tmp_path / "MAR-INF").mkdir()
        (tmp_path / "MAR-INF" / "MANIFEST.json").write_text(
            '{"extra": 1, "model": {"modelName": "old", "sourceVocab": "v.pt"}}'
        )
        command = load_command(archive, VersionSettings(batch_size=4), 0, HandlerOptions())
        assert command.manifest["extra"] == 1
        model = {"modelName": "renamed", "modelVersion": "1.0", "sourceVocab": "v.pt", "handler": "handler.py"}
        assert command.manifest["model"] == model
        assert (command.envelope, command.batch_size, command.environment) == ("json", 4, "")

    @pytest.mark.parametrize(
        ("settings", "seat", "num_gpus", "gpu"),
        [
            (VersionSettings(), 0, 4, None),
            (VersionSettings(device_type="gpu"), 5, 4, 1),
            (VersionSettings(device_type="gpu"), 5, 0, None),
            (VersionSettings(device_type="gpu", device_ids=(2, 3)), 3, 8, 3),
        ],
    )
    def test_hand_gpus_out_in_turn(self, settings: VersionSettings, seat: int, num_gpus: int, gpu: int | None) -> None:
        assert gpu_of(settings, seat, num_gpus) == gpu

    def test_share_the_cores(self) -> None:
        assert threads_of(VersionSettings(worker_threads=3)) == 3
        assert threads_of(VersionSettings(min_workers=10_000)) == 1


class TestLogLines:
    def lines(self, caplog: pytest.LogCaptureFixture, *chunks: bytes, now: list[float]) -> list[str]:
        caplog.set_level(logging.INFO, "argosy.handlers.output")
        output = OutputLines({"model_name": "m"}, lambda: now.pop(0) if len(now) > 1 else now[0])
        for chunk in chunks:
            output.data_received(chunk)
        output.connection_lost(None)
        return [getattr(record, "line", f"dropped {getattr(record, 'lines_dropped', '')}") for record in caplog.records]

    def test_are_whole_however_they_come(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.lines(caplog, b"on", b"e\ntw", b"o\n\nthree", now=[0.0]) == ["one", "two", "three"]

    def test_are_cut_where_they_do_not_end(self, caplog: pytest.LogCaptureFixture) -> None:
        (line, *_) = self.lines(caplog, b"x" * 10 * MAX_LINE_BYTES, now=[0.0])
        assert len(line) == MAX_LINE_BYTES

    def test_are_so_many_a_second(self, caplog: pytest.LogCaptureFixture) -> None:
        lines = self.lines(caplog, b"a\n" * 1_000, b"\n" * 50, b"b" * 10 * MAX_LINE_BYTES, now=[0.0])
        assert lines == ["a"] * 200 + ["dropped 851"]

    def test_come_again_after_a_second(self, caplog: pytest.LogCaptureFixture) -> None:
        lines = self.lines(caplog, b"a\n" * 300 + b"half", b" a line\nb\n", now=[0.0, 0.0, 1.0])
        assert lines == ["a"] * 200 + ["dropped 100", "half a line", "b"]


SOURCE = """
import os, torch, numpy as np
from transformers import T5ForConditionalGeneration as T5, (AutoTokenizer
from transformers import (
    T5Tokenizer,
    pipeline,
)
from ts.torch_handler.base_handler import BaseHandler
from torch.nn import functional
import not_known, pickle
    import PIL.Image
"""


def test_preloading_reads_imports_as_text_and_takes_known_libraries_only() -> None:
    assert set(imports_in(SOURCE)) == {
        "torch", "numpy", "transformers", "transformers:T5ForConditionalGeneration", "transformers:T5Tokenizer",
        "transformers:pipeline", "torch.nn", "torch.nn:functional", "PIL.Image",
    }  # fmt: skip


@given(st.text(alphabet="from import torch(),.\n \tx", max_size=200))
def test_preloading_survives_any_text(source: str) -> None:
    for name in imports_in(source):
        assert name.partition(":")[0].partition(".")[0] == "torch"


def test_preloading_takes_no_time_over_brackets_that_never_close() -> None:
    started = time.process_time()
    assert set(imports_in("from torch import (\n" * 20_000)) == {"torch"}
    assert time.process_time() - started < 2  # seconds; it was 8 when each line was read to the end of the file


def test_preloading_knows_which_handlers_of_ours_need_torch(tmp_path: Path) -> None:
    own = "from ts.torch_handler.base_handler import BaseHandler"
    assert imports_of(write_archive(tmp_path, own)) == ()
    assert imports_of(write_archive(tmp_path, own, serialized_file="w.safetensors")) == ("torch",)
    assert imports_of(write_archive(tmp_path, "", serialized_file="w.safetensors", handler="image_classifier")) == (
        "torch",
    )
    assert imports_of(write_archive(tmp_path, "")) == ()


class TestWeights:
    SAFE = (2).to_bytes(8, "little") + b"{}"

    def write(self, path: Path, content: bytes) -> Path:
        path.write_bytes(content)
        return path

    def test_are_told_by_content_not_by_name(self, tmp_path: Path) -> None:
        assert kind_of(self.write(tmp_path / "a.pt", self.SAFE)) is WeightsKind.SAFETENSORS
        assert kind_of(self.write(tmp_path / "b.safetensors", b"\x80\x04K\x01.")) is WeightsKind.PICKLE
        assert kind_of(self.write(tmp_path / "c.bin", b"plain text")) is WeightsKind.UNKNOWN
        assert kind_of(self.write(tmp_path / "d.onnx", b"\x08\x07")) is WeightsKind.ONNX

    def test_d04_are_refused_where_they_could_run_code(self, tmp_path: Path) -> None:
        path = self.write(tmp_path / "w.bin", b"\x80\x02K\x01.")
        with pytest.raises(SpecError, match=r"pickled weights.*argosy archive convert"):
            check_allowed(path, frozenset({"torchscript"}))
        assert check_allowed(path, frozenset({"pickle"})) is WeightsKind.PICKLE
        with pytest.raises(SpecError, match="no file"):
            check_allowed(tmp_path / "gone", frozenset())


class TestTextHelpers:
    def test_an_unknown_word_has_the_unknown_words_number_or_is_the_clients_fault(self) -> None:
        assert Vocabulary({"<unk>": 7, "a": 1})["b"] == 7
        with pytest.raises(PredictionException, match="no 'b'"):
            Vocabulary({"a": 1})["b"]

    def test_words_and_runs_of_words(self) -> None:
        words = get_tokenizer("basic_english")("It's here, now!")
        assert words == ["it", "'", "s", "here", ",", "now", "!"]
        assert list(ngrams_iterator(["a", "b", "c"], 2)) == ["a", "b", "c", "a b", "b c"]

    def test_contractions_are_written_out(self) -> None:
        some = {"don't": "do not", "can't've": "cannot have", "they're": "they are", "she'd've": "she would have"}
        assert some.items() <= CONTRACTION_MAP.items()
        # The first alternative that matches wins in a pattern: longer forms must come before their beginnings.
        keys = list(CONTRACTION_MAP)
        assert not [a for i, a in enumerate(keys) for b in keys[i + 1 :] if b.startswith(a)]

    def test_classes_get_their_names(self, tmp_path: Path) -> None:
        path = tmp_path / "index_to_name.json"
        assert load_label_mapping(path) is None
        path.write_text('{"0": ["n01", "cat"], "1": "dog"}')
        names = load_label_mapping(path)
        assert map_class_to_label([[0.9, 0.1]], names, [[1, 0]]) == [{"dog": 0.9, "cat": 0.1}]
        assert map_class_to_label([[0.9, 0.1]]) == [{"0": 0.9, "1": 0.1}]
        path.write_text('{"object_type_names": ["a", "b"]}')
        assert load_label_mapping(path) == {"0": "a", "1": "b"}
        path.write_text('{"0": 5}')
        with pytest.raises(SpecError, match="must be a text"):
            load_label_mapping(path)
