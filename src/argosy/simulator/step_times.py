"""How long one step of an engine takes: a sum of six measured costs, read from a profile.

A continuous batch advances in steps. A step carries pieces of prompts (prefill) and one token of every running answer
(decode), and its time decides everything a client sees. Measured on the real engine, the time is close to linear in
what the step carries, so a profile is six numbers beside the limits of the batch:

    step                what every step costs: the weights are read once
    prompt token        the matrix products of one more row
    attended token      a prompt token looks at a token before it
    sequence            an answer that gains a token: its row, its logits, its sample
    context token       the KV cache of a sequence is read once in a step
    size change         the graph is laid out anew when a step has not as many tokens as the one before

`python -m benchmarks step_times` measures a profile; docs/simulator.md shows how well the sum fits.
"""

from __future__ import annotations

import datetime
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from argosy.core.errors import SpecError

_Cost = Annotated[float, msgspec.Meta(ge=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]


class StepCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The coefficients. Units: seconds, each per what its name says. Source: `python -m benchmarks step_times`."""

    seconds_per_step: _Cost
    seconds_per_prompt_token: _Cost
    seconds_per_attended_token: _Cost
    seconds_per_sequence: _Cost
    seconds_per_context_token: _Cost
    seconds_per_size_change: _Cost


class StepTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile: one model on one engine on one kind of machine.

    max_num_seqs: sequences in one step. max_num_batched_tokens: tokens in one step, of prompts and answers together.
    kv_cache_tokens: tokens the KV cache holds. max_model_len: prompt and answer of one request together.
    start_seconds: from exec until ready. warm_spare_seconds: from waking a spare until ready; None = not measured.
    Source: `python -m benchmarks step_times`, `python -m benchmarks startup`.
    """

    name: str
    description: str
    measured_at: datetime.date
    coefficients: StepCosts
    max_num_seqs: _Count
    max_num_batched_tokens: _Count
    kv_cache_tokens: _Count
    max_model_len: _Count
    start_seconds: _Cost
    warm_spare_seconds: _Cost | None


def read_profile(name_or_path: str) -> StepTimes:
    """The profile of this name that comes with the package; with a slash or the ending .json, that file.

    Raises: SpecError if there is none, or if it is not a profile.
    """
    if "/" in name_or_path or name_or_path.endswith(".json"):
        source = Path(name_or_path)
        if not source.is_file():
            raise SpecError(f"the profile {name_or_path} is not a file: give the path of one, or {_known_names()}")
        document = source.read_bytes()
    else:
        packaged = resources.files("argosy.simulator") / "profiles" / f"{name_or_path}.json"
        if not packaged.is_file():
            raise SpecError(f"there is no profile {name_or_path}: give the path of a file, or {_known_names()}")
        document = packaged.read_bytes()
    try:
        return msgspec.json.decode(document, type=StepTimes)
    except msgspec.DecodeError as exc:
        raise SpecError(f"the profile {name_or_path} cannot be read: {exc}") from exc


def attended_tokens(*, prompt_tokens: int, cached_tokens: int) -> int:
    """Tokens at which a piece of a prompt looks: every token of it at all before it, cached or in the piece.

    prompt_tokens: of this piece. cached_tokens: of the same prompt, in the KV cache before this step.
    """
    return prompt_tokens * cached_tokens + prompt_tokens * (prompt_tokens - 1) // 2


def step_seconds(
    profile: StepTimes,
    *,
    prompt_tokens: int,
    prompt_context_tokens: int,
    num_sequences: int,
    context_tokens: int,
    is_size_new: bool = False,
) -> float:
    """Seconds of one step.

    prompt_tokens: tokens of prompts that the step computes.
    prompt_context_tokens: the sum of `attended_tokens` over the pieces of prompts in the step.
    num_sequences: sequences in the step: those that decode and those of which a piece of the prompt is computed.
    context_tokens: tokens in the KV cache before the step, summed over these sequences.
    is_size_new: the step has not as many tokens, of prompts and answers together, as the step before it.
    """
    costs = profile.coefficients
    return (
        costs.seconds_per_step
        + costs.seconds_per_prompt_token * prompt_tokens
        + costs.seconds_per_attended_token * prompt_context_tokens
        + costs.seconds_per_sequence * num_sequences
        + costs.seconds_per_context_token * context_tokens
        + costs.seconds_per_size_change * is_size_new
    )


def _known_names() -> str:
    files = (resources.files("argosy.simulator") / "profiles").iterdir()
    return ", ".join(sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json")))
