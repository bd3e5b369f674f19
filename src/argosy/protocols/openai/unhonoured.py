"""Fields of OpenAI and vLLM that we know and do not honour: refused by name, never ignored.

Each says why, and what to do instead. `neutral` lists values that ask for nothing (usually the field's default):
clients send those without thinking, and accepting them promises nothing. `null` is always neutral.

Source: OpenAI's API reference (2026); vLLM 0.32 `ChatCompletionRequest`, `CompletionRequest`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec


class Unhonoured(msgspec.Struct, frozen=True):
    """why: the rest of the sentence "`field` is not supported: …". neutral: values that ask for nothing."""

    why: str
    neutral: tuple[Any, ...] = ()

    def refusal(self, name: str) -> str:
        """The whole message."""
        return f"`{name}` is not supported: {self.why}"


_TEXT_ONLY = "this server reads and writes text only; leave it out"
_NO_THINKING_BUDGET = "what it steers differs from model to model; use chat_template_kwargs or max_tokens"
_TOKEN_CACHE = "prefixes are cached by content, and only so; leave it out"
_ONE_SERVER = "it belongs to a disaggregated deployment, and this is one replica; leave it out"
_NO_BEAMS = "answers are sampled, not searched for; leave it out and use n, temperature or seed"

UNHONOURED: Mapping[str, Unhonoured] = {
    # OpenAI
    "audio": Unhonoured(_TEXT_ONLY),
    "modalities": Unhonoured(_TEXT_ONLY, (["text"],)),
    "function_call": Unhonoured("it was replaced by tool_choice: send tool_choice", ("none",)),
    "functions": Unhonoured("it was replaced by tools: send tools", ([],)),
    "prediction": Unhonoured("repeated text is sped up without being told; leave it out"),
    "prompt_cache_retention": Unhonoured(_TOKEN_CACHE, ("in-memory", "in_memory")),
    "service_tier": Unhonoured("there is one tier; use priority", ("auto", "default")),
    "store": Unhonoured("answers are not kept; leave it out", (False,)),
    "suffix": Unhonoured("no served model fills in the middle; leave it out", ("",)),
    "verbosity": Unhonoured("ask for it in the prompt, or bound it with max_tokens", ("medium",)),
    "web_search_options": Unhonoured("this server does not reach out to the web; give the model a tool"),
    "dimensions": Unhonoured("vectors come in the model's own length; cut them yourself"),
    # vLLM: sampling
    "bad_words": Unhonoured("use logit_bias with the ids from /tokenize", ([],)),
    "length_penalty": Unhonoured(_NO_BEAMS, (1, 1.0)),
    "use_beam_search": Unhonoured(_NO_BEAMS, (False,)),
    "logprob_token_ids": Unhonoured("use top_logprobs", ([],)),
    "prompt_logprobs": Unhonoured("only generated tokens are scored; use logprobs"),
    "repetition_detection": Unhonoured("use repetition_penalty or frequency_penalty"),
    "spaces_between_special_tokens": Unhonoured("special tokens are spaced as the tokenizer does", (True,)),
    "stream_interval": Unhonoured("text is sent as soon as it is there", (1,)),
    "thinking_token_budget": Unhonoured(_NO_THINKING_BUDGET),
    "truncation_side": Unhonoured("truncate_prompt_tokens keeps the end of the prompt", ("left",)),
    "watermarking": Unhonoured("answers are not watermarked; leave it out", (False,)),
    # vLLM: chat
    "chat_template": Unhonoured(
        "a template is code, so it comes with the model and never with a request; use chat_template_kwargs"
    ),
    "documents": Unhonoured("put their text into a message", ([],)),
    "include_reasoning": Unhonoured("reasoning is part of the text as the model wrote it", (True,)),
    "media_io_kwargs": Unhonoured(_TEXT_ONLY),
    "mm_processor_kwargs": Unhonoured(_TEXT_ONLY),
    "prompt_embeds": Unhonoured("serialized tensors are not accepted from clients; send text or token ids"),
    # vLLM: operation
    "cache_salt": Unhonoured(_TOKEN_CACHE),
    "kv_transfer_params": Unhonoured(_ONE_SERVER),
    "session_id": Unhonoured("send the whole conversation each time; its prefix is cached"),
    "vllm_xargs": Unhonoured("it belongs to vLLM's plug-ins; leave it out", ({},)),
    "return_token_offsets": Unhonoured("use return_token_ids", (False,)),
    "return_prompt_text": Unhonoured("use return_token_ids, then /detokenize", (False,)),
}
