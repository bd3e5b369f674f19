"""Answers that were given before, given again from memory; equal requests at the same time run once (opt-in).

    key = cache_key(scope, body)                       None: not deterministic, or the client said no-store
    found = cache.find(key, now)                       a hit, or None
    found = await cache.join(key, timeout_seconds)     CachedAnswer, Lead, or None (waited too long: answer it alone)
    with lead:                                         the one that asks the replica
        lead.feed(chunk) …                             the raw bytes as they are relayed to its client
        lead.complete(answer, now)                     only after a whole, good answer; leaving without it = failed

What is deterministic: a completion with `temperature: 0`, or with a `seed` of zero or more, that asks for one answer
and no timings; an embedding, always. The key is a hash of the body's *values* (order and spacing of its JSON do not
count) without the fields that change nothing about the answer, together with who asks, the service, its revision and
the path. So nobody meets, or can time, another key's answers (D-32), and a new revision begins empty.

Kept is what the replica sent, byte for byte. A stream and a whole body are two entries, because to make one out of
the other would be a second implementation of the wire format; a stream from memory arrives at once, with the events
it had. `id` and `created` are those of the first answer.

A follower waits until its leader is through: only a whole answer is shared, so that a leader that fails, or whose
client leaves, has spoilt nothing. Then the first follower in line becomes the leader. A body too large to keep sends
all followers on their own.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from hashlib import blake2b
from types import TracebackType
from typing import Any, Self

import msgspec

from argosy.core.inference_service import CachePolicy

_COMPLETION_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
_EMBEDDING_PATHS = frozenset({"/v1/embeddings"})
_WITHOUT_EFFECT = frozenset({
    "user", "metadata", "safety_identifier", "request_id", "priority", "prompt_cache_key", "prompt_cache_retention",
})  # fmt: skip
_LARGEST_SHARE = 8  # No answer may take more than this part of the cache.
_ENTRY_BYTES = 512  # What an entry costs beside its body.
_STREAM_END = b"data: [DONE]\n\n"

Key = bytes


class CacheScope(msgspec.Struct, frozen=True, kw_only=True):
    """For whom, and of what, an answer is kept. principal: the name of the API key."""

    principal: str
    service: str
    revision: str
    path: str


class CachedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole, good answer (status 200) as the replica sent it."""

    content_type: bytes
    body: bytes

    @property
    def is_whole(self) -> bool:
        """Whether it ended as it should: a stream with its end mark, which never follows an error."""
        is_stream = self.content_type.startswith(b"text/event-stream")
        return self.body.endswith(_STREAM_END) if is_stream else bool(self.body)


def cache_key(scope: CacheScope, body: bytes, cache_control: bytes = b"") -> Key | None:
    """What equal requests have in common; None if the request must reach a replica.

    cache_control: the request's header. Source: RFC 9111 §5.2.1 (`no-store`, `no-cache`).
    """
    if _refuses_cache(cache_control):
        return None
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(fields, dict) or not _is_deterministic(fields, scope.path):
        return None
    asked = {name: value for name, value in fields.items() if value is not None and name not in _WITHOUT_EFFECT}
    if asked.get("stream") is False:
        del asked["stream"]
    about = (scope.principal, scope.service, scope.revision, scope.path, asked)
    return blake2b(msgspec.json.encode(about, order="sorted"), digest_size=16).digest()


class Lead:
    """The right, and the duty, to ask the replica on behalf of all who wait for the same answer.

    A context manager: leaving without `complete` hands the lead to the next in line. Never blocks.
    """

    def __init__(self, cache: ResponseCache, flight: _Flight) -> None:
        self._cache = cache
        self._flight = flight
        self._chunks: list[bytes] = []
        self._bytes = 0
        self._has_ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._cache.hand_over(self._flight)

    def feed(self, chunk: bytes) -> None:
        """Keep a piece of the body, in order."""
        if self._has_ended:
            return
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        if self._bytes > self._cache.largest_bytes:
            self._has_ended = True
            self._chunks.clear()
            self._cache.release(self._flight, None)

    def complete(self, content_type: bytes, now: float) -> None:
        """The body is whole and its status was 200: keep it and give it to all who wait.

        An error in the middle of a stream makes no whole answer: the lead is then handed over as if it had failed.
        """
        if self._has_ended:
            return
        answer = CachedAnswer(content_type=content_type, body=b"".join(self._chunks))
        if answer.is_whole:
            self._has_ended = True
            self._cache.keep(self._flight.key, answer, now)
            self._cache.release(self._flight, answer)


