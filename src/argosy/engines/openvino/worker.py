"""The child: one loop that takes commands, steps the batch, and reports what every request gained.

`python -m argosy.engines.openvino.worker FD` speaks frames of `messages.py` over the inherited socket FD. With
nothing to do it sleeps in recv; with work it polls between steps. It never outlives its parent: end of file ends it.
Interrupt and terminate signals are the server's to answer, which lets running requests finish first.
"""

from __future__ import annotations

import math
import os
import re
import select
import signal
import socket
import sys
from functools import partial
from typing import Any, NoReturn

import msgspec
import numpy
import openvino_genai

from argosy.engines.openvino import loading
from argosy.engines.openvino.messages import (
    Cancel,
    Command,
    Event,
    Failed,
    FrameBuffer,
    Gain,
    Load,
    Ready,
    Report,
    Submit,
    encode,
)
from argosy.engines.openvino.scorer import Scorer, compile_reader

_DECODER = msgspec.msgpack.Decoder(Command, dec_hook=lambda kind, text: kind(text))
_RECEIVE_BYTES = 2**20
_SOURCE_LOCATION = re.compile(r"^(\[[\d:]+\] )?/\S+:\d+:? ?")
_UNSCHEDULABLE = "the KV cache is smaller than this one request: give the engine more memory or send a shorter one"
# While a model compiles in a thread there may be nothing else to do.
_COMPILING_POLL_SECONDS = 0.01
_STOP = openvino_genai.GenerationFinishReason.STOP
_RUNNING = openvino_genai.GenerationStatus.RUNNING
_FINISHED = openvino_genai.GenerationStatus.FINISHED


class Mailbox:
    """Commands in, events out, over one stream socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._poll = select.poll()  # not select(): the descriptor may be above 1,023
        self._poll.register(connection, select.POLLIN)
        self._buffer = FrameBuffer()

    def take(self, *, wait_seconds: float | None) -> list[Command]:
        """Commands that have arrived; waits so long for the first, None = for ever.

        Raises: EOFError when the parent is gone.
        """
        if not self._poll.poll(None if wait_seconds is None else math.ceil(wait_seconds * 1000)):
            return []
        chunk = self._connection.recv(_RECEIVE_BYTES)
        if not chunk:
            raise EOFError
        return [_DECODER.decode(body) for body in self._buffer.push(chunk)]

    def send(self, event: Event) -> None:
        """Blocks while the parent is behind: the batch then waits for its reader."""
        self._connection.sendall(encode(event))


class Batch:
    """The requests inside the pipeline, and one step of all of them."""

    def __init__(self, pipeline: Any, scorer: Scorer) -> None:
        self._pipeline = pipeline
        self._scorer = scorer
        self._handles: dict[int, Any] = {}
        self._cancelled: list[int] = []
        self._refused: list[Gain] = []

    @property
    def is_busy(self) -> bool:
        """Whether a step would change anything."""
        return bool(self._handles or self._cancelled or self._refused or self._scorer.has_work)

    @property
    def wait_seconds(self) -> float | None:
        """How long the next command may be waited for: 0 while a step would change something."""
        if self._handles or self._cancelled or self._refused:
            return 0.0
        if self._scorer.has_work:
            return _COMPILING_POLL_SECONDS if self._scorer.is_waiting else 0.0
        return self._scorer.seconds_to_idle

    def submit(self, command: Submit) -> None:
        """Put the request into the next step; what the library refuses is answered with the next report."""
        try:
            config = openvino_genai.GenerationConfig(**command.config)
            config.stop_token_ids = set(command.stop_token_ids)
            if command.constraint is not None:
                config.structured_output_config = openvino_genai.StructuredOutputConfig(**command.constraint)
            ids = numpy.array([command.prompt_token_ids], dtype=numpy.int64)
            self._handles[command.number] = self._pipeline.add_request(command.number, loading.tensor(ids), config)
            if command.num_top:
                self._scorer.open(command.number, command.prompt_token_ids, command.num_top)
        except Exception as exc:  # noqa: BLE001  # boundary: one refused request must not end the batch
            self._refused.append(Gain(command.number, [], None, "error", _first_line(exc)))

    def cancel(self, number: int) -> None:
        """Stop the request; its cache is free after the next step."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.cancel()
        self._scorer.close(number)
        self._cancelled.append(number)

    def step(self) -> Report:
        """One forward pass over everything that runs."""
        gains, self._refused = self._refused, []
        cancelled, self._cancelled = self._cancelled, []
        if self._pipeline.has_non_finished_requests():
            self._pipeline.step()
        gains += [Gain(number, [], None, "abort") for number in cancelled]
        ended = []
        for number, handle in self._handles.items():
            gain = _read(number, handle)
            if gain is not None:
                if not self._scorer.take(gain):
                    gains.append(gain)
                if gain.ending is not None:
                    ended.append(number)
        for number in ended:
            del self._handles[number]
        gains += self._scorer.work()
        metrics = self._pipeline.get_metrics()
        if not self._handles:
            return Report(gains, 0, 0.0)
        return Report(gains, metrics.scheduled_requests, metrics.cache_usage / 100)


