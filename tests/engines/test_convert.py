"""Conversion: what is refused and what is found, without its tools; and one real conversion where they are."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import msgspec
import pytest

from argosy.core.errors import EngineError, SpecError
from argosy.core.model import ModelFiles, ModelFormat, ModelInfo, ModelRef, ModelScheme
from argosy.engines.convert import (
    INSTALL,
    MANIFEST,
    RECIPE,
    TOOLS,
    ConversionPhase,
    ConversionProgress,
    WeightFormat,
    ensure_openvino_model,
    folder_name,
    needs_conversion,
    tool_versions,
)

HAS_TOOLS = len(tool_versions()) == len(TOOLS) and importlib.util.find_spec("gguf") is not None
without_tools = pytest.mark.skipif(HAS_TOOLS, reason="the extra [convert] is installed")
with_tools = pytest.mark.skipif(not HAS_TOOLS, reason="needs the extra [convert]")

FILES = ModelFiles(
    ref=ModelRef(scheme=ModelScheme.HF, location="org/model"),
    root=Path("/models/m"),
    format=ModelFormat.SAFETENSORS,
    weights=(Path("/models/m/model.safetensors"),),
    info=ModelInfo(
        architecture="llama",
        num_layers=2,
        hidden_size=8,
        num_heads=2,
        num_kv_heads=1,
        head_dim=4,
        vocab_size=16,
        max_model_len=4096,
        dtype="bf16",
        num_parameters=1000,
        weight_bytes=2000,
    ),
    digest="sha256:" + "0" * 64,
)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def kept(cache: Path) -> set[str]:
    """What is left in the cache beside lock files."""
    return {name for name in names(cache) if not name.endswith(".lock")}


VERSIONS = {"optimum-intel": "2.2.0", "openvino": "2026.4.1"}


def of(architecture: str, model_format: ModelFormat = ModelFormat.SAFETENSORS) -> ModelFiles:
    info = msgspec.structs.replace(FILES.info, architecture=architecture)
    return msgspec.structs.replace(FILES, info=info, format=model_format)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (of("llama"), True),
        (of("llama", ModelFormat.OPENVINO), False),
        (of("llama", ModelFormat.GGUF), False),
        (of("qwen3", ModelFormat.GGUF), False),
        (of("gemma3", ModelFormat.GGUF), True),
    ],
)
def test_what_needs_conversion(files: ModelFiles, expected: bool) -> None:
    assert needs_conversion(files) is expected


def test_the_folder_is_named_for_all_that_it_was_made_of() -> None:
    name = folder_name("sha256:a", WeightFormat.INT8, VERSIONS)
    assert name == folder_name("sha256:a", WeightFormat.INT8, dict(reversed(VERSIONS.items())))
    others = [
        folder_name("sha256:b", WeightFormat.INT8, VERSIONS),
        folder_name("sha256:a", WeightFormat.INT4, VERSIONS),
        folder_name("sha256:a", WeightFormat.INT8, {**VERSIONS, "openvino": "2026.5.0"}),
    ]
    assert len({name, *others}) == 4


@pytest.mark.anyio
async def test_a_family_it_cannot_convert_is_refused_with_those_it_can(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"family 'mamba'.*gemma2.*qwen3.*--engine transformers"):
        await ensure_openvino_model(of("mamba"), tmp_path)


@without_tools
@pytest.mark.anyio
async def test_without_the_extra_it_says_which_command_installs_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="a safetensors checkpoint") as caught:
        await ensure_openvino_model(FILES, tmp_path)
    assert INSTALL in caught.value.message
    with pytest.raises(EngineError, match="a GGUF file of the family 'gemma3'"):
        await ensure_openvino_model(of("gemma3", ModelFormat.GGUF), tmp_path)


def made(cache_dir: Path, digest: str, weight_format: WeightFormat) -> Path:
    """A finished conversion by other tools."""
    folder = cache_dir / f"openvino-{weight_format}-0123456789abcdef"
    folder.mkdir()
    (folder / MANIFEST).write_bytes(msgspec.json.encode({"digest": digest, "recipe": str(RECIPE)}))
    return folder


@without_tools
@pytest.mark.anyio
async def test_without_the_extra_what_another_machine_made_is_used(tmp_path: Path) -> None:
    folder = made(tmp_path, FILES.digest, WeightFormat.INT8)
    assert await ensure_openvino_model(FILES, tmp_path) == folder
    with pytest.raises(EngineError, match="not installed"):
        await ensure_openvino_model(FILES, tmp_path, WeightFormat.INT4)
    with pytest.raises(EngineError, match="not installed"):
        await ensure_openvino_model(msgspec.structs.replace(FILES, digest="sha256:" + "1" * 64), tmp_path)


@with_tools
@pytest.mark.slow
@pytest.mark.anyio
async def test_a_checkpoint_is_converted_once_and_whole(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from tiny_llama import write_tiny_llama

    files = write_tiny_llama(tmp_path / "model")
    reports: list[ConversionProgress] = []
    cache = tmp_path / "cache"
    both = await asyncio.gather(
        ensure_openvino_model(files, cache, on_progress=reports.append), ensure_openvino_model(files, cache)
    )
    assert both[0] == both[1]
    assert {"openvino_model.xml", "openvino_model.bin", "config.json", MANIFEST} <= names(both[0])
    phases = list(dict.fromkeys(report.phase for report in reports))
    assert phases[-1] is ConversionPhase.DONE
    assert kept(cache) == {both[0].name}
    reports.clear()
    assert await ensure_openvino_model(files, cache, on_progress=reports.append) == both[0]
    assert reports == []


@with_tools
@pytest.mark.slow
@pytest.mark.anyio
async def test_a_broken_checkpoint_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    files = msgspec.structs.replace(FILES, root=tmp_path)
    cache = tmp_path / "cache"
    with pytest.raises(EngineError, match=r"converting hf:org/model .* has no \.safetensors file"):
        await ensure_openvino_model(files, cache)
    assert kept(cache) == set()


@with_tools
@pytest.mark.slow
@pytest.mark.anyio
async def test_cancelling_ends_the_child_and_leaves_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await ensure_openvino_model(msgspec.structs.replace(FILES, root=tmp_path), cache)
    assert kept(cache) == set()
