"""`argosy models`, as a person and as a script use it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.cli.main import run

Make = Callable[..., bytes]
Answer = tuple[int, str, str]


@pytest.fixture
def models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Run `argosy models …` on a store of its own; exit code, stdout, stderr."""

    def call(verb: str, *arguments: str) -> Answer:
        code = run(["models", verb, *arguments, "--store", str(tmp_path / "store")])
        answer = capsys.readouterr()
        return code, answer.out, answer.err

    return call


@pytest.fixture
def model(tmp_path: Path, make_gguf: Make) -> str:
    path = tmp_path / "mine.gguf"
    path.write_bytes(make_gguf())
    return str(path)


def test_a_model_comes_is_listed_verified_and_goes(models: Callable[..., Answer], model: str) -> None:
    assert models("list")[0] == 0
    code, out, _ = models("pull", model)
    assert code == 0
    assert "40 parameters" in out
    _, out, _ = models("list", "--json")
    (row,) = json.loads(out)
    assert (row["ref"], row["architecture"], row["num_parameters"]) == (f"file:{model}", "llama", 40)
    assert models("list")[1].startswith("MODEL")
    assert json.loads(models("show", model, "--json")[1])["info"]["num_layers"] == 1
    assert "2 heads of 4" in models("show", model)[1]
    assert json.loads(models("verify", "--json")[1]) == [{"ref": f"file:{model}", "ok": True, "error": None}]
    Path(model).unlink()
    assert models("rm", model, "--yes")[0] == 0
    assert json.loads(models("list", "--json")[1]) == []


def test_d12_verify_names_the_changed_file_and_fails(models: Callable[..., Answer], model: str) -> None:
    models("pull", model)
    content = bytearray(Path(model).read_bytes())
    content[-1] = 1
    Path(model).write_bytes(bytes(content))
    code, _, err = models("verify")
    assert code == 1
    assert "mine.gguf" in err.replace("\n", "")


def test_nothing_is_removed_unasked(models: Callable[..., Answer], model: str) -> None:
    models("pull", model)
    code, _, err = models("rm", model)
    assert code == 2
    assert "--yes" in err
    assert models("rm", model, "--dry-run")[0] == 0
    assert len(json.loads(models("list", "--json")[1])) == 1


def test_garbage_is_shown_before_it_goes(models: Callable[..., Answer], model: str, tmp_path: Path) -> None:
    models("pull", model)
    (tmp_path / "store" / "partial" / "left.part").write_bytes(b"x" * 1000)
    assert "would free 1 kB in 1 path" in models("gc", "--dry-run")[1]
    assert models("gc")[0] == 2
    assert json.loads(models("gc", "--yes", "--json")[1])["size_bytes"] == 1000


def test_errors_are_one_line_with_a_suggestion(models: Callable[..., Answer]) -> None:
    code, _, err = models("pull", "smolm2")
    assert code == 2
    assert err.startswith("error: ")
    assert "did you mean 'smollm2'" in err
    assert err.count("\n") == 1
    assert models("show", "smollm2")[0] == 2


def test_catalog_lists_the_default_model(models: Callable[..., Answer]) -> None:
    assert "smollm2" in models("catalog")[1]
    assert "smollm2" in {entry["name"] for entry in json.loads(models("catalog", "--json")[1])}
