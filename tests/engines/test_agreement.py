"""The fast engine against the reference, greedy, token by token, on twelve prompts.

Free-running answers part for good at the first near tie, and say nothing of the tokens after it. So every token is
judged: the fast engine answers, the reference reads prompt and answer in one pass, and at each of the 48 positions the
token must be the reference's own choice, or the gap (the reference's log probability of its choice less that of the
token) must be that of a near tie. Measured gaps are in docs/conversion.md.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from argosy.core.engine import EngineSettings
from argosy.core.generation import GenerateRequest
from argosy.core.model import ModelFiles
from argosy.core.sampling import SamplingParams

torch = pytest.importorskip("torch", reason="needs the extra [transformers]")
transformers = pytest.importorskip("transformers", reason="needs the extra [transformers]")
gguf = pytest.importorskip("gguf", reason="needs the extra [transformers]")
openvino_engine = pytest.importorskip("argosy.engines.openvino.engine", reason="needs the extra [openvino]")

NUM_TOKENS = 48
# The first ids of twelve conversations are fixed and legible to no tokenizer: what is compared is arithmetic.
OPENING = (1, 4093, 198, 1780, 314, 260, 3575, 282)
CLOSING = (47, 2, 198, 1, 520, 9531, 198)
PROMPTS = [(*OPENING, 4649 + 211 * index, *CLOSING) for index in range(12)]


def as_f16(source: Path, target: Path) -> None:
    """The same weights as 16-bit floats, which no reader rounds. Source: gguf-py, the de-quantisation of llama.cpp."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name != "general.architecture":
            item = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], item)
    for tensor in reader.tensors:
        kind = tensor.tensor_type
        if kind is not gguf.GGMLQuantizationType.F32:
            kind = gguf.GGMLQuantizationType.F16
        weights = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        writer.add_tensor(tensor.name, gguf.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def f16_files(smollm2_files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    path = tmp_path_factory.mktemp("f16") / "model.gguf"
    as_f16(smollm2_files.weights[0], path)
    return msgspec.structs.replace(smollm2_files, root=path.parent, weights=(path,), digest="sha256:" + "f" * 64)


@pytest.fixture(scope="module")
def reference(f16_files: ModelFiles) -> Any:
    path = f16_files.weights[0]
    return transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)


async def greedy_answers(files: ModelFiles) -> list[list[int]]:
    engine = openvino_engine.OpenVinoEngine(files, EngineSettings(max_model_len=512, max_num_seqs=16))
    await engine.start()

    async def answer(index: int) -> list[int]:
        sampling = SamplingParams(max_tokens=NUM_TOKENS, temperature=0.0)
        request = GenerateRequest(request_id=f"r{index}", prompt_token_ids=PROMPTS[index], sampling=sampling)
        async with aclosing(engine.generate(request)) as stream:
            return [token_id async for output in stream for token_id in output.token_ids]

    try:
        return list(await asyncio.gather(*(answer(index) for index in range(len(PROMPTS)))))
    finally:
        await engine.close()


def gaps(model: Any, answers: list[list[int]]) -> list[float]:
    """For every token: how much likelier the reference's own choice is there, in nats; 0 where they agree."""
    found: list[float] = []
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.double().log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(answer)[:, None])[:, 0]
        found.extend((logprobs.max(-1).values - chosen).tolist())
    return found


@pytest.mark.slow
@pytest.mark.anyio
async def test_unrounded_weights_agree_but_for_near_ties(f16_files: ModelFiles, reference: Any) -> None:
    found = gaps(reference, await greedy_answers(f16_files))
    assert len(found) == len(PROMPTS) * NUM_TOKENS
    assert sum(gap == 0 for gap in found) / len(found) >= 0.97
    assert max(found) < 0.4


@pytest.mark.slow
@pytest.mark.anyio
async def test_q4_1_as_openvino_reads_it_is_no_worse_than_known(smollm2_files: ModelFiles, reference: Any) -> None:
    """OpenVINO rounds the zero points of Q4_1 weights: a known loss, held where it is until its reader is replaced."""
    found = gaps(reference, await greedy_answers(smollm2_files))
    assert sum(gap == 0 for gap in found) / len(found) >= 0.70