def _read(number: int, handle: Any) -> Gain | None:
    if not handle.can_read():
        return _ending_without_tokens(number, handle)
    outputs = handle.read()
    if not outputs:
        return _ending_without_tokens(number, handle)
    (output,) = outputs.values()
    token_ids = output.generated_ids
    logprobs = output.generated_log_probs
    if handle.get_status() == _RUNNING:
        return Gain(number, token_ids, logprobs)
    return Gain(number, token_ids, logprobs, "stop" if output.finish_reason == _STOP else "length")


def _ending_without_tokens(number: int, handle: Any) -> Gain | None:
    status = handle.get_status()
    if status in (_RUNNING, _FINISHED):
        return None
    return Gain(number, [], None, "error", _UNSCHEDULABLE)


def _first_line(exc: BaseException) -> str:
    """The telling line of a native error, without the library's own source paths and clock."""
    lines = [_SOURCE_LOCATION.sub("", line).strip() for line in str(exc).splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Exception from", "Check '"))]
    return telling[0] if telling else str(exc).strip() or type(exc).__name__


def _serve(mailbox: Mailbox, pipeline: Any, scorer: Scorer) -> NoReturn:
    batch = Batch(pipeline, scorer)
    while True:
        for command in mailbox.take(wait_seconds=batch.wait_seconds):
            if isinstance(command, Submit):
                batch.submit(command)
            elif isinstance(command, Cancel):
                batch.cancel(command.number)
        if batch.is_busy:
            mailbox.send(batch.step())
        elif scorer.seconds_to_idle == 0:
            scorer.release()


def _start(mailbox: Mailbox) -> tuple[Any, Scorer]:
    commands: list[Command] = []
    while not commands:
        commands = mailbox.take(wait_seconds=None)
    load = commands[0]
    if not isinstance(load, Load):
        raise TypeError(f"the first command must be Load, not {type(load).__name__}")
    loaded = loading.load_pipeline(load)
    mailbox.send(
        Ready(
            version=loading.version(),
            device=load.settings.device,
            kv_cache_tokens=loaded.kv_cache_tokens,
            max_num_seqs=loaded.max_num_seqs,
            eos_token_id=loaded.eos_token_id,
            phases=loaded.phases,
        )
    )
    properties = loading.properties(load)
    return loaded.pipeline, Scorer(partial(compile_reader, load.model_path, load.settings.device, properties))


def main(descriptor: int) -> NoReturn:
    """Serve until the parent closes its end, then leave."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Native code prints to stdout now and then; stdout is the server's.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    mailbox = Mailbox(socket.socket(fileno=descriptor))
    try:
        _serve(mailbox, *_start(mailbox))
    except (EOFError, ConnectionError):
        _leave(0)
    except Exception as exc:  # noqa: BLE001  # boundary: the parent learns why its engine died
        mailbox.send(Failed(message=_first_line(exc)))
        _leave(1)


def _leave(code: int) -> NoReturn:
    """End at once: tearing down a pipeline that still holds requests takes time and prints errors of its own."""
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]))
