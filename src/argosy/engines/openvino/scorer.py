"""Top log probabilities: the pipeline tells only the chosen token's, so a second reading of the same model tells them.

The prepared model is compiled once more, plainly, when a request first asks, and freed when none has asked for a while.
What the pipeline gains such a request is held back here, run through the second model, and handed on with the likeliest
tokens at each place; the chosen token's value comes from the same distribution, so the two always agree. The batch
waits for at most one short inference a step: several tokens of a request cost hardly more than one, so they are
gathered. At most `MAX_READINGS` requests are read at once; the tokens of others wait and are then caught up.

    Transcript      one request: what was read, what is to be read next, what may be handed on (pure)
    Reading         the compiled model and the memory of one request in it
    Scorer          whose turn it is; when to compile and when to free

Runs in the child. Source of reading only the last rows: openvino.genai, utils.cpp (slice before the last MatMul).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy
import openvino

from argosy.engines.openvino.messages import Gain, TopLogprobs

MAX_READINGS = 4
# A prompt is read in pieces of half a step of the pipeline (DEFAULT_MAX_NUM_BATCHED_TOKENS).
PROMPT_CHUNK_TOKENS = 256
# 1 token took 10 ms, 8 took 14, 16 took 24 (SmolLM2-135M, two cores): gather a few, and never too many.
GATHERED_TOKENS = 8
MAX_GATHERED_TOKENS = 16
# The second model is 350 MB for SmolLM2-135M: too much to keep for a request an hour ago, cheap to make again.
IDLE_SECONDS = 300.0
_ROWS = "num_rows"
_ALL = 2**31 - 1


class Chunk(msgspec.Struct, frozen=True):
    """Tokens to read next. start: place of the first of them. num_rows: distributions wanted, of the last places."""

    token_ids: tuple[int, ...]
    start: int
    num_rows: int


class Transcript:
    """One request's prompt and answer, and how far it was read. The distribution at a place is of the next token."""

    def __init__(self, prompt_token_ids: Sequence[int], num_top: int) -> None:
        self.num_top = num_top
        self._token_ids = list(prompt_token_ids)
        self._num_prompt = len(self._token_ids)
        self._num_read = 0
        self._num_scored = 0
        self._ending: tuple[str, str | None] | None = None

    @property
    def num_unscored(self) -> int:
        """Tokens of the answer that wait here."""
        return len(self._token_ids) - self._num_prompt - self._num_scored

    @property
    def is_ripe(self) -> bool:
        """Whether reading on is worth an inference now."""
        if self._num_read < self._num_prompt - 1:
            return True
        is_urgent = self._ending is not None or self._num_scored == 0
        return self.num_unscored >= (1 if is_urgent else GATHERED_TOKENS)

    @property
    def is_over(self) -> bool:
        """Whether everything that will ever come has been scored."""
        return self._ending is not None and self.num_unscored == 0

    def append(self, gain: Gain) -> None:
        """What the pipeline gained the request."""
        self._token_ids += gain.token_ids
        if gain.ending is not None:
            self._ending = (gain.ending, gain.error)

    def next_chunk(self) -> Chunk:
        """What to read next; only when ripe. The prompt's last token is read with the answer: it tells its start."""
        before_answer = self._num_prompt - 1
        if self._num_read < before_answer:
            end, num_rows = min(self._num_read + PROMPT_CHUNK_TOKENS, before_answer), 1
        else:
            num_rows = min(self.num_unscored, MAX_GATHERED_TOKENS)
            end = self._num_read + num_rows
        return Chunk(tuple(self._token_ids[self._num_read : end]), self._num_read, num_rows)

    def on_read(self, chunk: Chunk, logits: Any) -> Gain | None:
        """The chunk was read. Shapes: logits [chunk.num_rows, vocabulary]. The gain to hand on, without a number."""
        is_answer = chunk.start >= self._num_prompt - 1
        self._num_read = chunk.start + len(chunk.token_ids)
        if not is_answer:
            return None
        first = self._num_prompt + self._num_scored
        chosen = self._token_ids[first : first + chunk.num_rows]
        self._num_scored += chunk.num_rows
        values, top = log_probabilities(logits, chosen, self.num_top)
        ending, error = self._ending if self._ending is not None and self.is_over else (None, None)
        return Gain(0, chosen, values, ending, error, top)

    def final_gain(self) -> Gain:
        """The ending alone, when no token came with it; only when over."""
        ending, error = self._ending or ("abort", None)
        return Gain(0, [], None, ending, error)


