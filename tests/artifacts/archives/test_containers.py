"""Archives made by strangers, in every form: what is not plain files with plain names is refused (D-03, D-05, D-06)."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import Files, files, folder, tar_of, tarred, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.artifacts.archives import containers
from argosy.artifacts.archives.containers import ArchiveForm, form_of, members_of
from argosy.artifacts.archives.opening import unpack
from argosy.core.errors import ArgosyError, ArtifactError, NotFound


def contents_of(path: Path) -> Files:
    found = {}
    with members_of(path) as members:
        for member in members:
            content = io.BytesIO()
            member.copy(content, lambda _: None)
            found[member.name] = content.getvalue()
            assert member.size_bytes == len(found[member.name])
    return found


def refused_without_trace(path: Path, reason: str) -> None:
    """Unpacking fails as it should, and nothing is left, inside the store or beside it."""
    root = path.parent / "store"
    before = {entry for entry in path.parent.rglob("*") if "store" not in entry.parts}
    with pytest.raises(ArtifactError, match=reason):
        unpack(path, root)
    assert not [entry for entry in root.rglob("*") if entry.is_file()]
    assert {entry for entry in path.parent.rglob("*") if not entry.is_relative_to(root)} == before


def test_every_form_holds_the_same(packed: Callable[[Files], Path]) -> None:
    path = packed(files(weights__bin=bytes(range(256)) * 9))
    found = {name.removeprefix("echo/"): content for name, content in contents_of(path).items()}
    assert found == files(weights__bin=bytes(range(256)) * 9)


def test_the_form_is_told_by_the_content_and_not_by_the_name(tmp_path: Path) -> None:
    zipped(tmp_path / "a.tar.gz", files())
    tar_of(tmp_path / "b.mar", files())
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        archive.writestr("handler.py", b"x")
    found = [form_of(tmp_path / name) for name in ("a.tar.gz", "b.mar", "c", "")]
    assert found == [ArchiveForm.MAR, ArchiveForm.TGZ, ArchiveForm.ZIP_STORE, ArchiveForm.FOLDER]
    with pytest.raises(NotFound, match="no archive at"):
        form_of(tmp_path / "nothing.mar")
    (tmp_path / "text.mar").write_bytes(b"hello")
    with pytest.raises(ArtifactError, match="neither a zip nor"):
        form_of(tmp_path / "text.mar")


BAD_NAMES = [
    ("../evil.py", "leads out"),
    ("a/../../evil.py", "leads out"),
    ("/etc/evil.py", "leads out"),
    ("C:/evil.py", "leads out"),
    ("a\\..\\evil.py", "leads out"),
    ("a//b.py", "leads out"),
    ("a/./b.py", "leads out"),
    ("a\x1bb.py", "unprintable"),
    ("a\nb.py", "unprintable"),
    ("n" * 600, "longer"),
    ("ä" * 200, "longer"),
]


@pytest.mark.parametrize(("name", "reason"), BAD_NAMES)
@pytest.mark.parametrize("make", [zipped, lambda path, contents: tar_of(path, contents, top="")])
def test_d05_one_bad_name_refuses_the_archive(
    tmp_path: Path, make: Callable[[Path, Files], Path], name: str, reason: str
) -> None:
    refused_without_trace(make(tmp_path / "bad.mar", {**files(), name: b"x"}), reason)


@pytest.mark.parametrize(
    "pair",
    [
        ("Model.py", "model.PY"),
        ("caf\u00e9.txt", unicodedata.normalize("NFD", "caf\u00e9.txt")),
        ("a", "a/b"),
        ("a/b", "A"),
    ],
)
@pytest.mark.parametrize("make", [zipped, tar_of])
def test_d05_names_that_would_be_one_file_are_refused(
    tmp_path: Path, make: Callable[[Path, Files], Path], pair: tuple[str, str]
) -> None:
    refused_without_trace(make(tmp_path / "bad.mar", {**files(), pair[0]: b"1", pair[1]: b"2"}), "stands twice")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_d05_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.mar", "w") as archive:
        archive.writestr("handler.py", b"1")
        archive.writestr("handler.py", b"2")
    refused_without_trace(tmp_path / "bad.mar", "stands twice")
    rows = [(tarfile.TarInfo("handler.py"), b"1"), (tarfile.TarInfo("handler.py"), b"2")]
    refused_without_trace(tarred(tmp_path / "bad.tgz", rows), "stands twice")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE],
)
def test_d05_links_devices_and_sparse_files_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("weights.bin")
    info.type, info.linkname = kind, "/etc/passwd"
    refused_without_trace(tarred(tmp_path / "bad.tgz", [(tarfile.TarInfo("handler.py"), b"x"), (info, b"")]), "link")


def test_d05_links_and_pipes_in_a_directory_are_refused(tmp_path: Path) -> None:
    for number, make in enumerate(
        (
            lambda path: path.symlink_to("/etc/passwd"),
            lambda path: path.symlink_to("/etc", target_is_directory=True),
            os.mkfifo,
        )
    ):
        directory = tmp_path / str(number)
        make(folder(directory / "model", files()) / "weights.bin")
        refused_without_trace(directory / "model", "link or a device")


def test_d05_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MAX_MEMBERS", 20)
    many = {f"{number}.txt": b"" for number in range(21)}
    refused_without_trace(tar_of(tmp_path / "many.tgz", many), "more than 20")
    directories = []
    for number in range(50):
        info = tarfile.TarInfo(f"d{number}")
        info.type = tarfile.DIRTYPE
        directories.append((info, b""))
    refused_without_trace(tarred(tmp_path / "directories.tgz", directories), "more than 40")


def test_d03_a_tar_that_unpacks_a_thousandfold_is_refused(tmp_path: Path) -> None:
    refused_without_trace(tar_of(tmp_path / "bomb.tgz", {**files(), "zeros": bytes(8 * 2**20)}), "200 times")


def test_d03_an_archive_that_unpacks_to_more_than_may_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "MAX_TOTAL_BYTES", 1000)
    for make, name in ((zipped, "large.mar"), (tar_of, "large.tgz"), (folder, "large")):
        refused_without_trace(make(tmp_path / name, {**files(), "data": os.urandom(2000)}), "more than 1000 bytes")


def test_d03_a_header_that_declares_gigabytes_is_not_read_into_memory(tmp_path: Path) -> None:
    info = tarfile.TarInfo("././@PaxHeader")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    (tmp_path / "bad.tgz").write_bytes(gzip.compress(info.tobuf() + bytes(10_000)))
    refused_without_trace(tmp_path / "bad.tgz", "declares 4294967296 bytes")


@pytest.mark.parametrize("make", [zipped, tar_of])
def test_d03_an_archive_cut_short_is_refused(tmp_path: Path, make: Callable[[Path, Files], Path]) -> None:
    path = make(tmp_path / "short.mar", files(weights__bin=os.urandom(9000)))
    whole = path.read_bytes()
    for length in (0, 3, 20, 5000, len(whole) - 30):
        path.write_bytes(whole[:length])
        refused_without_trace(path, "archive")


def test_compiled_code_and_what_macs_add_is_left_out(packed: Callable[[Files], Path]) -> None:
    extra = {"__pycache__/handler.cpython-311.pyc": b"evil", "__MACOSX/._handler.py": b"x"}
    assert {name.removeprefix("echo/") for name in contents_of(packed({**files(), **extra}))} == set(files())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=6), cut=st.integers(0, 60)
)
@pytest.mark.parametrize("make", [zipped, tar_of], ids=["zip", "tar"])
def test_d05_mutated_archives_raise_nothing_but_our_errors(
    tmp_path: Path, make: Callable[[Path, Files], Path], edits: list[tuple[int, int]], cut: int
) -> None:
    path = make(tmp_path / "m.mar", files(weights__bin=b"weights" * 20))
    content = bytearray(path.read_bytes() if make is zipped else gzip.decompress(path.read_bytes()))
    for position, byte in edits:
        content[position % len(content)] = byte
    changed = bytes(content[: len(content) - cut])
    path.write_bytes(changed if make is zipped else gzip.compress(changed, 1, mtime=0))
    with contextlib.suppress(ArgosyError):
        unpack(path, tmp_path / "store")
    assert {entry.name for entry in tmp_path.iterdir()} <= {"m.mar", "store"}
