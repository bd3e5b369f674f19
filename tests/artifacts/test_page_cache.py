"""Reading ahead is a hint: it names what it asked for and fails on nothing."""

from __future__ import annotations

from pathlib import Path

from argosy.artifacts.page_cache import read_ahead


def test_files_and_folders_are_asked_for_and_what_is_missing_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"x" * 5000)
    (folder / "deeper").mkdir()
    single = tmp_path / "single.gguf"
    single.write_bytes(b"y" * 300)
    assert read_ahead([folder, single, tmp_path / "missing"]) == 5300
