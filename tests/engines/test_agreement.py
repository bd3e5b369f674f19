"""The fast engine against the reference, greedy, token by token, on eight chat prompts.

Free-running answers part for good at the first near tie, and say nothing of the tokens after it. So every token is
judged: the fast engine answers, the reference reads prompt and answer in one pass, and each token must be the
reference's own choice, or the gap (the reference's log probability of its choice less that of the token) must be that
of a near tie. What was measured is in docs/conversion.md.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from argosy.core.engine import EngineSettings
from argosy.core.generation import GenerateRequest
from argosy.core.interfaces import Engine
from argosy.core.model import ModelFiles
from argosy.core.sampling import SamplingParams
from argosy.text.chat_template import load_chat_template
from argosy.text.tokenizer import load_tokenizer

torch = pytest.importorskip("torch", reason="needs the extra [transformers]")
transformers = pytest.importorskip("transformers", reason="needs the extra [transformers]")
pytest.importorskip("gguf", reason="needs the extra [transformers]")
dequantise = pytest.importorskip("argosy.engines.dequantise", reason="needs the extra [transformers]")
openvino_engine = pytest.importorskip("argosy.engines.openvino.engine", reason="needs the extra [openvino]")

NUM_TOKENS = 32
QUESTIONS = (
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "Explain how a refrigerator works.",
    "Write a Python function that adds two numbers.",
    "Translate 'good morning' to Spanish.",
    "Why is the sky blue?",
    "What is 12 times 7?",
    "Tell me a story about a dragon.",
)
# Everything in 32 bits, nothing rounded on the way: what then differs from the reference is the weights' rounding.
PRECISE = {"inference_precision": "f32", "dynamic_quantization_group_size": 0, "kv_cache_precision": "f32"}

pytestmark = [pytest.mark.slow, pytest.mark.anyio]


class Reference:
    """The model as transformers reads it, in float32, and what it thinks of others' answers."""

    def __init__(self, files: ModelFiles) -> None:
        source = dequantise.gguf_arguments(files.weights[0])
        self._model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32).eval()

    def gaps(self, prompt: tuple[int, ...], answer: list[int]) -> list[float]:
        """For every token: how much likelier the reference's own choice is there, in nats; 0 where they agree."""
        with torch.inference_mode():
            logits = self._model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        logprobs = logits.double().log_softmax(-1)
        chosen = logprobs.gather(1, torch.tensor(answer)[:, None])[:, 0]
        return list((logprobs.max(-1).values - chosen).tolist())


@pytest.fixture(scope="module")
def reference(smollm2_files: ModelFiles) -> Reference:
    return Reference(smollm2_files)


@pytest.fixture(scope="module")
def prompts(smollm2_files: ModelFiles) -> list[tuple[int, ...]]:
    tokenizer = load_tokenizer(smollm2_files)
    template = load_chat_template(smollm2_files, tokenizer)
    assert template is not None
    return [tuple(template.encode([{"role": "user", "content": text}], tokenizer)) for text in QUESTIONS]


@pytest.fixture(scope="module")
def ends(smollm2_files: ModelFiles) -> tuple[int, ...]:
    return tuple(load_tokenizer(smollm2_files).eos_token_ids)


async def answers(engine: Engine, prompts: list[tuple[int, ...]], ends: tuple[int, ...]) -> list[list[int]]:
    """The greedy answers, all in one batch."""
    sampling = SamplingParams(max_tokens=NUM_TOKENS, temperature=0.0, stop_token_ids=ends)

    async def answer(index: int) -> list[int]:
        request = GenerateRequest(request_id=f"r{index}", prompt_token_ids=prompts[index], sampling=sampling)
        async with aclosing(engine.generate(request)) as stream:
            return [token_id async for output in stream for token_id in output.token_ids]

    await engine.start()
    try:
        return list(await asyncio.gather(*(answer(index) for index in range(len(prompts)))))
    finally:
        await engine.close()


@pytest.mark.parametrize(
    ("engine_args", "least_agreement", "largest_gap"), [(PRECISE, 0.98, 0.15), ({}, 0.94, 1.0)], ids=["f32", "default"]
)
async def test_every_token_is_the_references_choice_or_a_near_tie(
    engine_args: dict[str, str | int | float | bool],
    least_agreement: float,
    largest_gap: float,
    smollm2_files: ModelFiles,
    reference: Reference,
    prompts: list[tuple[int, ...]],
    ends: tuple[int, ...],
    smollm2_cache: Path,
) -> None:
    settings = EngineSettings(
        max_model_len=512, max_num_seqs=8, kv_cache_bytes=2**26, engine_args=engine_args, cache_dir=smollm2_cache
    )
    engine = openvino_engine.OpenVinoEngine(smollm2_files, settings)
    found = await answers(engine, prompts, ends)
    gaps = [gap for prompt, answer in zip(prompts, found, strict=True) for gap in reference.gaps(prompt, answer)]
    assert len(gaps) >= len(prompts) * NUM_TOKENS // 2  # most answers are longer than the limit
    assert max(gaps) <= largest_gap
    assert sum(gap == 0 for gap in gaps) / len(gaps) >= least_agreement
