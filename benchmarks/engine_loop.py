"""The engine without a server: a child process that answers batches of token ids as fast as it can.

`--through engine` drives the class behind `argosy serve` by its socket; `--through pipeline` steps OpenVINO GenAI's
own pipeline in one plain loop, with nothing of ours but the settings. Commands come as JSON lines on stdin, one per
round; each is answered by one JSON line on stdout. Between rounds the process sleeps in a read.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import msgspec

from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore, default_store_root
from argosy.core.engine import EngineSettings
from argosy.core.generation import GenerateRequest
from argosy.core.interfaces import Engine
from argosy.core.model import ModelFiles
from argosy.core.plugins import resolve
from argosy.core.sampling import SamplingParams
from argosy.engines import ENGINES, default_engine
from argosy.engines.openvino import sizing
from argosy.engines.openvino.preparation import prepare
from argosy.evals.probe import process_usage


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One round asked of the child."""

    prompts: list[list[int]]
    max_tokens: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the child answers."""

    tokens: int
    seconds: float


async def run_through_engine(files: ModelFiles, settings: EngineSettings) -> None:
    """Serve rounds by the engine's own socket."""
    engine: Engine = resolve(ENGINES, default_engine(files), "engine")(files, settings)
    await engine.start()
    serial = 0

    async def one(prompt: list[int], max_tokens: int) -> int:
        nonlocal serial
        serial += 1
        request = GenerateRequest(
            request_id=f"direct-{serial}",
            prompt_token_ids=tuple(prompt),
            sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
        )
        async with aclosing(engine.generate(request)) as outputs:
            return sum([len(output.token_ids) async for output in outputs])

    try:
        _say({"ready": True})
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = msgspec.json.decode(line, type=Round)
            began = time.perf_counter()
            counts = await asyncio.gather(*(one(prompt, asked.max_tokens) for prompt in asked.prompts))
            _say(Outcome(tokens=sum(counts), seconds=time.perf_counter() - began))
    finally:
        await engine.close()


def run_through_pipeline(files: ModelFiles, cache_dir: Path) -> None:
    """Serve rounds by OpenVINO GenAI's pipeline alone: the same prepared weights, the engine's scheduler settings."""
    prepared = asyncio.run(prepare(files, cache_dir, lambda _: None))
    genai, tensors, numpy = (importlib.import_module(name) for name in ("openvino_genai", "openvino", "numpy"))
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = 1280
    scheduler.max_num_seqs = sizing.DEFAULT_MAX_NUM_SEQS
    scheduler.max_num_batched_tokens = sizing.DEFAULT_MAX_NUM_BATCHED_TOKENS
    scheduler.enable_prefix_caching = True
    scheduler.dynamic_split_fuse = True
    tokenizer = genai.Tokenizer(str(prepared.vocabulary))
    pipeline = genai.ContinuousBatchingPipeline(str(prepared.model), tokenizer, scheduler, "CPU")
    serial = 0
    _say({"ready": True})
    for line in sys.stdin:
        asked = msgspec.json.decode(line, type=Round)
        config = genai.GenerationConfig(max_new_tokens=asked.max_tokens, ignore_eos=True, apply_chat_template=False)
        began = time.perf_counter()
        handles = []
        for prompt in asked.prompts:
            serial += 1
            ids = tensors.Tensor(numpy.array([prompt], dtype=numpy.int64))
            handles.append(pipeline.add_request(serial, ids, config))
        tokens = 0
        while pipeline.has_non_finished_requests():
            pipeline.step()
            for handle in handles:
                while handle.can_read():
                    tokens += sum(len(output.generated_ids) for output in handle.read().values())
        _say(Outcome(tokens=tokens, seconds=time.perf_counter() - began))


class EngineProcess:
    """The parent's view of such a child."""

    def __init__(self, model: str, through: str, settings: str = "{}") -> None:
        self._argv = [sys.executable, "-m", "benchmarks.engine_loop", "--model", model, "--through", through]
        self._argv += ["--settings", settings]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603  # our own module
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
        )
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.communicate()

    @property
    def pid(self) -> int:
        """The child's."""
        return self._running().pid

    def run(self, prompts: list[list[int]], max_tokens: int) -> Outcome:
        """One round."""
        pipe = cast("IO[bytes]", self._running().stdin)
        pipe.write(msgspec.json.encode(Round(prompts=prompts, max_tokens=max_tokens)) + b"\n")
        pipe.flush()
        return msgspec.json.decode(self._answer(), type=Outcome)

    def cpu_seconds(self) -> float:
        """CPU time of the child and its children."""
        return process_usage(self.pid).cpu_seconds

    def _answer(self) -> bytes:
        pipe = cast("IO[bytes]", self._running().stdout)
        while line := pipe.readline():
            if line.startswith(b"{"):
                return line
        raise RuntimeError(f"{' '.join(self._argv)} ended with {self._running().wait()}")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the engine process does not run")
        return self._process


def _say(value: Any) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def main() -> None:
    """The child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--through", choices=["engine", "pipeline"], default="engine")
    parser.add_argument("--settings", default="{}", help="EngineSettings as JSON, for --through engine")
    flags = parser.parse_args()
    store = ModelStore(default_store_root())
    files = store.find(parse_model_ref(flags.model))
    if files is None:
        sys.exit(f"{flags.model} is not in the store: argosy models pull {flags.model}")
    cache_dir = store.engine_cache_dir(files.digest)
    settings = msgspec.structs.replace(msgspec.json.decode(flags.settings, type=EngineSettings), cache_dir=cache_dir)
    ways: dict[str, Callable[[], None]] = {
        "engine": lambda: asyncio.run(run_through_engine(files, settings)),
        "pipeline": lambda: run_through_pipeline(files, cache_dir),
    }
    ways[flags.through]()


if __name__ == "__main__":
    main()
