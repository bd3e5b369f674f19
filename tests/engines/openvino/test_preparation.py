"""A prepared model is made once, whole, by one process at a time, made again when damaged, and answers the same."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("openvino_genai")

from argosy.core.engine import EngineSettings
from argosy.core.errors import ArtifactError, EngineError, SpecError
from argosy.core.generation import GenerateRequest
from argosy.core.model import ModelFiles, ModelFormat
from argosy.core.sampling import Constraint, ConstraintKind, SamplingParams
from argosy.engines.openvino import preparation
from argosy.engines.openvino.engine import OpenVinoEngine
from argosy.engines.openvino.preparation import MANIFEST, Job, Said, Workplace, is_whole, prepare

pytestmark = pytest.mark.anyio
PROMPT = (9825, 42, 216, 33, 28, 216, 34, 28, 216, 35, 28, 216)


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
async def made(smollm2_files: ModelFiles, cache_dir: Path) -> Path:
    """The default model's folder, made once for this module."""
    return (await prepare(smollm2_files, cache_dir, lambda _: None)).model


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A cache of its own that holds the folder already."""
    target = tmp_path / made.name
    shutil.copytree(made, target, copy_function=shutil.copy2)
    return target


def modified(path: Path) -> int:
    return path.stat().st_mtime_ns


def suffixes(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


async def greedy(engine: OpenVinoEngine, constraint: Constraint | None = None) -> list[int]:
    params = SamplingParams(max_tokens=16, temperature=0.0, constraint=constraint)
    request = GenerateRequest(request_id="r", prompt_token_ids=PROMPT, sampling=params)
    return [token_id async for output in engine.generate(request) for token_id in output.token_ids]


@pytest.fixture
async def engine(smollm2_files: ModelFiles, made: Path) -> AsyncIterator[OpenVinoEngine]:
    engine = OpenVinoEngine(smollm2_files, EngineSettings(max_num_seqs=4, cache_dir=made.parent))
    await engine.start()
    yield engine
    await engine.close()


async def test_a_second_start_makes_nothing(smollm2_files: ModelFiles, made: Path) -> None:
    said: list[str] = []
    before = modified(made)
    assert (await prepare(smollm2_files, made.parent, said.append)).model == made
    assert said == []
    assert modified(made) == before


async def test_what_is_kept_answers_as_what_is_fresh(smollm2_files: ModelFiles, engine: OpenVinoEngine) -> None:
    said: list[str] = []
    fresh = OpenVinoEngine(smollm2_files, EngineSettings(max_num_seqs=4))  # no cache: prepared for this start alone
    fresh.report_start(said.append)
    await fresh.start()
    try:
        assert await greedy(fresh) == await greedy(engine)
    finally:
        await fresh.close()
    assert any("preparing weights for OpenVINO (once)" in line for line in said)
    assert fresh.start_seconds["prepare"] > engine.start_seconds["prepare"]


async def test_constraints_hold_on_a_prepared_model(engine: OpenVinoEngine) -> None:
    answer = await greedy(engine, Constraint(kind=ConstraintKind.CHOICE, choices=("abc",)))
    assert answer[-1] == 2  # the model's end token
    assert 1 <= len(answer[:-1]) <= 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "no manifest", "no sense"])
async def test_f09_a_damaged_folder_counts_as_none(copy: Path, damage: str) -> None:
    weights, manifest = copy / "openvino_model.bin", copy / MANIFEST
    assert is_whole(copy)
    if damage == "cut":
        os.truncate(weights, 1000)
    elif damage == "flipped":
        with weights.open("r+b") as file:
            file.write(b"\xff" * 8)
    elif damage == "missing":
        (copy / "vocabulary" / "openvino_detokenizer.bin").unlink()
    elif damage == "no manifest":
        manifest.unlink()
    else:
        manifest.write_bytes(b"{")
    assert not is_whole(copy)


def test_a_copy_with_other_times_is_whole(copy: Path) -> None:
    os.utime(copy / "openvino_model.xml", (1, 1))
    assert is_whole(copy)


async def test_a_damaged_folder_is_made_again(smollm2_files: ModelFiles, copy: Path) -> None:
    (copy / "openvino_model.xml").write_bytes(b"<net>")
    left = copy.parent / f".{copy.name}.aside-killed"
    left.mkdir()
    assert (await prepare(smollm2_files, copy.parent, lambda _: None)).model == copy
    assert is_whole(copy)
    assert not left.exists()


async def test_two_at_once_make_it_once(smollm2_files: ModelFiles, tmp_path: Path) -> None:
    said: list[list[str]] = [[], []]
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(prepare(smollm2_files, tmp_path, lines.append)) for lines in said]
    assert both[0].result() == both[1].result()
    makers = [lines for lines in said if any("once" in line for line in lines)]
    waiters = [lines for lines in said if lines == ["another process prepares this model"]]
    assert (len(makers), len(waiters)) == (1, 1)
    assert suffixes(tmp_path) == ["", ".lock"]


async def test_cancelling_leaves_nothing(smollm2_files: ModelFiles, tmp_path: Path) -> None:
    working = asyncio.Event()

    def say(line: str) -> None:
        if "rewriting" in line:
            working.set()

    task = asyncio.create_task(prepare(smollm2_files, tmp_path, say))
    await working.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert suffixes(tmp_path) == [".lock"]


async def test_a_broken_file_is_a_spec_error(smollm2_files: ModelFiles, tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(smollm2_files.weights[0].read_bytes()[: 2**20])
    broken = msgspec.structs.replace(smollm2_files, root=tmp_path, weights=(path,), digest="sha256:" + "1" * 64)
    with pytest.raises(SpecError, match="cannot be prepared for OpenVINO"):
        await prepare(broken, tmp_path, lambda _: None)


def test_f05_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    job = Job(sources=(), target=str(tmp_path / "aside"), with_model=True)
    failure = preparation._failure(job, "smollm2", Said(error="needs more", is_disk_full=True), b"", 1)
    assert isinstance(failure, ArtifactError)
    assert "too full" in failure.message
    assert "smollm2" in failure.message
    killed = preparation._failure(job, "smollm2", Said(activity="rewriting"), b"", -9)
    assert isinstance(killed, EngineError)
    assert "SIGKILL (out of memory?)" in killed.message


async def test_a_family_openvino_cannot_read_is_refused_with_the_remedy(
    smollm2_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.engines.convert.tool_versions", dict)  # as where the extra is not installed
    info = msgspec.structs.replace(smollm2_files.info, architecture="gemma3")
    with pytest.raises(SpecError, match=r"family 'gemma3'.*pip install 'argosy\[convert\]'"):
        await OpenVinoEngine(
            msgspec.structs.replace(smollm2_files, info=info), EngineSettings(cache_dir=tmp_path)
        ).start()
    checkpoint = msgspec.structs.replace(smollm2_files, format=ModelFormat.SAFETENSORS)
    with pytest.raises(SpecError, match=r"safetensors checkpoint.*pip install 'argosy\[convert\]'"):
        await prepare(checkpoint, tmp_path, lambda _: None)


def test_without_a_cache_the_workplace_goes_with_the_engine(tmp_path: Path) -> None:
    workplace = Workplace(None)
    folder = workplace.open()
    assert folder.is_dir()
    workplace.close()
    assert not folder.exists()
    kept = Workplace(tmp_path / "new")
    assert kept.open() == tmp_path / "new"
    kept.close()
    assert (tmp_path / "new").is_dir()
