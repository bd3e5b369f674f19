"""`argosy archive`, as a person, a script, and somebody used to `torch-model-archiver` type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from handmade import HANDLER, TORCH, files, manifest, zipped

from argosy.cli.main import run

Answer = tuple[int, str, str]


@pytest.fixture
def archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """Run `argosy archive …` in a directory with a model's files; exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "handler.py").write_bytes(HANDLER)
    (tmp_path / "pytorch_model.bin").write_bytes((TORCH / "checkpoint.bin").read_bytes())
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "vocab.txt").write_text("words")
    (tmp_path / "model-config.yaml").write_text("minWorkers: 2\nbatchSise: 4\n")
    (tmp_path / "model-store").mkdir()

    def call(*arguments: str) -> Answer:
        code = run(["archive", *arguments])
        answer = capsys.readouterr()
        return code, answer.out, " ".join(answer.err.split())

    return call


def test_the_way_of_an_archive(archive: Callable[..., Answer], tmp_path: Path) -> None:
    code, out, err = archive(
        *("create", "t5", "--version", "1.0", "--serialized-file", "pytorch_model.bin", "--handler", "handler.py"),
        *("--extra-files", "config.json,vocab.txt", "-c", "model-config.yaml", "-o", "model-store"),
    )
    assert (code, out) == (0, "✓ model-store/t5.mar (t5 1.0, 5 files, 2.11 kB)\n")
    assert "pytorch_model.bin is a pickle" in err
    code, out, err = archive("verify", "model-store/t5.mar", "--store", str(tmp_path / "s"))
    assert code == 1
    assert "run `argosy archive convert t5.mar -o NEW.mar`" in err
    assert "did you mean 'batchSize'?" in err
    code, out, err = archive("convert", "model-store/t5.mar", "-o", "model-store/t5.mar", "--force")
    assert code == 0
    assert "✓ pytorch_model.bin → model.safetensors (2 tensors, 32 B)" in out
    assert "left behind: epoch, lr" in err
    code, out, err = archive("verify", "model-store/t5.mar", "--store", str(tmp_path / "s"), "--json")
    (verdict,) = json.loads(out)
    assert (code, verdict["is_good"], verdict["kinds"]) == (0, True, {"model.safetensors": "safetensors"})
    _, out, _ = archive("inspect", "model-store/t5.mar")
    assert "t5 1.0" in out
    assert "minWorkers: 2" in out
    _, out, _ = archive("inspect", "model-store/t5.mar", "--json")
    assert json.loads(out)["statement"]["manifest"]["model"]["serializedFile"] == "model.safetensors"
    assert (
        archive("prepare", "model-store/t5.mar", "--store", str(tmp_path / "s"))[1] == "✓ t5.mar asks for no packages\n"
    )


def test_the_flags_of_torch_model_archiver(archive: Callable[..., Answer]) -> None:
    for form, name in (("default", "old.mar"), ("zip-store", "old.mar"), ("tgz", "old.tar.gz"), ("no-archive", "old")):
        code, _, err = archive(
            *("create", "--model-name", "old", "-v", "2.0", "--handler", "handler.py", "--runtime", "python3"),
            *("--extra-files", "config.json", "--export-path", "model-store", "--archive-format", form, "-f"),
        )
        assert (code, err) == (0, "")
        _, out, _ = archive("inspect", f"model-store/{name}", "--json")
        assert (json.loads(out)["form"], json.loads(out)["statement"]["manifest"]["runtime"]) == (form, "python3")


def test_a_dry_run_writes_nothing(archive: Callable[..., Answer], tmp_path: Path) -> None:
    code, out, _ = archive("create", "t5", "--handler", "handler.py", "--dry-run", "--json")
    answer = json.loads(out)
    assert (code, answer["is_written"], answer["files"]) == (0, False, {"handler.py": len(HANDLER)})
    assert (
        "would write t5 (t5 1.0, 1 file, 94 B)"
        in archive("create", "t5", "--handler", "handler.py", "--dry-run", "--format", "folder", "-o", "t5")[1]
    )
    assert not (tmp_path / "t5.mar").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("create", "--handler", "handler.py"), "give the model's name once"),
        (("create", "a", "--model-name", "b", "--handler", "handler.py"), "give the model's name once"),
        (("create", "a", "--handler", "handler.py", "--format", "rar"), "use mar, zip-store, tgz or folder"),
        (("create", "a", "--handler", "handler.py", "-o", "gone"), "there is no directory gone: make it"),
        (("create", "a", "--handler", "handler.py", "-o", "gone/a.mar"), "there is no directory gone: make it"),
        (("create", "a"), "give --handler"),
        (("prepare", "good.mar", "--lock", "gone.txt"), "'gone.txt' does not exist"),
        (("create", "a", "--handler", "gone.py"), "no file gone.py"),
        (("inspect", "gone.mar"), "there is no archive at gone.mar"),
        (("inspect", "vocab.txt"), "vocab.txt is no archive"),
        (("convert", "good.mar"), "argosy archive convert good.mar -o NEW.mar"),
        (("create", "a", "--handler", "handler.py", "-o", "good.mar", "--dry-run"), "good.mar exists already"),
        (("convert", "good.mar", "-o", "good.mar"), "good.mar exists already"),
        (("prepare", "good.mar", "--lock", "vocab.txt", "--lock-only"), "give one of them"),
    ],
)
def test_mistakes_are_told_in_one_line(
    archive: Callable[..., Answer], tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    zipped(tmp_path / "good.mar", files())
    code, out, err = archive(*words)
    assert code in (1, 2)
    assert (out, err.startswith("error: ")) == ("", True)
    assert reason in err


def test_d18_inspect_writes_out_what_would_steer_the_terminal(archive: Callable[..., Answer], tmp_path: Path) -> None:
    contents = files(r__txt=b"numpy\x1b[2J\n", c__yaml=b'k: "\\e[31m"')
    contents["MAR-INF/MANIFEST.json"] = manifest(handler="handler.py", requirementsFile="r.txt", configFile="c.yaml")
    zipped(tmp_path / "m.mar", contents)
    code, out, _ = archive("inspect", "m.mar")
    assert (code, "\x1b" in out, r"numpy\x1b[2J" in out, r"\x1b[31m" in out) == (0, False, True, True)


def test_d05_verify_tells_why_a_hostile_archive_is_refused(archive: Callable[..., Answer], tmp_path: Path) -> None:
    zipped(tmp_path / "bad.mar", {**files(), "../evil.py": b"x"})
    zipped(tmp_path / "good.mar", files())
    code, out, err = archive("verify", "bad.mar", "good.mar", "--store", str(tmp_path / "s"))
    assert code == 1
    assert "'../evil.py' has a name that leads out of the archive" in err
    assert "✓ good.mar" in out


@pytest.mark.parametrize(
    ("source", "reason"),
    [(b"def handle(:\n", "handler.py, line 1"), (b"x = 1\n", "neither a function handle")],
)
def test_verify_reads_the_handler_and_runs_nothing(
    archive: Callable[..., Answer], tmp_path: Path, source: bytes, reason: str
) -> None:
    code = b"import pathlib\npathlib.Path('proof').mkdir()\n" + source
    zipped(tmp_path / "bad.mar", files(handler__py=code if b"x = 1" in source else source))
    _, _, err = archive("verify", "bad.mar", "--store", str(tmp_path / "s"))
    assert reason in err
    assert not (tmp_path / "proof").exists()
