"""Archives that are made: the original's rules and names, the same bytes every time, and nothing half-written."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
from handmade import HANDLER
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.artifacts.archives.containers import ArchiveForm
from argosy.artifacts.archives.creating import SUFFIXES, Ingredients, create_archive, plan_archive
from argosy.artifacts.archives.opening import unpack
from argosy.artifacts.archives.reading import read_archive
from argosy.core.errors import Conflict, SpecError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model's files."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    contents = {
        "handler.py": HANDLER,
        "code/model.py": b"class Net: ...\n",
        "weights.bin": bytes(range(256)) * 20,
        "tokens/vocab.txt": "".join(f"word{n} " for n in range(900)).encode(),
        "tokens/deep/merges.txt": b"a b\n",
        "tokens/.hidden/secret": b"x",
        "tokens/__pycache__/x.pyc": b"x",
        "requirements.txt": b"numpy\n",
        "model-config.yaml": b"batchSize: 4\n",
        "labels-1.txt": b"1",
        "labels-2.txt": b"2",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


EVERYTHING = Ingredients(
    model_name="t5-small",
    version="1.0",
    handler="handler.py:handle",
    serialized_file=Path("weights.bin"),
    model_file=Path("code/model.py"),
    extra_files=("tokens", " labels-*.txt ", "tokens/vocab.txt"),
    requirements_file=Path("requirements.txt"),
    config_file=Path("model-config.yaml"),
)


@pytest.mark.parametrize("form", ArchiveForm)
def test_everything_stands_at_the_top(here: Path, form: ArchiveForm) -> None:
    checked = create_archive(plan_archive(EVERYTHING), here / f"out{SUFFIXES[form]}", form)
    assert checked == read_archive(here / f"out{SUFFIXES[form]}")
    assert checked.form is form
    assert set(checked.files) == {
        "handler.py",
        "model.py",
        "weights.bin",
        "vocab.txt",
        "deep/merges.txt",
        "requirements.txt",
        "model-config.yaml",
        "labels-1.txt",
        "labels-2.txt",
    }
    statement = checked.statement
    assert (statement.config, statement.requirements) == ({"batchSize": 4}, "numpy\n")
    model = statement.manifest.model
    assert (model.model_name, model.handler, model.serialized_file) == ("t5-small", "handler.py:handle", "weights.bin")


@pytest.mark.parametrize("form", [ArchiveForm.MAR, ArchiveForm.ZIP_STORE, ArchiveForm.TGZ])
def test_the_same_files_give_the_same_bytes(here: Path, form: ArchiveForm) -> None:
    first, second = here / f"a{SUFFIXES[form]}", here / f"b{SUFFIXES[form]}"
    create_archive(plan_archive(EVERYTHING), first, form)
    for path in here.rglob("*.txt"):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    create_archive(plan_archive(EVERYTHING), second, form)
    assert first.read_bytes() == second.read_bytes()


def test_the_moment_is_written_when_somebody_says_which(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_archive(EVERYTHING).manifest.created_on == ""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1706696430")
    assert plan_archive(EVERYTHING).manifest.created_on == "31/01/2024 10:20:30"


def test_what_does_not_shrink_is_stored(here: Path) -> None:
    (here / "weights.bin").write_bytes(os.urandom(5000))
    (here / "labels-1.txt").write_bytes(bytes(3 * 2**20))  # shrinks so far that a reader would take it for a bomb
    create_archive(plan_archive(EVERYTHING), here / "out.mar", ArchiveForm.MAR)
    with zipfile.ZipFile(here / "out.mar") as archive:
        stored = {info.filename for info in archive.infolist() if info.compress_type == zipfile.ZIP_STORED}
    assert {"weights.bin", "labels-1.txt"} <= stored
    assert "vocab.txt" not in stored


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_name": "../evil"}, "modelName"),
        ({"version": "1 0"}, "modelVersion"),
        ({"runtime": "LSP"}, "C\\+\\+"),
        ({"handler": "gone.py"}, "no file gone.py"),
        ({"handler": "gone.py:run"}, "no file gone.py"),
        ({"handler": "handler.py:missing"}, "defines nothing called 'missing'"),
        ({"handler": "handler.py:a b"}, "FILE.py"),
        ({"extra_files": ("gone.txt",)}, "does not exist"),
        ({"extra_files": ("gone-*.txt",)}, "does not exist"),
        ({"extra_files": ("tokens", "other/vocab.txt")}, "would both be 'vocab.txt'"),
        ({"extra_files": ("other/HANDLER.py",)}, "would both be 'HANDLER.py'"),
        ({"extra_files": ("other",), "model_file": None}, "would be the archive's manifest"),
    ],
)
def test_d06_what_cannot_be_an_archive_is_refused(here: Path, changes: dict[str, object], reason: str) -> None:
    for name in ("vocab.txt", "HANDLER.py") if "model_file" not in changes else ("MAR-INF/MANIFEST.json",):
        (here / "other" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "other" / name).write_bytes(b"{}")
    fields = {field: getattr(EVERYTHING, field) for field in EVERYTHING.__struct_fields__} | changes
    with pytest.raises(SpecError, match=reason):
        plan_archive(Ingredients(**fields))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"def handle(data, context:\n", "line 1"),
        (b"x = 1\n", "neither a function handle"),
        (b"\x00", "not Python|null bytes"),
        (b"\xff\xfe\x00", "handler.py"),
        (b"(" * 100_000, "handler.py"),
    ],
)
def test_a_handler_that_cannot_work_is_told_at_once(here: Path, source: bytes, reason: str) -> None:
    (here / "handler.py").write_bytes(source)
    with pytest.raises(SpecError, match=reason):
        plan_archive(Ingredients(model_name="m", version="1", handler="handler.py"))


@pytest.mark.parametrize(
    "source",
    [
        b"from ts.torch_handler.base_handler import BaseHandler as handle\n",
        b"try:\n    import fast\nexcept ImportError:\n    def handle(data, context): ...\n",
        b"class Translator: ...\n",
        b"from library import *\n",
        b"handle = lambda data, context: data\n",
    ],
)
def test_handlers_of_many_kinds_are_taken(here: Path, source: bytes) -> None:
    (here / "handler.py").write_bytes(source)
    assert plan_archive(Ingredients(model_name="m", version="1", handler="handler")).files == {
        "handler.py": Path("handler.py")
    }


def test_an_archive_that_is_there_stays_unless_force_is_used(here: Path) -> None:
    plan = plan_archive(EVERYTHING)
    for form in (ArchiveForm.MAR, ArchiveForm.FOLDER):
        target = here / f"out{SUFFIXES[form]}"
        create_archive(plan, target, form)
        with pytest.raises(Conflict, match="--force"):
            create_archive(plan, target, form)
        create_archive(plan, target, form, force=True)
    with pytest.raises(Conflict, match="is no archive"):
        create_archive(plan, here / "tokens", ArchiveForm.FOLDER, force=True)
    assert (here / "tokens" / "vocab.txt").exists()


def test_f09_nothing_half_written_stays_when_writing_fails(here: Path) -> None:
    plan = plan_archive(EVERYTHING)
    (here / "out.mar").write_bytes(b"as before")
    (here / "weights.bin").unlink()
    for form, name in ((ArchiveForm.MAR, "out.mar"), (ArchiveForm.TGZ, "out.tar.gz"), (ArchiveForm.FOLDER, "out")):
        before = set(here.iterdir())
        with pytest.raises(FileNotFoundError):
            create_archive(plan, here / name, form, force=True)
        assert set(here.iterdir()) == before
    assert (here / "out.mar").read_bytes() == b"as before"


NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}(\.txt|\.json|/[a-z]{1,5}\.bin)", fullmatch=True)
# A zip that is none is refused, and Hypothesis knows how zips begin.
CONTENTS = st.binary(max_size=300).filter(lambda content: not content.startswith(b"PK"))


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(contents=st.dictionaries(NAMES, CONTENTS, min_size=1, max_size=5), form=st.sampled_from(ArchiveForm))
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, contents: dict[str, bytes], form: ArchiveForm
) -> None:
    place = tmp_path_factory.mktemp("round")
    for name, content in contents.items():
        (place / "files" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "files" / name).write_bytes(content)
    wanted = Ingredients(model_name="m", version="1", handler="base_handler", extra_files=(str(place / "files"),))
    target = place / f"m{SUFFIXES[form]}"
    create_archive(plan_archive(wanted), target, form)
    root = unpack(target, place / "store").root
    found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    found.pop("MAR-INF/MANIFEST.json")
    assert found == contents
