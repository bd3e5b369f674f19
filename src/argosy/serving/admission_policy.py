"""Who runs, who waits, who is told to come back: decisions over values, with no clock, no task and no engine.

Requests of one principal (an API key) wait in one line; a line that has had less service goes first. Service is
counted in tokens (prompt plus the most that may be generated) on a virtual clock per principal, as in start-time
fair queueing: a principal that was away resumes at the present, so it can neither hoard credit nor pay for the past.

The queue is bounded by requests and by tokens. When it is full, a newcomer whose principal holds fewer places than
the greediest one takes the place of that one's last request; otherwise the newcomer is refused.

Source: Goyal, Vin, Cheng 1996 (Start-time Fair Queueing); Sheng et al. 2024 (Fairness in Serving LLMs), VTC.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

_RATE_MEMORY_SECONDS = 20.0
_MIN_RETRY_SECONDS = 1.0
_MAX_RETRY_SECONDS = 60.0


class AdmissionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may run and wait.

    max_running: sequences given to the engine at once. max_waiting: requests in the queue.
    max_waiting_tokens: prompt and answer tokens of all waiting requests together.
    max_queue_seconds: longest wait for a permit.
    """

    max_running: int
    max_waiting: int = 256
    max_waiting_tokens: int = 2_000_000
    max_queue_seconds: float = 60.0


class Ticket(msgspec.Struct, eq=False, kw_only=True):
    """One request at the door. sequences: answers it wants (they run together). tokens: its cost."""

    principal: str
    sequences: int
    tokens: int
    priority: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of an offered ticket. evicted: a waiting ticket that lost its place to it."""

    admitted: bool = False
    waiting: bool = False
    reason: str = ""
    evicted: Ticket | None = None


class _Line:
    """The waiting tickets of one principal, best priority first, then first come first served."""

    __slots__ = ("tickets", "virtual_time")

    def __init__(self, virtual_time: float) -> None:
        self.virtual_time = virtual_time
        self.tickets: list[Ticket] = []

    def push(self, ticket: Ticket) -> None:
        place = len(self.tickets)
        while place and self.tickets[place - 1].priority > ticket.priority:
            place -= 1
        self.tickets.insert(place, ticket)


class AdmissionQueue:
    """The state of the door, changed only by `offer`, `leave` and `release`."""

    def __init__(self, limits: AdmissionLimits) -> None:
        self.limits = limits
        self.running = 0
        self.waiting = 0
        self.waiting_tokens = 0
        self._virtual_now = 0.0
        self._lines: dict[str, _Line] = {}

    def offer(self, ticket: Ticket) -> Verdict:
        """Admit the ticket, queue it, or refuse it, saying why."""
        if not self.waiting and self._fits(ticket):
            self._admit(ticket, self._line(ticket.principal))
            return Verdict(admitted=True)
        evicted = None
        if reason := self._full(ticket):
            evicted = self._evictable(ticket)
            if evicted is None:
                return Verdict(reason=reason)
            self.leave(evicted)
        self._line(ticket.principal).push(ticket)
        self.waiting += 1
        self.waiting_tokens += ticket.tokens
        return Verdict(waiting=True, reason=reason, evicted=evicted)

    def leave(self, ticket: Ticket) -> None:
        """Take a waiting ticket out of the queue: it was cut off, timed out or evicted."""
        self._lines[ticket.principal].tickets.remove(ticket)
        self.waiting -= 1
        self.waiting_tokens -= ticket.tokens

    def release(self, ticket: Ticket) -> None:
        """Give back what an admitted ticket held."""
        self.running -= ticket.sequences

    def admit_next(self) -> Iterator[Ticket]:
        """Admit waiting tickets, fairest first, as long as they fit."""
        while self.waiting:
            line = min((held for held in self._lines.values() if held.tickets), key=_virtual_time)
            ticket = line.tickets[0]
            if not self._fits(ticket):
                return
            self.leave(ticket)
            self._admit(ticket, line)
            yield ticket
        self._forget_idle()

    def _fits(self, ticket: Ticket) -> bool:
        return self.running == 0 or self.running + ticket.sequences <= self.limits.max_running

    def _admit(self, ticket: Ticket, line: _Line) -> None:
        self.running += ticket.sequences
        self._virtual_now = max(self._virtual_now, line.virtual_time)
        line.virtual_time += ticket.tokens * ticket.sequences

    def _line(self, principal: str) -> _Line:
        line = self._lines.get(principal)
        if line is None:
            line = self._lines[principal] = _Line(self._virtual_now)
        elif not line.tickets:
            line.virtual_time = max(line.virtual_time, self._virtual_now)
        return line

    def _full(self, ticket: Ticket) -> str:
        if self.waiting >= self.limits.max_waiting:
            return f"{self.waiting} requests are waiting already (max_waiting {self.limits.max_waiting})"
        if self.waiting and self.waiting_tokens + ticket.tokens > self.limits.max_waiting_tokens:
            limit = self.limits.max_waiting_tokens
            return f"the queue holds {self.waiting_tokens} tokens already (max_waiting_tokens {limit})"
        return ""

    def _evictable(self, newcomer: Ticket) -> Ticket | None:
        """The last ticket of the longest line, if that line is longer than the newcomer's would become."""
        longest = max(self._lines.values(), key=lambda line: len(line.tickets), default=_Line(0.0))
        mine = self._lines.get(newcomer.principal)
        places = len(mine.tickets) + 1 if mine else 1
        if len(longest.tickets) <= places:
            return None
        victim = longest.tickets[-1]
        freed = self.waiting_tokens - victim.tokens
        fits = freed + newcomer.tokens <= self.limits.max_waiting_tokens or self.waiting == 1
        return victim if fits else None

    def _forget_idle(self) -> None:
        """Drop lines that hold nothing and are owed nothing, so that state is bounded by who is here (D-35)."""
        idle = [name for name, line in self._lines.items() if line.virtual_time <= self._virtual_now]
        for name in idle:
            del self._lines[name]
        if self.running == 0:
            self._lines.clear()


def _virtual_time(line: _Line) -> float:
    return line.virtual_time


class ServiceRate:
    """Requests finished per second, measured over about the last twenty seconds of work."""

    def __init__(self) -> None:
        self._weight = 0.0
        self._span_seconds = 0.0
        self._last: float | None = None

    def finished(self, now: float) -> None:
        """One request ended. Units: now in seconds of a monotonic clock (F-11)."""
        if self._last is not None:
            gap = max(now - self._last, 0.0)
            keep = 0.5 ** (gap / _RATE_MEMORY_SECONDS)
            self._weight = self._weight * keep + 1.0
            self._span_seconds = self._span_seconds * keep + gap
        self._last = now

    def per_second(self) -> float | None:
        """The rate, or None before two requests have ended."""
        if self._span_seconds <= 0.0:
            return None
        return self._weight / self._span_seconds


def retry_after_seconds(waiting: int, rate: float | None) -> float:
    """How long a refused client should wait: until half of today's queue has been served.

    Units: rate in requests per second. Whole seconds, between 1 and 60, as `Retry-After` wants them.
    """
    if rate is None:
        return _MIN_RETRY_SECONDS
    seconds = (waiting / 2 + 1) / rate
    return float(round(min(max(seconds, _MIN_RETRY_SECONDS), _MAX_RETRY_SECONDS)))