def log_probabilities(logits: Any, chosen: Sequence[int], num_top: int) -> tuple[list[float], TopLogprobs]:
    """Of the chosen token and of the likeliest, best first, for each row. Shapes: logits [len(chosen), vocabulary]."""
    values: list[float] = []
    top: TopLogprobs = []
    for row, token_id in zip(logits, chosen, strict=True):
        peak = row.max()
        logprobs = row - (peak + numpy.log(numpy.exp(row - peak, dtype=numpy.float64).sum()))
        likeliest = numpy.argpartition(row, -num_top)[-num_top:]
        likeliest = likeliest[numpy.argsort(-row[likeliest], kind="stable")]
        values.append(min(float(logprobs[token_id]), 0.0))
        top.append([(int(candidate), min(float(logprobs[candidate]), 0.0)) for candidate in likeliest])
    return values, top


def compile_reader(model_path: str, device: str, properties: dict[str, Any]) -> Any:
    """The model as OpenVINO runs it plainly: its memory of a request in each infer request, logits of the last rows."""
    core = openvino.Core()
    model = core.read_model(str(Path(model_path) / "openvino_model.xml"))
    keep_last_rows(model)
    return core.compile_model(model, device, properties)


def keep_last_rows(model: Any) -> None:
    """Give the model an input `num_rows`: the vocabulary's logits are computed of so many last places only."""
    opset = openvino.opset13
    (result,) = [output.get_node() for output in model.outputs if "logits" in output.get_names()]
    head = result.input_value(0).get_node()
    consumer = head if head.get_type_name() == "MatMul" else result
    num_rows = opset.parameter([1], openvino.Type.i64, name=_ROWS)
    num_rows.output(0).set_names({_ROWS})
    end, step, axis = (opset.constant(numpy.array([value])) for value in (_ALL, 1, 1))
    kept = opset.slice(consumer.input_value(0), opset.negative(num_rows), end, step, axis)
    consumer.input(0).replace_source_output(kept.output(0))
    model.add_parameters([num_rows])
    model.validate_nodes_and_infer_types()


