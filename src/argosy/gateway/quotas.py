"""What each API key may take per minute, in requests and in tokens: token buckets, reserved first and settled later.

    quotas.admit(principal, estimated_tokens, now)                   before anything is sent; raises Overloaded
    quotas.settle(principal, estimated_tokens, actual_tokens, now)   once, however the request ended (finally)

A bucket holds one minute's worth and refills evenly. A request takes its estimate (prompt, and the answer it may
become) out before it starts, so requests at once cannot all pass on the same tokens; what it really took is known at
its end, and the difference goes back, or is owed. Both buckets are checked before either is touched, and nothing here
waits, so on an event loop an admission is one step: no race. A request larger than a whole minute needs a full bucket
and owes the rest: it passes, and what follows waits until it is paid. So over any time T a key gets at most
limit × (T + 1 minute) / 1 minute, and one request.

Buckets belong to the key's name, not to a connection, a header's spelling or a Principal object: a key file that
changes while we run changes the limits from the next request on, and levels stay (a lowered limit cuts them).
Limits are per gateway process. Source: the token bucket of RFC 2697; OpenAI's requests and tokens per minute.
"""

from __future__ import annotations

import msgspec

from argosy.core.errors import Overloaded
from argosy.core.principal import Principal

_MINUTE_SECONDS = 60.0
_SWEEP_EVERY = 1024


class _Bucket:
    """A level that refills up to a limit per minute, and may be below zero."""

    def __init__(self, limit: int, now: float) -> None:
        self.limit = limit
        self.level = float(limit)
        self._at = now

    def refill(self, limit: int, now: float) -> None:
        """Come up to date. A clock that stands still or goes back adds nothing."""
        elapsed = max(now - self._at, 0.0)
        self.limit = limit
        self.level = min(self.level + elapsed * limit / _MINUTE_SECONDS, float(limit))
        self._at = max(now, self._at)

    def seconds_until(self, amount: float) -> float:
        """How long until so much is there; more than fits counts as full."""
        missing = min(amount, float(self.limit)) - self.level
        return max(missing, 0.0) * _MINUTE_SECONDS / self.limit


class QuotaState(msgspec.Struct, frozen=True, kw_only=True):
    """One limit of a key now. remaining: whole units left, 0 when in debt. reset_seconds: until the bucket is full."""

    limit: int
    remaining: int
    reset_seconds: float


class Quotas:
    """The buckets of every key that has limits. Units: `now` in seconds, monotonic."""

    def __init__(self) -> None:
        self._requests: dict[str, _Bucket] = {}
        self._tokens: dict[str, _Bucket] = {}
        self._admissions = 0

    def admit(self, principal: Principal, estimated_tokens: int, now: float) -> None:
        """Take one request and its estimated tokens. Raises: Overloaded with the exact wait; nothing is taken then."""
        requests = _bucket(self._requests, principal.name, principal.requests_per_minute, now)
        tokens = _bucket(self._tokens, principal.name, principal.tokens_per_minute, now)
        request_wait = requests.seconds_until(1) if requests else 0.0
        token_wait = tokens.seconds_until(estimated_tokens) if tokens else 0.0
        if requests is not None and request_wait > 0.0 and request_wait >= token_wait:
            raise _refusal(f"{requests.limit} requests", principal.name, request_wait)
        if tokens is not None and token_wait > 0.0:
            raise _refusal(f"{tokens.limit} tokens", principal.name, token_wait)
        if requests is not None:
            requests.level -= 1
        if tokens is not None:
            tokens.level -= estimated_tokens
        self._admissions += 1
        if self._admissions % _SWEEP_EVERY == 0:
            self._sweep(now)

    def settle(self, principal: Principal, estimated_tokens: int, actual_tokens: int, now: float) -> None:
        """Replace an admitted request's estimate by what it took, whether it ended well, failed or was aborted."""
        bucket = _bucket(self._tokens, principal.name, principal.tokens_per_minute, now)
        if bucket is not None:
            bucket.level = min(bucket.level + estimated_tokens - actual_tokens, float(bucket.limit))

    def state(self, principal: Principal, now: float) -> dict[str, QuotaState]:
        """The limits of a key by what they count (`requests`, `tokens`); empty without limits."""
        buckets = {
            "requests": _bucket(self._requests, principal.name, principal.requests_per_minute, now),
            "tokens": _bucket(self._tokens, principal.name, principal.tokens_per_minute, now),
        }
        return {
            kind: QuotaState(
                limit=bucket.limit,
                remaining=max(int(bucket.level), 0),
                reset_seconds=bucket.seconds_until(bucket.limit),
            )
            for kind, bucket in buckets.items()
            if bucket is not None
        }

    def headers(self, principal: Principal, now: float) -> list[tuple[bytes, bytes]]:
        """The limits as response headers. Source: OpenAI's `x-ratelimit-*`."""
        headers = []
        for kind, state in self.state(principal, now).items():
            headers += [
                (f"x-ratelimit-limit-{kind}".encode(), str(state.limit).encode()),
                (f"x-ratelimit-remaining-{kind}".encode(), str(state.remaining).encode()),
                (f"x-ratelimit-reset-{kind}".encode(), f"{state.reset_seconds:.3f}s".encode()),
            ]
        return headers

    def _sweep(self, now: float) -> None:
        """Forget full buckets: a new one would be the same. So keys that are gone leave nothing."""
        for buckets in (self._requests, self._tokens):
            for name in [*buckets]:
                bucket = buckets[name]
                bucket.refill(bucket.limit, now)
                if bucket.level >= bucket.limit:
                    del buckets[name]


def _bucket(buckets: dict[str, _Bucket], name: str, limit: int | None, now: float) -> _Bucket | None:
    """A key's bucket, up to date; None without a limit."""
    if limit is None:
        return None
    bucket = buckets.get(name)
    if bucket is None:
        bucket = buckets[name] = _Bucket(limit, now)
    bucket.refill(limit, now)
    return bucket


def _refusal(limit: str, name: str, wait_seconds: float) -> Overloaded:
    return Overloaded(
        f"key {name!r} has used up its {limit} per minute: try again in {wait_seconds:.1f} s, "
        "or ask for a higher limit (`argosy keys create --requests-per-minute --tokens-per-minute`)",
        retry_after_seconds=wait_seconds,
    )
