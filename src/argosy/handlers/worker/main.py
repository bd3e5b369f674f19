"""A worker's life: take limits upon itself, load one archive, answer batches until the server is gone.

Forked by a nursery, or a process of its own, run as a module with FD, where forking is not safe. One thread reads,
calls the handler and answers; the process ends when its socket does, whatever else it still holds.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn, TextIO

from argosy.core.errors import EngineError, SpecError
from argosy.handlers.worker import torchserve_names
from argosy.handlers.worker.calls import OUT_OF_RESOURCES, Calls, cause_of, is_out_of_memory
from argosy.handlers.worker.confinement import die_with_parent, limit, stand_apart
from argosy.handlers.worker.context import SERVER_NAME, SERVER_VERSION, Context
from argosy.handlers.worker.envelopes import in_envelope
from argosy.handlers.worker.loading import EntryPoint, find_entry_point
from argosy.handlers.worker.mailbox import Mailbox
from argosy.handlers.worker.messages import (
    Answer,
    Describe,
    Described,
    Drop,
    Event,
    Failed,
    Load,
    Ping,
    Pong,
    Predict,
    Ready,
)
from argosy.handlers.worker.metrics import MetricsCache


class Worker:
    """One loaded archive behind one mailbox."""

    def __init__(self, mailbox: Mailbox, entry: EntryPoint, context: Context, *, decodes_input: bool) -> None:
        self._mailbox = mailbox
        self._owner = entry.owner
        self._calls = Calls(entry, context, mailbox.send, decodes_input=decodes_input)

    def serve(self) -> NoReturn:
        """Answer commands. Raises: EOFError, OSError when the server is gone; SystemExit after memory ran out."""
        while True:
            command = self._mailbox.take()
            if isinstance(command, Predict):
                self._answer(command)
            elif isinstance(command, Ping):
                self._mailbox.send(Pong())
            elif isinstance(command, Drop):
                self._mailbox.send(Answer(predictions=()))
            elif isinstance(command, Describe):
                self._mailbox.send(self._described())
            else:
                raise TypeError(f"a loaded worker takes no {type(command).__name__}")

    def _answer(self, command: Predict) -> None:
        started = time.monotonic()
        event: Event = self._calls.answer(command.batch, command.number)
        took = time.monotonic() - started
        try:
            self._mailbox.send_soon(event, took)
        except EngineError as exc:
            event = Failed(kind="handler", message="Invalid model predict output", cause=exc.message)
            self._mailbox.send_soon(event, took)
        if isinstance(event, Failed) and event.kind == "memory":
            self._mailbox.flush()
            # What is left of the heap is nothing to go on with: a new worker takes this one's place.
            raise SystemExit(1)

    def _described(self) -> Event:
        describe = getattr(self._owner, "describe_handle", None)
        if describe is None:
            return Described(None)
        try:
            return Described(json.loads(json.dumps(describe(), default=str)))
        except Exception as exc:  # noqa: BLE001  # boundary: the archive's own code
            return Failed(kind="handler", message="the handler cannot describe itself", cause=cause_of(exc))


def load(command: Load) -> tuple[EntryPoint, Context]:
    """The archive's handler, initialised. Raises: SpecError; whatever the archive's code raises."""
    root = Path(command.root)
    os.chdir(root)
    # The archive's own modules first, then what its requirements ask for, then the installation's.
    sys.path[:0] = [command.root, command.environment] if command.environment else [command.root]
    sys.dont_write_bytecode = True
    torchserve_names.install()
    context = Context(
        model_name=command.manifest["model"]["modelName"],
        manifest=command.manifest,
        system_properties={
            "model_dir": command.root,
            "gpu_id": command.gpu,
            "batch_size": command.batch_size,
            "server_name": SERVER_NAME,
            "server_version": SERVER_VERSION,
            "limit_max_image_pixels": command.limits_image_pixels,
        },
        metrics=MetricsCache(command.manifest["model"]["modelName"], command.declared_metrics),
        model_yaml_config=command.config,
        allowed_content=frozenset(command.allowed_content),
    )
    entry = find_entry_point(command.manifest["model"].get("handler", ""), root)
    if command.envelope:
        entry = in_envelope(command.envelope, entry)
    entry.initialize(context)
    return entry, context


def _start(mailbox: Mailbox) -> Worker:
    """Raises: SystemExit if the archive cannot be loaded; the server has been told."""
    command = mailbox.take()
    if not isinstance(command, Load):
        raise TypeError(f"the first command must be Load, not {type(command).__name__}")
    limit(command.limits)
    started = time.perf_counter()
    try:
        entry, context = load(command)
    except BaseException as exc:  # boundary: the server learns why, whatever the archive's code raises
        logging.getLogger("ts.worker").error("the handler cannot start", exc_info=exc)
        mailbox.send(_start_failure(exc))
        raise SystemExit(1) from exc
    gc.collect()
    gc.freeze()
    mailbox.send(Ready(phases={"handler": time.perf_counter() - started}, metrics=context.metrics.drain()))
    return Worker(mailbox, entry, context, decodes_input=command.decodes_input)


def _start_failure(exc: BaseException) -> Failed:
    if isinstance(exc, SpecError):
        return Failed(kind="spec", message=exc.message)
    if is_out_of_memory(exc):
        return Failed(kind="memory", message=OUT_OF_RESOURCES, cause=cause_of(exc))
    return Failed(kind="handler", message="the handler cannot start", cause=cause_of(exc))


def run(connection: socket.socket, output: int) -> NoReturn:
    """Serve until the server is gone, then leave. output: where prints and log lines go."""
    stand_apart()
    die_with_parent()
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    connection.set_inheritable(False)
    # What the handler forks is no second worker: it could take this one's commands and answer in its name.
    os.register_at_fork(after_in_child=connection.close)
    sys.stdout, sys.stderr = _line_stream(1), _line_stream(2)
    logging.basicConfig(
        stream=sys.stdout, format="%(levelname)s %(name)s - %(message)s", level=logging.INFO, force=True
    )
    code = 0
    try:
        _start(Mailbox(connection)).serve()
    except (EOFError, OSError):
        code = 0
    except SystemExit as exc:
        if exc.code not in (None, 0, 1):
            logging.getLogger("ts.worker").error("the handler asked to exit: %s", exc.code)
        code = 1
    except BaseException:  # boundary: said in the log before the process ends
        logging.getLogger("ts.worker").exception("the worker ends")
        code = 1
    leave(code)


def _line_stream(descriptor: int) -> TextIO:
    """A stream that writes each line at once. The one before may have been a file, and would seek in a pipe."""
    return open(descriptor, "w", buffering=1, errors="backslashreplace", closefd=False)


def leave(code: int) -> NoReturn:
    """End at once: threads and native libraries of an archive may never end by themselves."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    # Descriptor of the socket; output is what was given as stderr.
    run(socket.socket(fileno=int(sys.argv[1])), os.dup(2))
