"""Pickles of PyTorch become safetensors, to the bit, without PyTorch and without running a word of them (D-04)."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from handmade import TORCH, files, manifest, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.artifacts.archives.converting import convert_archive, converted_name, run_child
from argosy.artifacts.archives.opening import open_archive
from argosy.artifacts.archives.torch_pickle import read_weights
from argosy.artifacts.safetensors import read_safetensors
from argosy.core.errors import ArtifactError, SpecError

# Written by PyTorch 2.13: tensors that lie whole, transposed, cut, repeated; and their bytes as PyTorch sees them.
EXPECTED = json.loads((TORCH / "zip.json").read_text())
DTYPES = {
    "torch.float32": "F32",
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
    "torch.int64": "I64",
    "torch.bool": "BOOL",
    "torch.float8_e4m3fn": "F8_E4M3",
    "torch.uint16": "U16",
}


def tensors_of(path: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    head = read_safetensors(path)
    data = path.read_bytes()[-head.data_bytes :] if head.data_bytes else b""
    return {each.name: (each.dtype, each.shape, data[each.begin : each.end].hex()) for each in head.tensors}


def read(path: Path) -> dict[str, Any]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        return dict(read_weights(path, mapped).tensors)


@pytest.mark.parametrize(("file", "missing"), [("zip.bin", set()), ("legacy.bin", {"f8", "u16"})])
def test_d04_every_tensor_comes_out_as_pytorch_sees_it(tmp_path: Path, file: str, missing: set[str]) -> None:
    answer = run_child(TORCH / file, tmp_path / "out.safetensors")
    assert (answer.error, answer.dropped) == ("", ())
    found = tensors_of(tmp_path / "out.safetensors")
    assert found == {
        name: (DTYPES[row["dtype"]], tuple(row["shape"]), row["hex"])
        for name, row in EXPECTED.items()
        if name not in missing
    }


def test_d04_a_zip_that_python_made_is_read_as_well(tmp_path: Path) -> None:
    """Its names carry no mark of UTF-8, which makes `zipfile` look for another codec."""
    with zipfile.ZipFile(TORCH / "zip.bin") as source, zipfile.ZipFile(tmp_path / "again.bin", "w") as again:
        for info in source.infolist():
            again.writestr(info.filename, source.read(info))
    run_child(TORCH / "zip.bin", tmp_path / "one.safetensors")
    assert run_child(tmp_path / "again.bin", tmp_path / "two.safetensors").error == ""
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_d04_an_archive_is_written_again_with_safetensors(tmp_path: Path) -> None:
    contents = files(pytorch_model__bin=(TORCH / "checkpoint.bin").read_bytes(), vocab__txt=b"words")
    contents["MAR-INF/MANIFEST.json"] = manifest(serializedFile="pytorch_model.bin")
    told: list[str] = []
    conversion = convert_archive(zipped(tmp_path / "old.mar", contents), tmp_path / "new.mar", on_file=told.append)
    (file,) = conversion.files
    assert (file.source, file.target, file.num_tensors, file.dropped) == (
        "pytorch_model.bin",
        "model.safetensors",
        2,
        ("epoch", "lr"),
    )
    assert told == ["pytorch_model.bin"]
    archive = open_archive(tmp_path / "new.mar", tmp_path / "s", url="new.mar", environments=tmp_path)
    assert archive.manifest.model.serialized_file == "model.safetensors"
    assert set(tensors_of(archive.root / "model.safetensors")) == {"weight", "bias"}
    assert (archive.root / "vocab.txt").read_bytes() == b"words"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.mar", "old.mar", "s"]


def test_shards_and_their_index_keep_together(tmp_path: Path) -> None:
    shard = "pytorch_model-0000{}-of-00002.bin"
    weights = (TORCH / "checkpoint.bin").read_bytes()
    index = {"metadata": {}, "weight_map": {"a": shard.format(1), "b": shard.format(2)}}
    contents = files() | {shard.format(1): weights, shard.format(2): weights}
    contents["pytorch_model.bin.index.json"] = json.dumps(index).encode()
    conversion = convert_archive(zipped(tmp_path / "old.mar", contents), tmp_path / "new.mar")
    with zipfile.ZipFile(tmp_path / "new.mar") as archive:
        written = json.loads(archive.read("model.safetensors.index.json"))
    assert set(written["weight_map"].values()) == {file.target for file in conversion.files}
    assert set(written["weight_map"].values()) <= set(conversion.archive.files)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch_model.bin", "model.safetensors"),
        ("sub/pytorch_model-00001-of-00003.bin", "sub/model-00001-of-00003.safetensors"),
        ("resnet18.pt", "resnet18.safetensors"),
        ("Net.PTH", "Net.safetensors"),
        ("weights", "weights.safetensors"),
    ],
)
def test_names_are_those_hugging_face_looks_for(name: str, expected: str) -> None:
    assert converted_name(name) == expected


@pytest.mark.parametrize("file", ["module.bin", "script.bin"])
def test_d04_what_is_more_than_tensors_is_named_and_can_be_left_out(tmp_path: Path, file: str) -> None:
    allowed = (TORCH / file).read_bytes()
    path = zipped(tmp_path / "old.mar", files(net__pt=allowed, w__bin=(TORCH / "zip.bin").read_bytes()))
    if file == "module.bin":
        with pytest.raises(SpecError, match=r"torch.nn.modules.linear.Linear.*--drop net.pt"):
            convert_archive(path, tmp_path / "new.mar")
    assert not (tmp_path / "new.mar").exists()
    conversion = convert_archive(path, tmp_path / "new.mar", drop=("net.pt",))
    assert set(conversion.archive.files) == {"handler.py", "w.safetensors"}
    with pytest.raises(SpecError, match="no file 'x' to drop"):
        convert_archive(path, tmp_path / "new.mar", drop=("x",), force=True)


class Call:
    """A pickle of this calls `function` when it is read."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("is_zip", [True, False])
