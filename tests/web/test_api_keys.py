"""The key file: what is stored of a key, and who may read it (D-15)."""

from __future__ import annotations

import pytest

from argosy.core.errors import Conflict, InvalidRequest, NotFound, SpecError
from argosy.core.principal import Scope
from argosy.web.api_keys import ApiKeys, create_key, read_keys, revoke_key


def test_d15_keys_are_stored_as_hashes_in_a_private_file(tmp_path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "ci", (Scope.INFER,))
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    principal = ApiKeys(read_keys(path).keys).principal(key)
    assert principal is not None
    assert principal.name == "ci"
    with pytest.raises(Conflict, match="a key named 'ci' already"):
        create_key(path, "ci", (Scope.INFER,))
    with pytest.raises(NotFound, match="no key named 'cd': it has ci"):
        revoke_key(path, "cd")
    revoke_key(path, "ci")
    assert read_keys(path).keys == ()


def test_a_key_file_others_can_read_is_refused(tmp_path) -> None:
    path = tmp_path / "keys.json"
    create_key(path, "ci", (Scope.INFER,))
    path.chmod(0o644)
    with pytest.raises(SpecError, match="chmod 600"):
        read_keys(path)


def test_limits_are_part_of_a_key_and_old_files_have_none(tmp_path) -> None:
    path = tmp_path / "keys.json"
    key = create_key(path, "ci", (Scope.INFER,), requests_per_minute=60, tokens_per_minute=9000)
    free = create_key(path, "free", (Scope.INFER,))
    keys = ApiKeys(read_keys(path).keys)
    limited, unlimited = keys.principal(key), keys.principal(free)
    assert limited is not None
    assert unlimited is not None
    assert (limited.requests_per_minute, limited.tokens_per_minute) == (60, 9000)
    assert (unlimited.requests_per_minute, unlimited.tokens_per_minute) == (None, None)
    digest = read_keys(path).keys[0].sha256
    path.write_text(f'{{"keys": [{{"name": "old", "sha256": "{digest}", "scopes": ["infer"], "created": 5}}]}}')
    assert read_keys(path).keys[0].principal.tokens_per_minute is None


@pytest.mark.parametrize("limit", [0, -1, 10**12 + 1])
def test_a_limit_that_is_none_is_refused_and_nothing_is_written(tmp_path, limit) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(InvalidRequest, match="--tokens-per-minute"):
        create_key(path, "ci", (Scope.INFER,), tokens_per_minute=limit)
    assert not path.exists()
    create_key(path, "ci", (Scope.INFER,))
    path.write_text(path.read_text().replace('"tokens_per_minute": null', f'"tokens_per_minute": {limit}'))
    with pytest.raises(SpecError, match="malformed"):
        read_keys(path)
