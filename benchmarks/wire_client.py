"""The lightest client we can write: blocking-free sockets, one `select`, httptools, no event loop, no tasks.

It shares two cores with the proxy and the replica that it measures, so a request costs it some fifteen microseconds.
`select` also sleeps to the microsecond, where an event loop's timers round to a millisecond, which is as long as the
answers that are measured here. The collector of garbage is off while a load runs.

`open_loop` sends on a clock, and an answer's time counts from when it was due: a server that stalls is charged for
everything that had to wait. `closed_loop` keeps every connection busy.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

import httptools
import msgspec

from argosy.evals.metrics import percentile

ANSWER_SECONDS = 60.0
READ_BYTES = 262_144
# Between two new connections before a load.
RAMP_SECONDS = 0.004


class Measured(msgspec.Struct, kw_only=True):
    """What one load gave. latencies: in the order of the answers' due times, seconds; lateness: sent after due."""

    latencies: list[float] = msgspec.field(default_factory=list)
    lateness: list[float] = msgspec.field(default_factory=list)
    first_bytes: list[float] = msgspec.field(default_factory=list)
    errors: int = 0
    error_example: str = ""
    marks: int = 0
    seconds: float = 0.0
    client_cpu_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Whole answers per second."""
        return len(self.latencies) / self.seconds

    def percentile_ms(self, ratio: float) -> float:
        """Of the latencies, in milliseconds; infinite if nothing was answered."""
        if not self.latencies:
            return float("inf")
        return percentile(sorted(self.latencies), ratio) * 1000


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is sent, and what a right answer holds: `mark` so many times, and `end` at its end."""

    request: bytes
    mark: bytes
    marks: int
    end: bytes


def chat_question(url: str, key: str, body: bytes, expected: tuple[bytes, int, bytes]) -> Question:
    """POST /v1/chat/completions with the headers of a usual client."""
    host = url.removeprefix("http://")
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n"
        f"User-Agent: OpenAI/Python 2.0.0\r\nAccept-Encoding: identity\r\nConnection: keep-alive\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    mark, marks, end = expected
    return Question(request=head.encode() + body, mark=mark, marks=marks, end=end)


