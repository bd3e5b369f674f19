"""Token buckets per key: what is admitted, what is owed, when to come back; and that nothing gets around them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.core.errors import Overloaded
from argosy.core.principal import Principal, Scope
from argosy.gateway.quotas import Quotas
from argosy.web.access import presented_key
from argosy.web.api_keys import ApiKeys, WatchedKeys, create_key, plain_keys


def _key(name: str = "ci", requests: int | None = None, tokens: int | None = None) -> Principal:
    return Principal(name=name, requests_per_minute=requests, tokens_per_minute=tokens)


def _wait(quotas: Quotas, key: Principal, tokens: int, now: float) -> float:
    """Seconds to wait; 0 if admitted (and taken)."""
    try:
        quotas.admit(key, tokens, now)
    except Overloaded as refused:
        return refused.retry_after_seconds
    return 0.0


def test_without_limits_everything_passes() -> None:
    quotas = Quotas()
    for _ in range(10_000):
        quotas.admit(_key(), 10**9, 0.0)
    assert quotas.state(_key(), 0.0) == {}
    assert quotas.headers(_key(), 0.0) == []


def test_a_minute_of_requests_at_once_then_one_as_each_comes_due() -> None:
    quotas, key = Quotas(), _key(requests=60)
    assert [_wait(quotas, key, 0, 0.0) for _ in range(60)] == [0.0] * 60
    assert _wait(quotas, key, 0, 0.0) == pytest.approx(1.0)
    assert _wait(quotas, key, 0, 1.0) == 0.0
    assert _wait(quotas, key, 0, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("limit", "cost"), [(1, 1), (7, 1), (60, 1), (1000, 333), (90_000, 12_345)])
def test_d33_retry_after_is_exact(limit: int, cost: int) -> None:
    quotas, key = Quotas(), _key(tokens=limit)
    while not (wait := _wait(quotas, key, cost, 0.0)):
        pass
    assert _wait(quotas, key, cost, wait * 0.999) > 0.0
    assert _wait(quotas, key, cost, wait * 1.000001) == 0.0


def test_d33_a_refusal_takes_nothing() -> None:
    quotas, key = Quotas(), _key(requests=10, tokens=100)
    quotas.admit(key, 90, 0.0)
    for _ in range(50):
        assert _wait(quotas, key, 50, 0.0) > 0.0
    assert quotas.state(key, 0.0)["requests"].remaining == 9
    assert quotas.state(key, 0.0)["tokens"].remaining == 10


def test_d33_many_at_once_cannot_share_the_same_tokens() -> None:
    """Each reserves what it may take before it starts, so the sum that is admitted fits."""
    quotas, key = Quotas(), _key(tokens=1000)
    assert sum(_wait(quotas, key, 100, 0.0) == 0.0 for _ in range(500)) == 10


def test_what_was_not_used_goes_back_and_what_was_is_owed() -> None:
    quotas, key = Quotas(), _key(tokens=1000)
    quotas.admit(key, 600, 0.0)
    quotas.settle(key, 600, 100, 0.0)
    assert quotas.state(key, 0.0)["tokens"].remaining == 900
    quotas.admit(key, 100, 0.0)
    quotas.settle(key, 100, 1500, 0.0)
    assert quotas.state(key, 0.0)["tokens"].remaining == 0
    assert _wait(quotas, key, 100, 0.0) == pytest.approx((100 + 600) * 60 / 1000)


def test_d33_an_aborted_request_pays_for_what_was_generated() -> None:
    """Leaving early is no way around the limit: 300 tokens came before the client went."""
    quotas, key = Quotas(), _key(tokens=1000)
    for _ in range(3):
        quotas.admit(key, 400, 0.0)
        quotas.settle(key, 400, 300, 0.0)
    assert _wait(quotas, key, 400, 0.0) == pytest.approx(300 * 60 / 1000)


def test_a_request_larger_than_a_minute_waits_for_a_full_bucket_and_owes_the_rest() -> None:
    quotas, key = Quotas(), _key(tokens=600)
    quotas.admit(key, 1800, 0.0)
    assert _wait(quotas, key, 1, 0.0) == pytest.approx(120.1)
    assert _wait(quotas, key, 1800, 120.0) == pytest.approx(60.0)
    assert _wait(quotas, key, 1800, 180.0) == 0.0


def test_settling_never_fills_a_bucket_beyond_its_limit() -> None:
    quotas, key = Quotas(), _key(tokens=100)
    quotas.admit(key, 100, 0.0)
    quotas.settle(key, 100, 0, 3600.0)
    assert quotas.state(key, 3600.0)["tokens"].remaining == 100


def test_keys_do_not_share_a_bucket() -> None:
    quotas = Quotas()
    assert _wait(quotas, _key("a", requests=1), 0, 0.0) == 0.0
    assert _wait(quotas, _key("b", requests=1), 0, 0.0) == 0.0
    assert _wait(quotas, _key("a", requests=1), 0, 0.0) > 0.0


def test_a_clock_that_stands_or_goes_back_gives_nothing() -> None:
    quotas, key = Quotas(), _key(requests=1)
    quotas.admit(key, 0, 100.0)
    assert _wait(quotas, key, 0, 40.0) == pytest.approx(60.0)
    assert _wait(quotas, key, 0, 100.0) == pytest.approx(60.0)


def test_headers_say_limit_rest_and_reset() -> None:
    quotas, key = Quotas(), _key(requests=10, tokens=1000)
    quotas.admit(key, 250, 0.0)
    assert dict(quotas.headers(key, 0.0)) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"6.000s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"750",
        b"x-ratelimit-reset-tokens": b"15.000s",
    }


def test_the_longer_wait_is_told_and_names_its_limit() -> None:
    quotas, key = Quotas(), _key(requests=1, tokens=100)
    quotas.admit(key, 50, 0.0)
    with pytest.raises(Overloaded, match="1 requests per minute") as by_requests:
        quotas.admit(key, 60, 0.0)
    assert by_requests.value.retry_after_seconds == pytest.approx(60.0)
    quotas.settle(key, 50, 250, 0.0)
    with pytest.raises(Overloaded, match="100 tokens per minute") as by_tokens:
        quotas.admit(key, 50, 0.0)
    assert by_tokens.value.retry_after_seconds == pytest.approx(120.0)


def test_buckets_that_are_full_again_are_forgotten() -> None:
    quotas = Quotas()
    for number in range(1023):
        quotas.admit(_key(f"key-{number}", requests=60), 0, 0.0)
    quotas.admit(_key("last", requests=60), 0, 3600.0)
    assert len(quotas._requests) == 1


def test_d33_a_rewritten_key_file_keeps_the_levels(tmp_path: Path) -> None:
    """Touching the file, or giving the key another limit, hands out no new minute."""
    path = tmp_path / "keys.json"
    secret = create_key(path, "ci", (Scope.INFER,), requests_per_minute=10)
    keys = WatchedKeys(path, (), _must_not_fail)
    quotas = Quotas()
    for _ in range(10):
        quotas.admit(_known(keys, secret), 0, 0.0)
    create_key(path, "other", (Scope.INFER,))
    assert _wait(quotas, _known(keys, secret), 0, 0.0) > 0.0
    path.write_bytes(path.read_bytes().replace(b'"requests_per_minute": 10', b'"requests_per_minute": 600'))
    raised = _known(keys, secret)
    assert raised.requests_per_minute == 600
    assert _wait(quotas, raised, 0, 0.0) == pytest.approx(0.1)
    assert _wait(quotas, raised, 0, 0.1) == 0.0


def test_d33_one_key_is_one_caller_however_it_is_presented() -> None:
    """Limits hang on the key's name; no header a client may vary reaches them."""
    keys = ApiKeys(plain_keys(["ak-secret-of-one"]))
    assert _known(keys, "ak-secret-of-one") is _known(keys, "ak-secret-of-one")
    assert keys.principal("AK-SECRET-OF-ONE") is None
    assert presented_key("bearer ak-secret-of-one") == presented_key("BEARER  ak-secret-of-one") == "ak-secret-of-one"


@given(
    limit=st.integers(1, 10_000),
    steps=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5_000), st.integers(0, 5_000)), max_size=60),
)
def test_d33_over_any_time_a_key_gets_its_limit_and_one_minute_and_one_request(
    limit: int, steps: list[tuple[float, int, int]]
) -> None:
    """Whatever is estimated and whatever it turns out to be: usage - debt of the last <= limit × (minutes + 1)."""
    quotas, key = Quotas(), _key(tokens=limit)
    now = used = largest = 0.0
    for pause, estimate, actual in steps:
        now += pause
        if _wait(quotas, key, estimate, now) == 0.0:
            quotas.settle(key, estimate, actual, now)
            used += actual
            largest = max(largest, actual, estimate)
            assert used <= limit * (now / 60 + 1) + largest + 1e-6


def _known(keys: ApiKeys, secret: str) -> Principal:
    found = keys.principal(secret)
    assert found is not None
    return found


def _must_not_fail(error: Exception) -> None:
    raise error
