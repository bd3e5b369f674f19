"""The key file: what is stored of a key, and who may read it (D-15)."""

from __future__ import annotations

import pytest

from argosy.core.errors import Conflict, NotFound, SpecError
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
