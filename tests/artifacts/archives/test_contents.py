"""What a file is, is seen in its bytes: no name makes a pickle harmless, and none makes text a pickle (D-04)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
from handmade import HANDLER, TORCH, zipped
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.artifacts.archives.contents import ContentKind, kind_of
from argosy.core.errors import ArtifactError

WEIGHTS = OrderedDict(a=[1.0, 2.0], b={"c": (3, None)})


def npy(header: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(64)


def zip_bytes(contents: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return packed.getvalue()


PICKLE = pickle.dumps(WEIGHTS)
TEXT_PICKLE = pickle.dumps(WEIGHTS, 0)  # of an OrderedDict: it imports and calls
LONG = 17 * 2**20
SAFETENSORS = struct.pack("<Q", 2) + b"{}"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        *((pickle.dumps(WEIGHTS, protocol), ContentKind.PICKLE) for protocol in range(6)),
        (pickle.dumps([1], 0), ContentKind.PICKLE),
        (TEXT_PICKLE + b"\n\n\n", ContentKind.PICKLE),
        (TEXT_PICKLE + bytes(range(256)), ContentKind.PICKLE),
        (TEXT_PICKLE + bytes(LONG), ContentKind.PICKLE),
        (pickle.dumps(Path("x" * LONG), 0), ContentKind.PICKLE),
        (b"N0" * 100_000 + TEXT_PICKLE, ContentKind.PICKLE),
        (b"cos\nsystem\n(S'true'\ntR.", ContentKind.PICKLE),
        (b"(S'true'\nios\nsystem\n.more", ContentKind.PICKLE),
        (PICKLE[2:], ContentKind.PICKLE),
        (gzip.compress(PICKLE), ContentKind.PICKLE),
        (gzip.compress(TEXT_PICKLE), ContentKind.PICKLE),
        (zlib.compress(TEXT_PICKLE), ContentKind.PICKLE),
        (zip_bytes({"words.txt": TEXT_PICKLE}), ContentKind.PICKLE),
        (gzip.compress(b"I am a sentence."), ContentKind.OTHER),
        (b"cat\ndog\nRat\nbat.\n", ContentKind.OTHER),
        (b"cat\ndog\n.bat\n", ContentKind.OTHER),
        (b"GGUF\x03\0\0\0\0" + b"0" + TEXT_PICKLE, ContentKind.PICKLE),
        (b"X\x04\0\0\0\0\0\0{" + b"0" + TEXT_PICKLE + bytes(2000), ContentKind.PICKLE),
        (bz2.compress(PICKLE), ContentKind.PICKLE),
        (lzma.compress(PICKLE), ContentKind.PICKLE),
        (zlib.compress(PICKLE), ContentKind.PICKLE),
        (npy(b"{'descr': '|O', 'shape': (1,)}"), ContentKind.PICKLE),
        (npy(b"{'descr': '<f4', 'shape': (1,)}"), ContentKind.OTHER),
        (zip_bytes({"a.npy": npy(b"{'descr': '|O'}")}), ContentKind.PICKLE),
        (zip_bytes({"a.npy": npy(b"{'descr': '<f4'}")}), ContentKind.OTHER),
        (zip_bytes({"x/vocab.json": PICKLE}), ContentKind.PICKLE),
        (zip_bytes({"inner.zip": zip_bytes({"weights": PICKLE})}), ContentKind.PICKLE),
        (zip_bytes({"inner.zip": zip_bytes({"words.txt": b"words"})}), ContentKind.OTHER),
        (SAFETENSORS, ContentKind.SAFETENSORS),
        (b"GGUF" + bytes(20), ContentKind.GGUF),
        (HANDLER, ContentKind.OTHER),
        (b"", ContentKind.OTHER),
        (b".", ContentKind.OTHER),
        (b"I am a sentence.", ContentKind.OTHER),
        (b"N.", ContentKind.OTHER),
        (b'{"json": [1, 2.5]}', ContentKind.OTHER),
        (b"\x06\x00\x00\x00\x0eTransformerSpec\x00", ContentKind.OTHER),
        (b"\x0a\x10\x0a\x05<unk>\x15", ContentKind.OTHER),
        (bytes(4096), ContentKind.OTHER),
    ],
)
def test_d04_the_bytes_tell_the_kind(tmp_path: Path, content: bytes, kind: ContentKind) -> None:
    path = tmp_path / "vocab.txt"
    path.write_bytes(content)
    assert kind_of(path) is kind


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("zip.bin", ContentKind.PICKLE),
        ("legacy.bin", ContentKind.PICKLE),
        ("checkpoint.bin", ContentKind.PICKLE),
        ("module.bin", ContentKind.PICKLE),
        ("script.bin", ContentKind.TORCHSCRIPT),
    ],
)
def test_d04_what_pytorch_writes(file: str, kind: ContentKind) -> None:
    assert kind_of(TORCH / file) is kind


def test_d04_zips_in_zips_without_end_are_refused(tmp_path: Path) -> None:
    content = b"words"
    for _ in range(5):
        content = zip_bytes({"inner.zip": content})
    (tmp_path / "deep.zip").write_bytes(content)
    with pytest.raises(ArtifactError, match="deep"):
        kind_of(tmp_path / "deep.zip")


def test_d05_a_bomb_inside_a_zip_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.zip", {"zeros": bytes(4 * 2**20)})
    with pytest.raises(ArtifactError, match="times"):
        kind_of(path)


OBJECTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(OBJECTS, min_size=1, max_size=3), st.integers(0, 5))
def test_d04_every_pickle_is_seen(tmp_path: Path, value: list[Any], protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(value, protocol))
    assert kind_of(path) is ContentKind.PICKLE


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200))
def test_prose_is_no_pickle(tmp_path: Path, text: str) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(f"The words: {text}".encode())
    assert kind_of(path) is ContentKind.OTHER
