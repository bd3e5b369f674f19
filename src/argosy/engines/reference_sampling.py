"""How the reference engine chooses a token, written to be read: one sequence, one step, numpy, double precision.

The order of the rules is vLLM's (v1/sample/sampler.py), so the same request means the same there and here:
log probabilities are taken from the raw logits; then allowed ids, min_tokens, logit bias and penalties change them;
then temperature, min_p, top_k and top_p shape what is drawn from. Greedy takes the likeliest after the penalties.

Shapes: every `logits_V`, `probs_V` is [vocabulary], float64.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from argosy.core.errors import EngineError
from argosy.core.generation import TokenLogprob
from argosy.core.sampling import SamplingParams

Logits = NDArray[np.float64]
# Below this every draw is the likeliest token anyway. Source: vLLM, sampling_params.py (_SAMPLING_EPS).
GREEDY_TEMPERATURE = 1e-5


class Sampler:
    """Chooses the tokens of one sequence, one per call; remembers what it chose, and its random numbers."""

    def __init__(self, params: SamplingParams, prompt_token_ids: Sequence[int]) -> None:
        self._params = params
        self._random = np.random.default_rng(params.seed)
        self._prompt_ids = np.unique(np.asarray(prompt_token_ids, dtype=np.int64))
        self._output_counts: Counter[int] = Counter()

    @property
    def num_output_tokens(self) -> int:
        """How many tokens it has chosen."""
        return self._output_counts.total()

    def choose(self, logits_V: Logits) -> tuple[int, TokenLogprob | None]:
        """The next token, and its log probability if the request wants it.

        Raises: EngineError if the rules leave no token.
        """
        adjusted_V = self._adjusted(logits_V)
        if not np.isfinite(adjusted_V.max()):
            raise EngineError(
                "allowed_token_ids, min_tokens and stop_token_ids together leave no token to choose: "
                "allow one that is not a stop token, or lower min_tokens"
            )
        if self._params.temperature < GREEDY_TEMPERATURE:
            token_id = int(adjusted_V.argmax())
        else:
            token_id = draw(shaped_probabilities(adjusted_V, self._params), self._random)
        self._output_counts[token_id] += 1
        wanted = self._params.logprobs
        return token_id, None if wanted is None else token_logprob(logits_V, token_id, wanted)

    def _adjusted(self, logits_V: Logits) -> Logits:
        params = self._params
        adjusted_V = logits_V.copy()
        if params.allowed_token_ids:
            adjusted_V = only(adjusted_V, params.allowed_token_ids)
        if params.stop_token_ids and self.num_output_tokens < params.min_tokens:
            adjusted_V[list(params.stop_token_ids)] = -np.inf
        for token_id, bias in params.logit_bias.items():
            adjusted_V[token_id] += bias
        return penalised(adjusted_V, params, self._prompt_ids, self._output_counts)


def only(logits_V: Logits, token_ids: Sequence[int]) -> Logits:
    """The logits of `token_ids`; all others become impossible."""
    kept_V = np.full_like(logits_V, -np.inf)
    kept_V[list(token_ids)] = logits_V[list(token_ids)]
    return kept_V


def penalised(
    logits_V: Logits, params: SamplingParams, prompt_ids: NDArray[np.int64], output_counts: Counter[int]
) -> Logits:
    """The logits after the three penalties.

    Repetition looks at prompt and output and divides what is positive, multiplies what is negative; presence and
    frequency look at the output only and subtract.
    Source: vLLM, model_executor/layers/utils.py (apply_penalties); Keskar et al. 2019 (CTRL), arXiv:1909.05858 §4.1.
    """
    output_ids = np.fromiter(output_counts.keys(), dtype=np.int64, count=len(output_counts))
    if params.repetition_penalty != 1.0:
        seen = np.union1d(prompt_ids, output_ids)
        values = logits_V[seen]
        penalty = params.repetition_penalty
        logits_V[seen] = np.where(values > 0, values / penalty, values * penalty)
    if len(output_ids):
        counts = np.fromiter(output_counts.values(), dtype=np.float64, count=len(output_counts))
        logits_V[output_ids] -= params.frequency_penalty * counts + params.presence_penalty
    return logits_V


def shaped_probabilities(logits_V: Logits, params: SamplingParams) -> Logits:
    """What is drawn from: softmax at the temperature, cut by min_p, then top_k, then top_p, and summing to one.

    Source: vLLM, v1/sample/sampler.py and ops/topk_topp_sampler.py (the token that crosses top_p stays).
    """
    probs_V = softmax(logits_V / params.temperature)
    if params.min_p > 0:
        probs_V[probs_V < params.min_p * probs_V.max()] = 0.0
    if 0 < params.top_k < len(probs_V):
        least = np.partition(probs_V, -params.top_k)[-params.top_k]
        probs_V[probs_V < least] = 0.0
    if params.top_p < 1:
        probs_V /= probs_V.sum()
        order = np.argsort(-probs_V, kind="stable")
        mass_before = np.cumsum(probs_V[order]) - probs_V[order]
        probs_V[order[mass_before >= params.top_p]] = 0.0
    probs_V /= probs_V.sum()
    return probs_V


def draw(probs_V: Logits, random: np.random.Generator) -> int:
    """One token, by inverting the cumulative distribution at one random number."""
    cumulative_V = np.cumsum(probs_V)
    index = int(np.searchsorted(cumulative_V, random.random() * cumulative_V[-1], side="right"))
    return min(index, int(np.flatnonzero(probs_V)[-1]))


def softmax(logits_V: Logits) -> Logits:
    """Probabilities of logits; an impossible one (-inf) gets zero."""
    probs_V: Logits = np.exp(logits_V - logits_V.max())
    probs_V /= probs_V.sum()
    return probs_V


def token_logprob(logits_V: Logits, token_id: int, num_top: int) -> TokenLogprob:
    """The log probability of one token and of the `num_top` likeliest, from the raw logits."""
    largest = logits_V.max()
    logprobs_V = logits_V - largest - np.log(np.exp(logits_V - largest).sum())
    likeliest = np.argsort(-logprobs_V, kind="stable")[:num_top]
    return TokenLogprob(
        token_id=token_id,
        logprob=float(logprobs_V[token_id]),
        top=tuple((int(index), float(logprobs_V[index])) for index in likeliest),
    )
