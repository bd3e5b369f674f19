"""An archive is unpacked once, whole or not at all, and what a server may not run it does not get."""

from __future__ import annotations

import errno
import os
import pickle
import random
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from handmade import HANDLER, TORCH, Files, files, folder, manifest, tar_of, zipped

from argosy.artifacts.archives.contents import ContentKind
from argosy.artifacts.archives.opening import open_archive
from argosy.core.errors import ArtifactError, NotFound, SpecError
from argosy.core.model_archive import ModelArchive


def opened(path: Path, *, allowed: frozenset[ContentKind] = frozenset(), url: str = "") -> ModelArchive:
    store = path.parent / "store"
    return open_archive(
        path, store / "archives", url=url or path.name, environments=store / "environments", allowed=allowed
    )


def test_every_form_gives_the_same_model(tmp_path: Path) -> None:
    contents = files(model_config__yaml=b"minWorkers: 2\nhandler: {beams: 4}", vocab__txt=b"words")
    contents["MAR-INF/MANIFEST.json"] = manifest(configFile="model_config.yaml")
    found = [
        opened(zipped(tmp_path / "echo.mar", contents)),
        opened(tar_of(tmp_path / "echo.tar.gz", contents)),
        opened(tar_of(tmp_path / "flat.tar.gz", contents, top="")),
        opened(folder(tmp_path / "echo", contents)),
    ]
    assert len({archive.digest for archive in found}) == 1
    assert len({archive.root for archive in found}) == 1
    (archive, *_) = found
    assert (archive.url, archive.manifest.model.model_name, archive.environment) == ("echo.mar", "echo", None)
    assert archive.config == {"minWorkers": 2, "handler": {"beams": 4}}
    assert {path.relative_to(archive.root).as_posix() for path in archive.root.rglob("*") if path.is_file()} == set(
        contents
    )
    assert {path.stat().st_mode & 0o777 for path in archive.root.rglob("*") if path.is_file()} == {0o444}


def test_without_a_manifest_the_url_names_the_model(tmp_path: Path) -> None:
    first = opened(zipped(tmp_path / "my.net.mar", {"handler.py": HANDLER}))
    second = opened(tar_of(tmp_path / "other.tgz", {"handler.py": HANDLER}), url="https://h/store/other.mar")
    assert (first.manifest.model.model_name, second.manifest.model.model_name) == ("my_net", "other")
    assert first.digest == second.digest
    assert (second.manifest.model.model_version, second.manifest.model.handler) == ("1.0", "")


def test_the_second_time_nothing_is_unpacked(packed: Callable[[Files], Path]) -> None:
    path = packed(files(weights__bin=b"w" * 1000))
    first = opened(path)
    places = {each: each.stat().st_ino for each in first.root.rglob("*")}
    assert opened(path) == first
    assert {each: each.stat().st_ino for each in first.root.rglob("*")} == places


def test_a_changed_archive_is_another_model(packed: Callable[[Files], Path]) -> None:
    first = opened(packed(files(vocab__txt=b"old")))
    second = opened(packed(files(vocab__txt=b"new words")))
    assert first.digest != second.digest
    assert (first.root / "vocab.txt").read_bytes() == b"old"
    assert (second.root / "vocab.txt").read_bytes() == b"new words"


@pytest.mark.parametrize(
    "tamper", [lambda file: file.unlink(), lambda file: (file.chmod(0o644), file.write_bytes(b"evil"))]
)
def test_d12_what_was_changed_in_the_store_is_unpacked_again(tmp_path: Path, tamper: Callable[[Path], object]) -> None:
    path = zipped(tmp_path / "echo.mar", files())
    first = opened(path)
    tamper(first.root / "handler.py")
    assert opened(path) == first
    assert (first.root / "handler.py").read_bytes() == HANDLER


def test_many_at_once_unpack_one(tmp_path: Path) -> None:
    paths = [zipped(tmp_path / f"{number}.mar", files(weights__bin=b"w" * 100_000)) for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(opened, paths * 2))
    assert len({archive.root for archive in found}) == 1
    assert (found[0].root / "handler.py").read_bytes() == HANDLER
    assert not list((tmp_path / "store" / "archives" / "partial").iterdir())


def test_a_store_that_cannot_be_written_serves_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "echo.mar", files())
    first = opened(path)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "here")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert opened(path) == first
    with pytest.raises(ArtifactError, match=r"other\.mar cannot be unpacked .*Read-only file system.*--store"):
        opened(zipped(tmp_path / "other.mar", files(vocab__txt=b"x")))


