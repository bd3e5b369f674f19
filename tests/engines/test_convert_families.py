"""Every convertible family, tiny and with random weights: converted, and served by OpenVINO as by transformers."""

from __future__ import annotations

import importlib.util
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from argosy.core.engine import EngineSettings
from argosy.core.generation import GenerateRequest
from argosy.core.interfaces import Engine
from argosy.core.model import ModelFiles, ModelFormat, ModelInfo, ModelRef, ModelScheme
from argosy.core.sampling import SamplingParams
from argosy.engines.convert import CONVERTIBLE, TOOLS, WeightFormat, ensure_openvino_model, tool_versions

HAS_TOOLS = len(tool_versions()) == len(TOOLS) and importlib.util.find_spec("gguf") is not None
pytestmark = [
    pytest.mark.slow,
    pytest.mark.anyio,
    pytest.mark.skipif(not HAS_TOOLS, reason="needs the extra [convert]"),
]
PROMPT = (1, 17, 33, 5, 60, 9, 41)
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
# gemma3 is a reader of images, too; its text part is gemma3_text, which checkpoints without images name.
FAMILIES = sorted(CONVERTIBLE - {"gemma3"})


def write_tiny(family: str, directory: Path) -> ModelFiles:
    """A model of `family` whose weights 16 bits hold exactly."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **SIZES)
    model = transformers.AutoModelForCausalLM.from_config(config).half().float()
    model.save_pretrained(directory)
    info = ModelInfo(
        architecture=family, num_layers=2, hidden_size=32, num_heads=4, num_kv_heads=2, head_dim=8,
        vocab_size=64, max_model_len=256, dtype="f32", num_parameters=25_000, weight_bytes=100_000,
    )  # fmt: skip
    return ModelFiles(
        ref=ModelRef(scheme=ModelScheme.FILE, location=f"tiny-{family}"),
        root=directory,
        format=ModelFormat.SAFETENSORS,
        weights=(directory / "model.safetensors",),
        info=info,
        digest="sha256:" + "7" * 64,
    )


async def greedy(engine: Engine) -> list[int]:
    sampling = SamplingParams(max_tokens=16, temperature=0.0)
    request = GenerateRequest(request_id="r", prompt_token_ids=PROMPT, sampling=sampling)
    await engine.start()
    try:
        async with aclosing(engine.generate(request)) as stream:
            return [token_id async for output in stream for token_id in output.token_ids]
    finally:
        await engine.close()


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_converted_model_answers_as_the_checkpoint_does(family: str, tmp_path: Path) -> None:
    from argosy.engines.openvino.engine import OpenVinoEngine
    from argosy.engines.transformers import TransformersEngine

    files = write_tiny(family, tmp_path / "model")
    folder = await ensure_openvino_model(files, tmp_path / "cache", WeightFormat.FP16)
    weights = (folder / "openvino_model.xml", folder / "openvino_model.bin")
    converted = msgspec.structs.replace(files, root=folder, format=ModelFormat.OPENVINO, weights=weights)
    precise = {"inference_precision": "f32", "dynamic_quantization_group_size": 0, "kv_cache_precision": "f32"}
    settings = EngineSettings(engine_args=dict(precise), kv_cache_bytes=2**20, cache_dir=tmp_path)
    assert await greedy(OpenVinoEngine(converted, settings)) == await greedy(
        TransformersEngine(files, EngineSettings())
    )
