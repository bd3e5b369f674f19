"""A name clients use = an engine + a tokenizer + a chat template + adapters + a door (admission)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from argosy.core.adapter import Adapter
from argosy.core.engine import EngineFeature, EngineInfo, EngineStats
from argosy.core.errors import ArgosyError, ContextLengthExceeded, InvalidRequest, UnsupportedParameter
from argosy.core.interfaces import EmbeddingSupport, Engine
from argosy.core.model import ModelInfo
from argosy.observe.metrics import Metrics
from argosy.serving.admission import Admission
from argosy.serving.admission_policy import AdmissionLimits
from argosy.serving.generation import Generation, Machinery
from argosy.serving.meters import ModelMeters
from argosy.serving.options import ChatPrompt, EmbedResult, GenerateOptions, PreparedRequest
from argosy.serving.prefix_record import PrefixRecord
from argosy.serving.preparation import (
    Checked,
    check_lengths,
    check_token_ids,
    engine_requests,
    supported_defaults,
)
from argosy.serving.tool_choice import ToolPlan, plan_tools
from argosy.text.chat_template import ChatTemplate
from argosy.text.tokenizer import Tokenizer
from argosy.text.tool_calls import ToolFormat, detect_tool_format

logger = logging.getLogger(__name__)

_LONG_TEXT_CHARACTERS = 4_000  # about 1 ms of tokenising: more goes to a thread, so that the loop never waits.
_MAX_CHARACTERS_PER_TOKEN = 256  # No vocabulary has longer ones; beyond it a prompt is too long unseen.


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a served model is. root: the model reference it was loaded from. created: unix seconds."""

    name: str
    root: str
    created: int
    info: ModelInfo


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """How a served model reads and writes. chat_template: None for a base model."""

    tokenizer: Tokenizer
    chat_template: ChatTemplate | None = None