def test_d04_a_pickle_that_calls_something_is_refused_by_that_name(tmp_path: Path, protocol: int, is_zip: bool) -> None:
    evil = pickle.dumps({"weight": Call(os.mkdir, str(tmp_path / "proof"))}, protocol)
    path = tmp_path / "evil.bin"
    path.write_bytes(evil)
    if is_zip:
        zipped(path, {"archive/data.pkl": evil})
    with pytest.raises(SpecError, match="asks for 'posix.mkdir'" if is_zip else "posix.mkdir|not one of PyTorch"):
        read(path)
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        # What a pickle may name is inert: it can be called, not changed, and gives nothing that can be called.
        (b"ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.", "no pickle of PyTorch"),
        (b"ctorch\nFloatStorage\n(K\x01tR.", "no pickle of PyTorch"),
        (b"ccollections\nOrderedDict\n)R.", "holds no tensors"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n(cbuiltins\neval\nK\x01)}tR.", "builtins.eval"),
        (b"ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nK\x01)}tR.", "built by something else"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00)))}tR.", "no storage"),
        (b"\x80\x02X\x02\x00\x00\x00hiQ.", "no storage"),
        (b"\x80\x02K\x01.", "holds a int"),
        (b"\x80\x02\x82\x01.", "no pickle of PyTorch"),
        (b"", "no pickle of PyTorch"),
        (b"\x80\x02" + b"(" * 1000, "no pickle of PyTorch"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\x00\x00.", "no pickle of PyTorch"),
    ],
)
def test_d04_programs_that_bend_the_machine(tmp_path: Path, program: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        read(zipped(tmp_path / "evil.bin", {"archive/data.pkl": program, "archive/version": b"3"}))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=5),
    file=st.sampled_from(["zip.bin", "legacy.bin"]),
)
def test_d04_mutated_pickles_raise_nothing_but_spec_errors(
    tmp_path: Path, edits: list[tuple[int, int]], file: str
) -> None:
    content = bytearray((TORCH / file).read_bytes())
    for position, byte in edits:
        content[position % len(content)] = byte
    path = tmp_path / "m.bin"
    path.write_bytes(bytes(content))
    with contextlib.suppress(SpecError):
        for name, view in read(path).items():
            assert isinstance(name, str)
            assert view.num_elements >= 0


ATTEMPTS = """
import json, os, socket, subprocess, sys
from pathlib import Path
from argosy.artifacts.archives import conversion_child
source, target = Path(sys.argv[1]), Path(sys.argv[2])
target.write_bytes(b"")
conversion_child._confine(source, target)
attempts = {
    "network": lambda: socket.create_connection(("127.0.0.1", 9)),
    "socket": socket.socket,
    "program": lambda: subprocess.run(["true"]),
    "shell": lambda: os.system("true"),
    "fork": os.fork,
    "other file": lambda: open("/etc/hostname"),
    "import": lambda: __import__("ftplib"),
    "memory": lambda: bytearray(8 * 2**30),
    "disk": lambda: os.truncate(target, 2**40),
}
done = []
for name, attempt in attempts.items():
    try:
        attempt()
        done.append(name)
    except Exception:
        pass
print(json.dumps(done))
"""


def test_d04_the_process_that_reads_may_do_nothing_else(tmp_path: Path) -> None:
    """What a fault in the reader might be used for, tried in a process confined as the real one is."""
    (tmp_path / "in").write_bytes(b"x" * 100)
    command = [sys.executable, "-I", "-c", ATTEMPTS, str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30, text=True)
    assert json.loads(done.stdout) == []


def test_d04_a_child_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="took longer than 0 s"):
        run_child(TORCH / "zip.bin", tmp_path / "out", timeout_seconds=0.001)


def test_d04_a_child_that_dies_is_told(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"the process that read gone\.bin failed"):
        run_child(tmp_path / "gone.bin", tmp_path / "out")
