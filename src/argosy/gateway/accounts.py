"""What each key has used, and whether it may use more: quotas before a request, settled after it; counts by key.

Tokens are what the replica counted. Of a request that was cut off, only what passed is known: its prompt, estimated,
and one token per event. So leaving just before the end does not make tokens free (D-33).
Key names come from the key file, so they are bounded as labels (D-35).
"""

from __future__ import annotations

from collections.abc import Callable

from argosy.core.principal import Principal
from argosy.gateway.attempt import Attempt
from argosy.gateway.call import Call
from argosy.gateway.quotas import Quotas
from argosy.gateway.usage import Usage
from argosy.observe.metrics import Metrics

# What an answer is expected to take if the request does not say.
EXPECTED_TOKENS = 256
# A number beyond this is no estimate, and beside it a bucket's level would lose its digits.
MOST_TOKENS = 10**9
BODY_BYTES_PER_TOKEN = 4  # all of a body counts: prompts, tools, what a replica may make tokens of


class Accounts:
    """The accounts of all keys. Units: `clock` gives monotonic seconds."""

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._clock = clock
        self._quotas = Quotas()

    def open(self, call: Call) -> Account:
        """Take what the request is expected to use. Raises: Overloaded if its key has no more."""
        longest = call.prefix.max_tokens
        each = EXPECTED_TOKENS if longest is None else max(0, longest)
        expected = min(len(call.body) // BODY_BYTES_PER_TOKEN + call.prefix.num_answers * each, MOST_TOKENS)
        self._quotas.admit(call.caller.principal, expected, self._clock())
        return Account(self, call, expected)

    def headers(self, principal: Principal) -> list[tuple[bytes, bytes]]:
        """What is left to a key that has limits."""
        return self._quotas.headers(principal, self._clock())

    def settle(self, call: Call, expected: int, used: Usage) -> None:
        """Replace what was expected by what was used."""
        principal, service = call.caller.principal, call.service.name
        self._quotas.settle(principal, expected, used.prompt_tokens + used.completion_tokens, self._clock())
        key = principal.name or "anonymous"
        self._metrics.counter("argosy_gateway_key_requests", key, service).add()
        self._metrics.counter("argosy_gateway_key_tokens", key, service, "prompt").add(used.prompt_tokens)
        self._metrics.counter("argosy_gateway_key_tokens", key, service, "generation").add(used.completion_tokens)


class Account:
    """One request's account: closed once, however it ended."""

    def __init__(self, accounts: Accounts, call: Call, expected: int) -> None:
        self._accounts = accounts
        self._call = call
        self._expected = expected

    def close(self, attempt: Attempt | None, *, is_cut: bool) -> None:
        """attempt: the last replica asked, None if there was none. is_cut: the client, or its deadline, ended it."""
        used = Usage()
        if attempt is not None:
            used = attempt.usage or _passed(attempt, is_cut=is_cut)
        self._accounts.settle(self._call, self._expected, used)


def _passed(attempt: Attempt, *, is_cut: bool) -> Usage:
    """What is known of an answer whose usage never came: a failure of ours before its first byte is free."""
    if attempt.first_at is None and not is_cut:
        return Usage()
    return Usage(prompt_tokens=attempt.call.prompt_tokens, completion_tokens=attempt.num_events)