class Reading:
    """The second model's memory of one request at a time."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._inputs = {name for port in compiled.inputs for name in port.get_names()}

    def read(self, chunk: Chunk) -> Any:
        """Read the tokens; the logits of the last rows. Shapes: [chunk.num_rows, vocabulary], valid until the next."""
        if chunk.start == 0:
            self._request.reset_state()
        end = chunk.start + len(chunk.token_ids)
        inputs = {
            "input_ids": numpy.array([chunk.token_ids], dtype=numpy.int64),
            "attention_mask": numpy.ones((1, end), dtype=numpy.int64),
            "position_ids": numpy.arange(chunk.start, end, dtype=numpy.int64)[None],
            "beam_idx": numpy.zeros(1, dtype=numpy.int32),
            _ROWS: numpy.array([chunk.num_rows], dtype=numpy.int64),
        }
        self._request.infer({name: value for name, value in inputs.items() if name in self._inputs})
        return self._request.get_tensor("logits").data[0]


class Scorer:
    """The requests that want top log probabilities, read a little with every step."""

    def __init__(self, compile_model: Callable[[], Any]) -> None:
        self._compile_model = compile_model
        self._transcripts: dict[int, Transcript] = {}
        self._readings: dict[int, Reading] = {}
        self._spare: list[Reading] = []
        self._compiling: threading.Thread | None = None
        self._compiled: Any = None
        self._failure: str | None = None
        self._idle_since = 0.0

    @property
    def is_waiting(self) -> bool:
        """Whether there is nothing to read until the model is compiled."""
        return bool(self._transcripts) and self._compiled is None and self._failure is None

    @property
    def has_work(self) -> bool:
        """Whether some request of the scorer is open."""
        return bool(self._transcripts)

    @property
    def seconds_to_idle(self) -> float | None:
        """When `release` is due. None = there is nothing to free, or it is in use."""
        if self._compiled is None or self._transcripts:
            return None
        return max(self._idle_since + IDLE_SECONDS - time.monotonic(), 0.0)

    def open(self, number: int, prompt_token_ids: Sequence[int], num_top: int) -> None:
        """Score this request's answer. The first one starts compiling, beside the batch: a second or more."""
        self._transcripts[number] = Transcript(prompt_token_ids, num_top)
        if self._compiled is None and self._compiling is None:
            self._failure = None
            self._compiling = threading.Thread(target=self._compile, name="compile-scorer", daemon=True)
            self._compiling.start()

    def close(self, number: int) -> None:
        """Forget the request. Idempotent; unknown numbers are nobody's."""
        if self._transcripts.pop(number, None) is not None:
            self._idle_since = time.monotonic()
        reading = self._readings.pop(number, None)
        if reading is not None:
            self._spare.append(reading)

    def take(self, gain: Gain) -> bool:
        """Hold the gain back until it is scored; False if the request is not the scorer's."""
        transcript = self._transcripts.get(gain.number)
        if transcript is None:
            return False
        transcript.append(gain)
        return True

    def work(self) -> list[Gain]:
        """At most one inference, of the request whose turn it is; what can be handed on now."""
        if self._failure is not None:
            return [self._failed(number, self._failure) for number in list(self._transcripts)]
        gains = [self._finished(number) for number, transcript in list(self._transcripts.items()) if transcript.is_over]
        number = self._whose_turn() if self._compiled is not None else None
        if number is not None:
            gain = self._read(number)
            if gain is not None:
                gains.append(gain)
        return gains

    def release(self) -> None:
        """Free the model and its memory."""
        self._spare.clear()
        self._compiled = None

    def _compile(self) -> None:
        try:
            self._compiled = self._compile_model()
        except Exception as exc:  # noqa: BLE001  # boundary: whoever wants top log probabilities is told, nobody else
            self._failure = f"top log probabilities cannot be computed: {exc}"
        self._compiling = None

    def _whose_turn(self) -> int | None:
        """The ripe request that was read longest ago, which is the first: those read go to the end."""
        for number, transcript in self._transcripts.items():
            may_read = number in self._readings or len(self._readings) < MAX_READINGS
            if may_read and transcript.is_ripe:
                return number
        return None

    def _read(self, number: int) -> Gain | None:
        transcript = self._transcripts[number] = self._transcripts.pop(number)
        try:
            if number not in self._readings:
                self._readings[number] = self._spare.pop() if self._spare else Reading(self._compiled)
            chunk = transcript.next_chunk()
            gain = transcript.on_read(chunk, self._readings[number].read(chunk))
        except RuntimeError as exc:  # OpenVINO's
            return self._failed(number, f"top log probabilities cannot be computed: {exc}")
        if transcript.is_over:
            self.close(number)
        return msgspec.structs.replace(gain, number=number) if gain is not None else None

    def _finished(self, number: int) -> Gain:
        gain = msgspec.structs.replace(self._transcripts[number].final_gain(), number=number)
        self.close(number)
        return gain

    def _failed(self, number: int, reason: str) -> Gain:
        self.close(number)
        return Gain(number, [], None, "error", reason)
