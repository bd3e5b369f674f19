"""Archives made by strangers: refused whole, and nothing comes out (D-03, D-04, D-05)."""

from __future__ import annotations

import contextlib
import copy
import io
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.artifacts.safe_zip import MAX_MEMBERS, checked_archive, copy_member
from argosy.core.errors import ArtifactError


def archive_of(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def special(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (mode | 0o777) << 16
    return member


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("../evil.gguf", b"x")], "leads out"),
        ([("a/../../evil.gguf", b"x")], "leads out"),
        ([("/etc/evil.gguf", b"x")], "leads out"),
        ([("C:/evil.gguf", b"x")], "leads out"),
        ([("a\\..\\evil.gguf", b"x")], "leads out"),
        ([("a//b.gguf", b"x")], "leads out"),
        ([("./a.gguf", b"x")], "leads out"),
        ([("a\x1bb.gguf", b"x")], "unprintable"),
        ([("n" * 600, b"x")], "longer"),
        ([(special("link.gguf", stat.S_IFLNK), b"/etc/passwd")], "link or a device"),
        ([(special("device.gguf", stat.S_IFCHR), b"")], "link or a device"),
        ([("Model.gguf", b"x"), ("model.GGUF", b"y")], "by case only"),
        ([("bomb.gguf", b"\0" * (4 * 2**20))], "times"),
    ],
)
def test_d05_archives_with_one_bad_member_are_refused_whole(
    tmp_path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]], reason: str
) -> None:
    path = archive_of(tmp_path / "bad.whl", [("good.gguf", b"x"), *members])
    with pytest.raises(ArtifactError, match=reason), checked_archive(path):
        pytest.fail("the archive was opened")
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.whl"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_d05_duplicate_members_are_refused(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "bad.whl", [("m.gguf", b"x"), ("m.gguf", b"y")])
    with pytest.raises(ArtifactError, match="stands twice"), checked_archive(path):
        pytest.fail("the archive was opened")


def test_d05_too_many_members_are_refused(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "bad.whl", [(f"m{number}", b"") for number in range(MAX_MEMBERS + 1)])
    with pytest.raises(ArtifactError, match="members"), checked_archive(path):
        pytest.fail("the archive was opened")


def test_d05_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m", bytes(range(256)) * 4096)
        for number in range(300):
            again = copy.copy(archive.filelist[0])
            again.filename = f"m{number}"
            archive.filelist.append(again)
    with pytest.raises(ArtifactError, match="unpacks to"), checked_archive(path):
        pytest.fail("the archive was opened")


def test_d03_member_that_is_longer_than_it_declares_is_cut_off(tmp_path: Path) -> None:
    """The central directory says 10 bytes, the stream holds 100,000: no more than 10 are ever taken."""
    path = archive_of(tmp_path / "lie.whl", [("m.gguf", bytes(range(256)) * 400)])
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\1\2") + 24
    content[place : place + 4] = (10).to_bytes(4, "little")
    path.write_bytes(bytes(content))
    target = io.BytesIO()
    with pytest.raises(ArtifactError, match="damaged"), checked_archive(path) as archive:
        copy_member(archive, archive.infolist()[0], target, lambda _: None)
    assert len(target.getvalue()) <= 10


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=6))
def test_d05_mutated_archives_raise_nothing_but_artifact_errors(tmp_path: Path, edits: list[tuple[int, int]]) -> None:
    path = archive_of(tmp_path / "m.whl", [("a/m.gguf", b"weights" * 20), ("a/config.json", b"{}")])
    content = bytearray(path.read_bytes())
    for position, byte in edits:
        content[position % len(content)] = byte
    path.write_bytes(bytes(content))
    target = io.BytesIO()
    with contextlib.suppress(ArtifactError), checked_archive(path) as archive:
        for member in archive.infolist():
            copy_member(archive, member, target, lambda _: None)
    assert len(target.getvalue()) <= 2**20