def prediction_question(url: str, model: str, body: bytes, expected: tuple[bytes, int, bytes]) -> Question:
    """POST /predictions/MODEL with a JSON body, as TorchServe's clients send it."""
    head = (
        f"POST /predictions/{model} HTTP/1.1\r\nHost: {url.removeprefix('http://')}\r\nAccept: */*\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    mark, marks, end = expected
    return Question(request=head.encode() + body, mark=mark, marks=marks, end=end)


class _Line:
    """One connection: the answer it is getting, as pieces that are joined when it is whole."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # called by the parser, which looks for it when it is made
        self._parser = httptools.HttpResponseParser(self)
        self.is_whole = False
        self.index = 0
        self.due = self.first_byte_at = 0.0

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self.is_whole = True

    def send(self, request: bytes, index: int, due: float) -> None:
        """Write it at once: a request is far smaller than a socket's buffer."""
        self.is_whole, self.index, self.due, self.first_byte_at = False, index, due, 0.0
        self._pieces.clear()
        if self.socket.send(request) != len(request):
            raise RuntimeError(f"the socket took less than the {len(request)} bytes of a request")

    def read(self, now: float) -> bool:
        """Take what has come; whether the answer is whole. Raises: ConnectionError, HttpParserError."""
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        if not self.first_byte_at:
            self.first_byte_at = now
        self._parser.feed_data(data)
        return self.is_whole

    def fault(self, question: Question) -> str:
        """What is wrong with the whole answer; empty if nothing."""
        body = b"".join(self._pieces)
        status, marks = self._parser.get_status_code(), body.count(question.mark)
        if status == 200 and marks == question.marks and body.endswith(question.end):
            return ""
        return f"status {status}, {marks} of {question.marks} marks: …{body[-200:].decode(errors='replace')}"


class WireClient:
    """Asks one server on `connections` connections, opened in turn, under load, before the clock starts.

    Of several questions the request with index i asks the i-th, from the first again after the last.

    Raises: OSError from the constructor if the server takes no connection.
    """

    def __init__(self, url: str, questions: Question | Sequence[Question], connections: int) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._questions = [questions] if isinstance(questions, Question) else list(questions)
        self._address = (host, int(port))
        self._lines: dict[int, _Line] = {}
        self._idle: deque[_Line] = deque()
        self._measured = Measured()
        self._answers: list[tuple[int, float, float]] = []
        for _ in range(connections):
            self._open()
            self._ask_for(RAMP_SECONDS)
        while len(self._idle) < len(self._lines):
            self._take(ANSWER_SECONDS)

    def _ask_for(self, seconds: float) -> None:
        """Keep the connections there are busy, so that of several processes on one port not one accepts them all."""
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            while self._idle:
                self._send(0, time.perf_counter())
            self._take(left)

    def _open(self) -> None:
        line = _Line(self._address)
        self._lines[line.socket.fileno()] = line
        self._idle.append(line)

    def close(self) -> None:
        """Close all connections."""
        for line in self._lines.values():
            line.socket.close()
        self._lines.clear()

    def open_loop(self, requests_per_second: float, num_requests: int) -> Measured:
        """`num_requests` at even distances, whatever the answers do; waits for a free connection if there is none."""

        def run() -> None:
            clock, began, sent = time.perf_counter, time.perf_counter(), 0
            while len(self._answers) + self._measured.errors < num_requests:
                now = clock()
                while sent < num_requests and self._idle and began + sent / requests_per_second <= now:
                    self._send(sent, began + sent / requests_per_second)
                    sent += 1
                if sent < num_requests and self._idle:
                    self._take(max(0.0, began + sent / requests_per_second - clock()))
                else:
                    self._take(ANSWER_SECONDS)

        return self._run(run)

    def closed_loop(self, seconds: float) -> Measured:
        """Every connection asks again as soon as it is answered, for `seconds`; what is open then is waited for."""

        def run() -> None:
            clock, sent = time.perf_counter, 0
            until = clock() + seconds
            while True:
                now = clock()
                while self._idle and now < until:
                    self._send(sent, now)
                    sent += 1
                if len(self._idle) == len(self._lines):
                    return
                self._take(ANSWER_SECONDS)

        return self._run(run)

    def _run(self, work: Callable[[], None]) -> Measured:
        self._measured, self._answers = Measured(), []
        gc.collect()
        gc.disable()
        began, cpu = time.perf_counter(), time.process_time()
        try:
            work()
        finally:
            gc.enable()
        measured = self._measured
        measured.seconds = time.perf_counter() - began
        measured.client_cpu_seconds = time.process_time() - cpu
        self._answers.sort()
        measured.latencies = [latency for _, latency, _ in self._answers]
        measured.first_bytes = [first for _, _, first in self._answers]
        return measured

    def _send(self, index: int, due: float) -> None:
        self._measured.lateness.append(time.perf_counter() - due)
        line = self._idle.popleft()
        try:
            line.send(self._questions[index % len(self._questions)].request, index, due)
        except OSError as error:
            self._lose(line, repr(error))

    def _take(self, wait_seconds: float) -> None:
        """Sleep until something comes, at most `wait_seconds`, and read it. Raises: TimeoutError."""
        readable, _, _ = select.select(self._lines, (), (), wait_seconds)
        if not readable and wait_seconds == ANSWER_SECONDS:
            raise TimeoutError(f"{self._address}: no byte within {ANSWER_SECONDS:g} s")
        for number in readable:
            line = self._lines[number]
            try:
                if line.read(time.perf_counter()):
                    self._finish(line)
            except (OSError, httptools.HttpParserError) as error:
                self._lose(line, repr(error))

    def _finish(self, line: _Line) -> None:
        self._answers.append((line.index, time.perf_counter() - line.due, line.first_byte_at - line.due))
        question = self._questions[line.index % len(self._questions)]
        if fault := line.fault(question):
            self._answers.pop()
            self._error(fault)
        else:
            self._measured.marks += question.marks
        self._idle.append(line)

    def _lose(self, line: _Line, reason: str) -> None:
        del self._lines[line.socket.fileno()]
        line.socket.close()
        self._error(reason)
        self._open()

    def _error(self, example: str) -> None:
        self._measured.errors += 1
        self._measured.error_example = self._measured.error_example or example
