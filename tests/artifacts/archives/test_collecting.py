"""What archives leave behind goes when somebody says so, and never while it is in use."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from handmade import files, zipped

from argosy.artifacts.archives.collecting import collect_archives, users_lock
from argosy.artifacts.archives.opening import unpack
from argosy.cli.main import run
from argosy.core.errors import ArtifactError


def test_what_is_still_there_stays_and_the_rest_goes(tmp_path: Path) -> None:
    root = tmp_path / "archives"
    kept = unpack(zipped(tmp_path / "kept.mar", files()), root)
    replaced = unpack(zipped(tmp_path / "replaced.mar", files(vocab__txt=b"old")), root)
    gone = unpack(zipped(tmp_path / "gone.mar", files(vocab__txt=b"words")), root)
    now = unpack(zipped(tmp_path / "replaced.mar", files(vocab__txt=b"newer")), root)
    (tmp_path / "gone.mar").unlink()
    (root / "partial" / "unpack-left-over").mkdir()
    (root / "fetched").mkdir()
    planned = collect_archives(root, dry_run=True)
    assert replaced.root.is_dir()
    freed = collect_archives(root, dry_run=False)
    assert planned == freed
    assert {Path(file).name.partition(".")[0] for file in freed.files} == {
        replaced.root.name,
        gone.root.name,
        "unpack-left-over",
    }
    assert freed.size_bytes > 200
    assert {path.name for path in (root / "files").iterdir()} == {kept.root.name, now.root.name}
    assert (root / "fetched").is_dir()
    assert unpack(tmp_path / "kept.mar", root) == kept
    assert collect_archives(root, dry_run=False).files == ()


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert collect_archives(tmp_path / "archives", dry_run=False).files == ()
    assert not (tmp_path / "archives").exists()


def test_nothing_goes_while_a_server_uses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "archives"
    unpack(zipped(tmp_path / "gone.mar", files()), root)
    (tmp_path / "gone.mar").unlink()
    with users_lock(root).open("w") as server:
        fcntl.flock(server, fcntl.LOCK_SH)
        with pytest.raises(ArtifactError, match="a server uses"):
            collect_archives(root, dry_run=False)
    assert run(["archive", "gc", "--store", str(tmp_path)]) == 2
    assert list((root / "files").iterdir())
    capsys.readouterr()
    assert run(["archive", "gc", "--store", str(tmp_path), "--yes"]) == 0
    assert capsys.readouterr().out.startswith("freed ")
    assert not list((root / "files").iterdir())