class _Flight:
    """One request on its way to a replica, and who waits for its answer."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.followers: deque[asyncio.Future[CachedAnswer | Lead | None]] = deque()


class _Entry(msgspec.Struct, frozen=True, kw_only=True):
    answer: CachedAnswer
    size: int
    expires: float


class ResponseCache:
    """The answers of one service: least recently used go first, beyond max_bytes or their time.

    One event loop's; nothing but `join` waits. Units: `now` in seconds, monotonic.
    """

    def __init__(self, policy: CachePolicy) -> None:
        self._policy = policy
        self.largest_bytes = policy.max_bytes // _LARGEST_SHARE
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._flights: dict[Key, _Flight] = {}
        self.size_bytes = 0

    def __len__(self) -> int:
        """Answers kept."""
        return len(self._entries)

    def find(self, key: Key, now: float) -> CachedAnswer | None:
        """The answer, if it is known and not too old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= now:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry.answer

    async def join(self, key: Key, timeout_seconds: float) -> CachedAnswer | Lead | None:
        """After `find` found nothing: lead, or wait for who leads. None: answer this one without the cache.

        Cancels: leaves the line; a lead that was just handed to us goes to the next.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight(key)
            return Lead(self, flight)
        turn: asyncio.Future[CachedAnswer | Lead | None] = asyncio.get_running_loop().create_future()
        flight.followers.append(turn)
        try:
            async with asyncio.timeout(timeout_seconds):
                return await turn
        except BaseException as reason:  # a cancellation may come together with the lead: it must not be lost
            _leave(flight, turn)
            if isinstance(reason, TimeoutError):
                return None
            raise

    def hand_over(self, flight: _Flight) -> None:
        """The leader failed: the next in line leads, if somebody waits."""
        while flight.followers:
            turn = flight.followers.popleft()
            if not turn.done():
                turn.set_result(Lead(self, flight))
                return
        self._flights.pop(flight.key, None)

    def release(self, flight: _Flight, answer: CachedAnswer | None) -> None:
        """Nobody leads any more: all in line get the answer, or None."""
        self._flights.pop(flight.key, None)
        for turn in flight.followers:
            if not turn.done():
                turn.set_result(answer)
        flight.followers.clear()

    def keep(self, key: Key, answer: CachedAnswer, now: float) -> None:
        """Remember an answer; the least recently used make room."""
        size = len(answer.body) + len(answer.content_type) + _ENTRY_BYTES
        if size > self._policy.max_bytes:
            return
        self._drop(key)
        self._entries[key] = _Entry(answer=answer, size=size, expires=now + self._policy.ttl_seconds)
        self.size_bytes += size
        while self.size_bytes > self._policy.max_bytes:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size


def _leave(flight: _Flight, turn: asyncio.Future[CachedAnswer | Lead | None]) -> None:
    """Out of the line; if the lead had just been given to us, it passes on."""
    if turn.done() and not turn.cancelled():
        given = turn.result()
        if isinstance(given, Lead):
            with given:
                return
    elif turn in flight.followers:
        flight.followers.remove(turn)


def _refuses_cache(cache_control: bytes) -> bool:
    directives = {part.strip().lower() for part in cache_control.split(b",")}
    return not directives.isdisjoint((b"no-store", b"no-cache"))


def _is_deterministic(fields: dict[str, Any], path: str) -> bool:
    """Whether the same body gets the same answer, as far as the model's arithmetic allows (docs/engines.md)."""
    if path in _EMBEDDING_PATHS:
        return True
    if path not in _COMPLETION_PATHS or fields.get("return_timings"):
        return False
    if any(fields.get(name) not in (None, 1) for name in ("n", "best_of")):
        return False
    seed, temperature = fields.get("seed"), fields.get("temperature")
    has_seed = isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0
    is_greedy = isinstance(temperature, int | float) and not isinstance(temperature, bool) and temperature == 0
    return has_seed or is_greedy