@pytest.mark.parametrize("file", ["zip.bin", "legacy.bin", "module.bin"])
def test_d04_pickles_are_refused_with_the_command_that_converts_them(
    packed: Callable[[Files], Path], file: str
) -> None:
    path = packed(files(weights__safetensors=(TORCH / file).read_bytes()))
    with pytest.raises(SpecError, match=r"weights.safetensors is a pickle.*argosy archive convert \S+ -o NEW.mar"):
        opened(path)
    assert opened(path, allowed=frozenset({ContentKind.PICKLE})).digest


def test_d04_programs_of_torchscript_are_refused_unless_allowed(tmp_path: Path) -> None:
    path = zipped(tmp_path / "echo.mar", files(model__pt=(TORCH / "script.bin").read_bytes()))
    for allowed in (frozenset(), frozenset({ContentKind.PICKLE})):
        with pytest.raises(SpecError, match="--allow-content torchscript"):
            opened(path, allowed=allowed)
    assert opened(path, allowed=frozenset({ContentKind.TORCHSCRIPT})).digest


class Marker:
    """A pickle of this makes a directory when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_d04_a_pickle_is_never_read_on_the_way(tmp_path: Path) -> None:
    for protocol in range(6):
        evil = pickle.dumps(Marker(tmp_path / "proof"), protocol)
        with pytest.raises(SpecError, match="pickle"):
            opened(zipped(tmp_path / f"{protocol}.mar", files(weights__bin=evil)))
    assert not (tmp_path / "proof").exists()


def test_code_of_an_archive_is_not_run_when_it_is_opened(tmp_path: Path) -> None:
    code = f"import pathlib\npathlib.Path({str(tmp_path / 'proof')!r}).mkdir()\ndef handle(data, context): ...\n"
    assert opened(zipped(tmp_path / "echo.mar", files(handler__py=code.encode()))).digest
    assert not (tmp_path / "proof").exists()


def test_d08_damaged_weights_are_refused_naming_archive_and_field(tmp_path: Path) -> None:
    header = b'{"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}}'
    damaged = struct.pack("<Q", len(header)) + header + bytes(8)
    with pytest.raises(SpecError, match=r"echo.mar: w.safetensors: 'w.data_offsets'"):
        opened(zipped(tmp_path / "echo.mar", files(w__safetensors=damaged)))


def test_d14_nothing_is_installed_when_an_archive_is_opened(tmp_path: Path) -> None:
    contents = files(requirements__txt=b"num2words==0.5.14\n# a comment\n")
    contents["MAR-INF/MANIFEST.json"] = manifest(requirementsFile="requirements.txt")
    path = zipped(tmp_path / "echo.mar", contents)
    with pytest.raises(SpecError, match=r"num2words==0.5.14.*argosy archive prepare \S+echo.mar --store \S+`"):
        opened(path)
    assert not (tmp_path / "store" / "environments").exists()
    contents["requirements.txt"] = b"# nothing\n\n"
    assert opened(zipped(path, contents)).environment is None


def test_d14_a_requirements_file_that_fetches_from_anywhere_is_refused(tmp_path: Path) -> None:
    contents = files(requirements__txt=b"--extra-index-url http://evil.example/\nnum2words\n")
    contents["MAR-INF/MANIFEST.json"] = manifest(requirementsFile="requirements.txt")
    with pytest.raises(SpecError, match="line 1 is '--extra-index-url"):
        opened(zipped(tmp_path / "echo.mar", contents))


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({"MAR-INF/MANIFEST.json": manifest()}, "no file but its manifest"),
        ({**files(), "MAR-INF/MANIFEST.json": random.Random(1).randbytes(2**20 + 1)}, "may have 1048576"),
        ({**files(), "MAR-INF/MANIFEST.json": manifest(handler="gone.py")}, "gone.py"),
        ({**files(c=b"\xff"), "MAR-INF/MANIFEST.json": manifest(requirementsFile="c")}, "not UTF-8"),
        ({**files(c=b"[1]"), "MAR-INF/MANIFEST.json": manifest(configFile="c")}, "must be a map"),
    ],
)
def test_what_says_something_wrong_is_refused(packed: Callable[[Files], Path], contents: Files, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        opened(packed(contents))


def test_a_manifest_below_other_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="does not stand above"):
        opened(zipped(tmp_path / "echo.mar", {"a/MAR-INF/MANIFEST.json": manifest(), "handler.py": HANDLER}))


def test_there_is_no_archive(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"no archive at .*gone.mar"):
        opened(tmp_path / "gone.mar")


def test_d03_a_full_disk_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zipped(tmp_path / "echo.mar", files(weights__bin=os.urandom(1000)))
    monkeypatch.setattr("shutil.disk_usage", lambda _: FullDisk())
    with pytest.raises(ArtifactError, match="is full"):
        opened(path)
    assert not [each for each in (tmp_path / "store").rglob("*") if each.is_file()]


class FullDisk:
    """A disk with nothing left."""

    free = 0
