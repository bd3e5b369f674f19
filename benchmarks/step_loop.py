"""The engine's batch, stepped one by one with what each step carries known.

It is the class inside the engine's process, with the pipeline and settings of `argosy serve`; what is left out is the
socket to the server. The library does not tell what it puts into a step, so its rule is followed here (every running
answer gains a token, then prompts in order of arrival, up to `max_num_batched_tokens`), and after each step the answers
that gained a token must be those the rule says.
"""

from __future__ import annotations

import asyncio
import time

import msgspec

from argosy.artifacts.reference import parse_model_ref
from argosy.artifacts.store import ModelStore, default_store_root
from argosy.core.engine import EngineSettings
from argosy.core.sampling import SamplingParams
from argosy.engines.openvino import loading, sizing
from argosy.engines.openvino.generation_config import generation_config
from argosy.engines.openvino.messages import Load, Submit, encode
from argosy.engines.openvino.preparation import prepare
from argosy.engines.openvino.scorer import Scorer
from argosy.engines.openvino.worker import Batch
from argosy.simulator.step_times import attended_tokens

LONGEST_ANSWER = 2000


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step: what it carried, as `argosy.simulator.step_times.step_seconds` asks, and its seconds."""

    kind: str
    case: str
    prompt_tokens: int
    prompt_context_tokens: int
    num_sequences: int
    context_tokens: int
    is_size_new: bool
    seconds: float


class _Sequence(msgspec.Struct, kw_only=True):
    prompt_tokens: int
    computed: int  # tokens of it in the KV cache
    is_decoding: bool = False


class StepLoop:
    """Requests in, steps out."""

    def __init__(self, model: str, num_threads: int | None = None) -> None:
        store = ModelStore(default_store_root())
        files = store.find(parse_model_ref(model))
        if files is None:
            raise SystemExit(f"{model} is not in the store: argosy models pull {model}")
        cache_dir = store.engine_cache_dir(files.digest)
        settings = EngineSettings(cache_dir=cache_dir, num_threads=num_threads)
        prepared = asyncio.run(prepare(files, cache_dir, lambda _: None))
        self.max_model_len = files.info.max_model_len
        load = Load(
            model_path=str(prepared.model),
            vocabulary_path=str(prepared.vocabulary or ""),
            settings=settings,
            kv_cache_tokens=sizing.kv_cache_tokens(files.info, settings, self.max_model_len),
        )
        loaded = loading.load_pipeline(load)
        self.kv_cache_tokens = loaded.kv_cache_tokens
        self.max_num_seqs = loaded.max_num_seqs
        self.max_num_batched_tokens = sizing.DEFAULT_MAX_NUM_BATCHED_TOKENS
        self.steps: list[Step] = []
        self._batch = Batch(loaded.pipeline, Scorer(_refuse_log_probabilities))
        self._sequences: dict[int, _Sequence] = {}
        self._serial = 0
        self._submit_seconds = 0.0
        self._last_size = 0

    @property
    def num_open(self) -> int:
        """Requests that have not ended."""
        return len(self._sequences)

    @property
    def is_prefilling(self) -> bool:
        """Whether any prompt is not computed to its end."""
        return any(not sequence.is_decoding for sequence in self._sequences.values())

    def submit(
        self, prompt: list[int], *, cached: int = 0, max_tokens: int = LONGEST_ANSWER, temperature: float = 0.0
    ) -> int:
        """A request for the next step; its number. cached: tokens of the prompt known from earlier ones."""
        self._serial += 1
        params = SamplingParams(max_tokens=max_tokens, temperature=temperature, ignore_eos=True)
        config = generation_config(params, fallback_seed=self._serial)
        began = time.perf_counter()
        self._batch.submit(Submit(number=self._serial, prompt_token_ids=tuple(prompt), config=config))
        self._submit_seconds += time.perf_counter() - began
        self._sequences[self._serial] = _Sequence(prompt_tokens=len(prompt), computed=cached)
        return self._serial

    def step(self, kind: str, case: str) -> Step:
        """One step, kept in `steps`; what was submitted since the last one is part of its time."""
        pieces = self._pieces()
        decoding = [one for one in self._sequences.values() if one.is_decoding]
        prompt_tokens = sum(pieces.values())
        size = prompt_tokens + len(decoding)
        known = [(self._sequences[number].computed, piece) for number, piece in pieces.items()]
        began = time.perf_counter()
        report = self._batch.step()
        encode(report)
        done = Step(
            kind=kind,
            case=case,
            prompt_tokens=prompt_tokens,
            prompt_context_tokens=sum(attended_tokens(prompt_tokens=new, cached_tokens=old) for old, new in known),
            num_sequences=len(decoding) + len(pieces),
            context_tokens=sum(one.computed for one in decoding) + sum(old for old, _ in known),
            is_size_new=size != self._last_size,
            seconds=time.perf_counter() - began + self._submit_seconds,
        )
        self._last_size, self._submit_seconds = size, 0.0
        self._advance(pieces, {gain.number: gain.ending for gain in report.gains})
        self.steps.append(done)
        return done

    def prefill(self, kind: str, case: str) -> None:
        """Step until every prompt is computed."""
        while self.is_prefilling:
            self.step(kind, case)

    def clear(self) -> None:
        """Forget all requests."""
        for number in self._sequences:
            self._batch.cancel(number)
        self._sequences.clear()
        while self._batch.is_busy:
            self._batch.step()

    def _pieces(self) -> dict[int, int]:
        budget = self.max_num_batched_tokens - sum(one.is_decoding for one in self._sequences.values())
        pieces = {}
        for number, sequence in self._sequences.items():
            if not sequence.is_decoding and budget > 0:
                pieces[number] = min(sequence.prompt_tokens - sequence.computed, budget)
                budget -= pieces[number]
        return pieces

    def _advance(self, pieces: dict[int, int], endings: dict[int, str | None]) -> None:
        expected = set()
        for number, sequence in self._sequences.items():
            if sequence.is_decoding:
                sequence.computed += 1
            sequence.computed += pieces.get(number, 0)
            sequence.is_decoding = sequence.computed >= sequence.prompt_tokens
            if sequence.is_decoding:
                expected.add(number)
        if expected != endings.keys():
            raise RuntimeError(
                f"{expected ^ endings.keys()} gained against the rule: the library batches otherwise now"
            )
        for number, ending in endings.items():
            if ending is not None:
                del self._sequences[number]


def _refuse_log_probabilities() -> None:
    raise RuntimeError("no request here asks for log probabilities")
