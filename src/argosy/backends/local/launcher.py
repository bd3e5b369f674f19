"""How a replica's process comes to be: a port, a token, a log file, and a process of its own or a standby's."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from argosy.backends.local.log_files import LogFiles
from argosy.backends.local.ports import free_port
from argosy.backends.local.processes import TOKEN_VARIABLE, Process, spawn
from argosy.backends.local.records import ReplicaRecord
from argosy.backends.local.rendering import command, cores, environment
from argosy.backends.local.standby import Standby, StandbyPool, standby_program


class Launcher:
    """Starts processes that carry tokens of one backend."""

    def __init__(self, identity: str, logs: LogFiles, num_standby: int) -> None:
        self._identity = identity
        self._logs = logs
        self._chosen: dict[str, Standby] = {}
        self.standby = StandbyPool(num_standby, self._for_standby)

    @property
    def token_prefix(self) -> str:
        """How every token of this backend begins."""
        return f"{self._identity}/"

    def intent(self, record: ReplicaRecord, taken_ports: set[int]) -> ReplicaRecord:
        """The record of the replica's next start: new token, own or free port, next number. Raises: BackendError."""
        port = record.workload.port or free_port(taken_ports)
        program = standby_program(record.workload)
        # One chosen for a start that came to nothing is still there: the record could not be written, say.
        standby = self._chosen.pop(record.token, None)
        if standby is None and program is not None:
            standby = self.standby.take(program)
        if standby is None:
            token, process = self._token(record.name), None
        else:
            token, process = standby.process.token, standby.process.identity
            self._chosen[token] = standby
        return msgspec.structs.replace(
            record, token=token, process=process, port=port, start_number=record.start_number + 1
        )

    def start(self, record: ReplicaRecord, on_exit: Callable[[], None]) -> Process:
        """Start the process of an intent. Raises: OSError."""
        workload = record.workload
        argv = command(workload.argv, record.port)
        log = self._logs.path(workload.name, record.name, record.start_number)
        standby = self._chosen.pop(record.token, None)
        if standby is None:
            variables = {**environment(os.environ, workload, record.grant), TOKEN_VARIABLE: record.token}
            process = Process(spawn(argv, variables, log), record.token, on_exit)
        else:
            process = standby.process
            process.on_exit = on_exit
            standby.log.replace(log)
            standby.become(argv[len(standby_program(workload) or ()) :])
        if own_cores := cores(record.grant):
            process.pin(own_cores)
        return process

    def _token(self, name: str) -> str:
        return f"{self.token_prefix}{name}/{secrets.token_hex(8)}"

    def _for_standby(self) -> tuple[str, dict[str, str], Path]:
        token = self._token(".standby")
        return token, {**os.environ, TOKEN_VARIABLE: token}, self._logs.waiting_path(token)