class ServedModel:
    """What protocols talk to: prepare a request (checks), then generate (permits, engine, text)."""

    def __init__(
        self,
        identity: Identity,
        engine: Engine,
        language: Language,
        *,
        metrics: Metrics,
        limits: AdmissionLimits | None = None,
        deadline_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`engine` has been started. deadline_seconds: for requests that bring none, and the most they may bring.

        Units: clock in seconds, monotonic (F-11).
        """
        self.name = identity.name
        self.info = identity.info
        self.created = identity.created
        self.root = identity.root
        self.adapters: dict[str, Adapter] = {}
        self.engine_info: EngineInfo = engine.info
        self.max_model_len = engine.info.max_model_len
        self._engine = engine
        self._deadline_seconds = deadline_seconds
        self._tokenizer = language.tokenizer
        self._template = language.chat_template
        source = language.tokenizer.chat_template if language.chat_template else None
        self._tool_format = detect_tool_format(source) if source else None
        defaults, dropped = supported_defaults(identity.info.sampling_defaults, engine.info.features)
        if dropped:
            logger.warning("model defaults the engine lacks are not used", extra={"fields": dropped})
        self._checked = Checked(
            engine=engine.info,
            vocab_size=language.tokenizer.vocab_size,
            max_model_len=self.max_model_len,
            eos_token_ids=language.tokenizer.eos_token_ids,
            defaults=defaults,
        )
        meters = ModelMeters(metrics, identity.name)
        meters.describe(engine.info)
        limits = limits or AdmissionLimits(max_running=engine.info.max_num_seqs)
        self._admission = Admission(limits, clock, meters.refused)
        self._machinery = Machinery(
            engine=engine,
            tokenizer=language.tokenizer,
            admission=self._admission,
            meters=meters,
            clock=clock,
            running=set(),
            prefixes=PrefixRecord(engine.info.kv_cache_tokens) if _keeps_prefixes(engine.info) else None,
        )
        metrics.before_scrape(self._sample)

    @property
    def supports_chat(self) -> bool:
        """Whether the model has a chat template."""
        return self._template is not None

    @property
    def supports_tools(self) -> bool:
        """Whether the chat template shows tools and we can parse the calls it makes."""
        return self._template is not None and self._template.supports_tools and self._tool_format is not None

    @property
    def supports_embeddings(self) -> bool:
        """Whether the engine gives vectors."""
        return isinstance(self._engine, EmbeddingSupport)

    @property
    def prefixes(self) -> PrefixRecord | None:
        """What the prefix cache holds; None without one."""
        return self._machinery.prefixes

    @property
    def generation_tokens(self) -> int:
        """Generated so far, by every request."""
        return int(self._machinery.meters.generation_tokens.value)

    async def prepare_chat(self, prompt: ChatPrompt, options: GenerateOptions) -> PreparedRequest:
        """Render and tokenise a conversation, and check everything.

        Raises: InvalidRequest, UnsupportedParameter, ContextLengthExceeded.
        """
        plan = plan_tools(prompt, self._chat_tool_format(), has_constraint=options.sampling.constraint is not None)
        token_ids = await self._chat_token_ids(prompt, plan)
        prepared = self._prepared(token_ids, options, plan)
        if prompt.continue_final_message:
            return msgspec.structs.replace(prepared, continues_text=True)
        return prepared

    async def prepare_completion(self, prompt: str | Sequence[int], options: GenerateOptions) -> PreparedRequest:
        """Tokenise a prompt (or take its token ids as they are), and check everything.

        Raises: InvalidRequest, UnsupportedParameter, ContextLengthExceeded.
        """
        prepared = self._prepared(await self._token_ids(prompt), options, ToolPlan())
        return msgspec.structs.replace(prepared, continues_text=not self.info.is_encoder_decoder)

    def generate(self, prepared: PreparedRequest) -> Generation:
        """The answers to a prepared request; nothing happens before it is entered."""
        return Generation(prepared, self._machinery)

    def add_adapter(self, adapter: Adapter) -> None:
        """Answer to an adapter's name, too. The engine has loaded it."""
        self.adapters[adapter.name] = adapter

    def abort_all(self, error: ArgosyError) -> None:
        """End every running and waiting request with `error`: the last resort of a shutdown. Never blocks."""
        self._admission.refuse_waiting(error)
        for generation in list(self._machinery.running):
            generation.interrupt(error)

    async def tokenize(self, prompt: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        return await self._encode(prompt, add_special_tokens=add_special_tokens)

    async def tokenize_chat(self, prompt: ChatPrompt) -> list[int]:
        """Token ids of a conversation, as `prepare_chat` makes them."""
        return await self._chat_token_ids(prompt, ToolPlan(template_tools=prompt.tools))

    def detokenize(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included. Raises: InvalidRequest if an id does not exist."""
        check_token_ids(token_ids, self._tokenizer.vocab_size, "tokens")
        return self._tokenizer.decode(token_ids, skip_special_tokens=False)

    def token_texts(self, token_ids: Sequence[int]) -> list[str]:
        """Each token's own text. Raises: InvalidRequest if an id does not exist."""
        check_token_ids(token_ids, self._tokenizer.vocab_size, "tokens")
        return [self._tokenizer.token_text(token_id) for token_id in token_ids]

    async def embed(self, inputs: Sequence[str | Sequence[int]]) -> EmbedResult:
        """One vector per input. Raises: UnsupportedParameter if the engine gives none; ContextLengthExceeded."""
        if not isinstance(self._engine, EmbeddingSupport):
            raise UnsupportedParameter(
                f"{self.name!r} on the {self.engine_info.name!r} engine gives no embeddings: "
                "serve an embedding model for them",
                param="model",
            )
        prompts = [tuple(await self._token_ids(each)) for each in inputs]
        for prompt in prompts:
            check_lengths(len(prompt), None, self.max_model_len + 1)
        vectors = await self._engine.embed(prompts)
        return EmbedResult(vectors=vectors, prompt_tokens=sum(map(len, prompts)))

    def stats(self) -> EngineStats:
        """The load now; waiting counts those at the door, too."""
        stats = self._engine.stats()
        waiting = stats.num_requests_waiting + self._admission.waiting
        return msgspec.structs.replace(stats, num_requests_waiting=waiting)

    async def check_health(self) -> None:
        """Return if the engine can serve. Raises: EngineDead."""
        await self._engine.check_health()

    def _prepared(self, token_ids: Sequence[int], options: GenerateOptions, plan: ToolPlan) -> PreparedRequest:
        requests = engine_requests(
            tuple(token_ids),
            options,
            self._checked,
            adapter=self._adapter(options.adapter),
            constraint=plan.constraint,
        )
        return PreparedRequest(options=options, requests=requests, tools=plan.parsing)

    def _adapter(self, name: str | None) -> Adapter | None:
        if name is None:
            return None
        if name not in self.adapters:
            known = ", ".join(self.adapters) or "none"
            raise InvalidRequest(f"{self.name!r} has no adapter {name!r}: it has {known}", param="model")
        return self.adapters[name]

    def _chat_tool_format(self) -> ToolFormat | None:
        return self._tool_format if self.supports_tools else None

    async def _chat_token_ids(self, prompt: ChatPrompt, plan: ToolPlan) -> list[int]:
        template = self._template
        if template is None:
            raise InvalidRequest(
                f"{self.name!r} is a base model without a chat template: use /v1/completions, "
                "or serve an instruction-tuned model for chat",
                param="messages",
            )
        size = sum(_text_size(message) for message in prompt.messages)
        self._check_size(size)

        def encode() -> list[int]:
            return template.encode(
                prompt.messages,
                self._tokenizer,
                tools=plan.template_tools or None,
                add_generation_prompt=prompt.add_generation_prompt,
                continue_final_message=prompt.continue_final_message,
                variables=prompt.template_variables,
            )

        is_long = size > _LONG_TEXT_CHARACTERS or len(plan.template_tools) > 0
        return await asyncio.to_thread(encode) if is_long else encode()

    async def _token_ids(self, prompt: str | Sequence[int]) -> Sequence[int]:
        if isinstance(prompt, str):
            return await self._encode(prompt, add_special_tokens=True)
        check_token_ids(prompt, self._tokenizer.vocab_size, "prompt")
        return prompt

    async def _encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        self._check_size(len(text))
        if len(text) > _LONG_TEXT_CHARACTERS:
            return await asyncio.to_thread(self._tokenizer.encode, text, add_special_tokens=add_special_tokens)
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens)

    def _check_size(self, characters: int) -> None:
        """Refuse what cannot fit before spending time on tokenising it. Raises: ContextLengthExceeded."""
        if characters > self.max_model_len * _MAX_CHARACTERS_PER_TOKEN:
            raise ContextLengthExceeded(
                f"This model's maximum context length is {self.max_model_len} tokens. However, you requested "
                f"{characters} characters in the prompt, which cannot fit: shorten the prompt",
                param="prompt",
            )

    def _sample(self) -> None:
        self._machinery.meters.sample(self._engine.stats(), self._admission.waiting)
        self._machinery.meters.sample_adapters(len(self.adapters))


def _keeps_prefixes(info: EngineInfo) -> bool:
    return EngineFeature.PREFIX_CACHE in info.features and info.kv_cache_tokens > 0


def _text_size(message: dict[str, Any]) -> int:
    """Characters of everything in a message that a template may render."""
    calls = message.get("tool_calls") or ()
    arguments = sum(len(call["function"]["arguments"]) for call in calls)
    return arguments + sum(len(value) for value in message.values() if isinstance(value, str))
