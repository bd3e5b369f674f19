"""Object stores through fsspec, here with its in-memory file system under the name `s3`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from argosy.artifacts.fetch import fetch
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore
from argosy.core.errors import Forbidden

fsspec = pytest.importorskip("fsspec")
memory = pytest.importorskip("fsspec.implementations.memory")


@pytest.fixture
def bucket(make_gguf: Callable[..., bytes]) -> Iterator[None]:
    class ObjectStore(memory.MemoryFileSystem):  # type: ignore[misc,name-defined]
        protocol = "s3"

    fsspec.register_implementation("s3", ObjectStore, clobber=True)
    files = fsspec.filesystem("s3")
    files.pipe_file("s3://bucket/models/m.gguf", make_gguf() + b"\0" * 9_000_000)
    yield
    files.rm("s3://bucket", recursive=True)


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("text", ["s3://bucket/models/m.gguf", "s3://bucket/models"])
def test_objects_and_directories_of_them_are_pulled(store: ModelStore, text: str) -> None:
    files = asyncio.run(fetch(parse_model_ref(text), store, allow_sources=("s3://bucket/models",)))
    assert files.info.num_layers == 1
    assert files.weights[0].stat().st_size > 9_000_000
    store.verify(files.ref)


@pytest.mark.usefixtures("bucket")
@pytest.mark.parametrize("allowed", [(), ("s3://bucket/model",), ("s3://bucket2/",), ("gs://bucket/",)])
def test_d01_objects_need_an_allowed_prefix(store: ModelStore, allowed: tuple[str, ...]) -> None:
    with pytest.raises(Forbidden, match="--allow-source s3://bucket/"):
        asyncio.run(fetch(parse_model_ref("s3://bucket/models/m.gguf"), store, allow_sources=allowed))
