"""The seq2seq engine against transformers `generate`, each alone in its process: 32 requests of mixed lengths at once.

`--python` names an interpreter that has torch and transformers; without it only our engine is measured. The rival
answers the same prompts one by one (what the GKE sample's handler does) and in padded batches of 32. Rounds alternate,
so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import msgspec
import uvloop

from argosy.artifacts.fetch import fetch
from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore
from argosy.core.engine import EngineSettings
from argosy.core.generation import GenerateRequest
from argosy.core.model import ModelFiles
from argosy.core.sampling import SamplingParams
from argosy.engines.seq2seq.engine import Seq2SeqEngine
from argosy.server.translation import T5_LANGUAGES, Wish, prompt_of
from argosy.text.tokenizer import load_tokenizer
from benchmarks.figures import Figure, Run
from benchmarks.torchserve_t5 import T5, TEXTS

MAX_TOKENS = 64
_RIVAL = """
import json, sys, time, torch
from transformers import AutoTokenizer, T5ForConditionalGeneration
asked = json.load(sys.stdin)
model = T5ForConditionalGeneration.from_pretrained(asked["model"]).eval()
tokenizer = AutoTokenizer.from_pretrained(asked["model"])
torch.set_num_threads(asked["threads"])
rates = {}
with torch.inference_mode():
    for size, count in ((1, 96), (32, 640)):
        prompts = (asked["prompts"] * count)[:count]
        model.generate(**tokenizer(prompts[:size], return_tensors="pt", padding=True))
        began = time.perf_counter()
        for start in range(0, count, size):
            model.generate(**tokenizer(prompts[start : start + size], return_tensors="pt", padding=True))
        rates[str(size)] = count / (time.perf_counter() - began)
print(json.dumps(rates))
"""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """One round of our engine."""

    requests_per_second: float
    tokens_per_second: float
    p99_ms: float


async def round_of(engine: Seq2SeqEngine, prompts: list[tuple[int, ...]], clients: int, count: int) -> Rate:
    """`count` requests by `clients` that ask again at once."""
    numbers, tokens, waits = iter(range(count)), 0, []

    async def ask() -> None:
        nonlocal tokens
        for number in numbers:
            began = time.perf_counter()
            sampling = SamplingParams(max_tokens=MAX_TOKENS, temperature=0.0, stop_token_ids=(1,))
            prompt = prompts[number % len(prompts)]
            request = GenerateRequest(request_id=str(number), prompt_token_ids=prompt, sampling=sampling)
            async with aclosing(engine.generate(request)) as outputs:
                answered = sum([len(output.token_ids) async for output in outputs])
            tokens += answered  # not in one statement with the wait, which would lose what others added meanwhile
            waits.append(time.perf_counter() - began)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(ask())
    seconds = time.perf_counter() - began
    p99_ms = 1e3 * sorted(waits)[int(0.99 * count)]
    return Rate(requests_per_second=count / seconds, tokens_per_second=tokens / seconds, p99_ms=p99_ms)


def rival_rates(python: str, prompts: list[str], threads: int) -> dict[str, float]:
    """Requests per second of transformers, one by one ("1") and in padded batches ("32")."""
    asked = json.dumps({"model": str(T5 / "model"), "prompts": prompts, "threads": threads})
    done = subprocess.run(  # noqa: S603  # the interpreter a person named, a program of our own
        [python, "-c", _RIVAL], input=asked, capture_output=True, text=True, check=True, timeout=300
    )
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, float])


async def measure(files: ModelFiles, cache_dir: Path, flags: argparse.Namespace, run: Run) -> list[Figure]:
    """All rounds, as figures."""
    texts = [prompt_of(Wish(text=text, source=source, target=target), T5_LANGUAGES) for source, target, text in TEXTS]
    tokenizer = load_tokenizer(files)
    engine = Seq2SeqEngine(files, EngineSettings(cache_dir=cache_dir))
    await engine.start()
    prompts = [tuple(tokenizer.encode(text)) for text in texts]
    ours, one_by_one, padded = [], [], []
    for _ in range(flags.rounds):
        ours.append(await round_of(engine, prompts, flags.clients, flags.requests))
        row = msgspec.to_builtins(ours[-1])
        if flags.python:
            rates = await asyncio.to_thread(rival_rates, flags.python, texts, flags.threads)
            one_by_one.append(rates["1"])
            padded.append(rates["32"])
            row |= {"one_by_one": rates["1"], "padded": rates["32"]}
        run.note(**row)
    await engine.close()
    mine = [rate.requests_per_second for rate in ours]
    tokens = (
        f"{max(rate.tokens_per_second for rate in ours):,.0f} tokens/s, p99 {min(rate.p99_ms for rate in ours):.0f} ms"
    )
    found = [Figure(what=f"seq2seq engine, {flags.clients} clients", values=mine, unit=" req/s", detail=tokens)]
    for name, rates, bar in (("one by one", one_by_one, 3.0), ("in padded batches of 32", padded, None)):
        if rates:
            ratios = [our / their for our, their in zip(mine, rates, strict=True)]
            detail = f"transformers: {max(rates):,.0f} req/s"
            found.append(Figure(what=f"against `generate` {name}", values=ratios, unit="×", bar=bar, detail=detail))
    return found


def main(arguments: list[str]) -> int:
    """Measure and report; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="", help="an interpreter with torch and transformers")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=6_000)
    parser.add_argument("--rounds", type=int, default=3)
    flags = parser.parse_args(arguments)
    run = Run("seq2seq")
    with tempfile.TemporaryDirectory(prefix="argosy-seq2seq-") as place:
        files = asyncio.run(fetch(parse_model_ref(f"file:{T5 / 'model'}"), ModelStore(Path(place) / "store")))
        found = uvloop.run(measure(files, Path(place) / "cache", flags, run))
    run.finish(found)
    return 0 if all(figure.is_met for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
