"""One replica on the virtual clock: the real door (`serving.admission_policy`), and a model of the engine behind it.

The engine advances in steps, as continuous batching does: every running answer gains a token, then prompts follow in
order of arrival until the step carries `max_num_batched_tokens`. A long prompt takes several steps, and each of them
makes the answers beside it wait. How long a step takes is measured (`step_times`).

Between two changes of the batch all steps are alike but for the growing contexts, whose sum is linear, so the time of
k steps is a closed form, and an hour of answers costs an event per request instead of one per token. A request that
comes in between cuts the run short at the end of the step under way.

KV cache: a prompt waits until it fits; when answers have no room left to grow, the youngest of them is pushed out and
computed again later, as vLLM and OpenVINO do.
"""

from __future__ import annotations

import heapq
import math
from collections import deque

import msgspec

from argosy.serving.admission_policy import AdmissionLimits, AdmissionQueue, Ticket
from argosy.simulator.block_cache import BlockCache
from argosy.simulator.requests import SimulatedRequest
from argosy.simulator.step_times import StepTimes, attended_tokens, step_seconds

_PRINCIPAL = "everybody"


class PromptClock:
    """How long a prompt takes on a replica that does nothing else."""

    def __init__(self, profile: StepTimes) -> None:
        self._profile = profile
        self._known: dict[int, float] = {}

    def seconds(self, prompt_tokens: int, cached_tokens: int = 0) -> float:
        """Until its first token. cached_tokens: of them, in the prefix cache."""
        key = prompt_tokens << 32 | cached_tokens
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._computed(prompt_tokens, cached_tokens)
        return found

    def _computed(self, prompt_tokens: int, cached_tokens: int) -> float:
        seconds, done = 0.0, min(cached_tokens, prompt_tokens - 1)
        while done < prompt_tokens:
            piece = min(self._profile.max_num_batched_tokens, prompt_tokens - done)
            seconds += step_seconds(
                self._profile,
                prompt_tokens=piece,
                prompt_context_tokens=attended_tokens(prompt_tokens=piece, cached_tokens=done),
                num_sequences=1,
                context_tokens=done,
                is_size_new=True,
            )
            done += piece
        return seconds


class _Sequence(msgspec.Struct, kw_only=True, eq=False):
    """A request in the engine. computed: tokens in the KV cache, cached ones included. left: tokens to generate.

    total: tokens of the prompt, and of what was generated before the sequence was pushed out. pinned: its blocks in
    the cache. private_tokens: room it holds beside them. end_step: the decode step in which it ends.
    """

    request: SimulatedRequest
    ticket: Ticket
    total: int
    left: int
    computed: int = 0
    pinned: tuple[int, ...] = ()
    private_tokens: int = 0
    end_step: int = 0
    joined_step: int = 0


class _Run(msgspec.Struct, frozen=True, kw_only=True):
    """Steps under way that are planned as one: `steps` decode steps, or one step with pieces of prompts."""

    began: float
    ends: float
    steps: int
    pieces: tuple[tuple[_Sequence, int], ...] = ()
    first_seconds: float = 0.0
    growth_seconds: float = 0.0
    first_extra_seconds: float = 0.0

    def seconds(self, steps: int) -> float:
        """Of the first `steps` steps; each takes `growth_seconds` longer than the one before."""
        grown = self.growth_seconds * steps * (steps - 1) / 2
        return self.first_extra_seconds + self.first_seconds * steps + grown

    def steps_until(self, now: float) -> int:
        """Steps that are complete once the one under way at `now` is."""
        target = now - self.began - self.first_extra_seconds
        linear = self.first_seconds - self.growth_seconds / 2
        if self.growth_seconds <= 0:
            guess = target / linear
        else:
            guess = (math.sqrt(max(linear * linear + 2 * self.growth_seconds * target, 0.0)) - linear) / (
                self.growth_seconds
            )
        return min(max(math.ceil(guess - 1e-9), 1), self.steps)


class ReplicaModel:
    """A replica from its start to its end. The owner calls `offer` when a request comes, `advance` at `next_at`.

    next_at: when it next has something to do; infinity = when somebody asks.
    """

    def __init__(self, name: str, profile: StepTimes, limits: AdmissionLimits, block_tokens: int) -> None:
        self.name = name
        self.next_at = math.inf
        self.cache = BlockCache()
        self._profile = profile
        self._costs = profile.coefficients
        self._block_tokens = block_tokens
        self._door = AdmissionQueue(limits)
        self._max_queue_seconds = limits.max_queue_seconds
        self._at_door: dict[Ticket, SimulatedRequest] = {}
        self._prompts: deque[_Sequence] = deque()
        self._answers: list[tuple[int, int, _Sequence]] = []  # heap by the step in which they end
        self._context_tokens = 0
        self._private_tokens = 0
        self._steps_done = 0
        self._serial = 0
        self._last_size = 0
        self._run: _Run | None = None
        self._busy_seconds = 0.0

    @property
    def num_requests_running(self) -> int:
        """Sequences that gain tokens, and the prompts of which a piece is being computed."""
        return len(self._answers) + (len(self._run.pieces) if self._run else 0)

    @property
    def num_requests_waiting(self) -> int:
        """Requests at the door, or in the engine without a computed token."""
        return self._door.waiting + len(self._prompts) - (len(self._run.pieces) if self._run else 0)

    @property
    def is_idle(self) -> bool:
        """Whether it holds no request at all."""
        return not self._answers and not self._prompts and not self._door.waiting

    @property
    def kv_cache_usage_ratio(self) -> float:
        """Share of the KV cache that requests hold."""
        pinned = (len(self.cache) - self.cache.num_idle) * self._block_tokens
        return min((self._private_tokens + pinned) / self._profile.kv_cache_tokens, 1.0)

    def busy_seconds(self, now: float) -> float:
        """Seconds in which a step was under way."""
        return self._busy_seconds + (max(min(now, self._run.ends) - self._run.began, 0.0) if self._run else 0.0)

    def offer(self, request: SimulatedRequest, now: float) -> list[SimulatedRequest]:
        """Take a request in; those that are refused for it, maybe itself."""
        ticket = Ticket(principal=_PRINCIPAL, sequences=1, tokens=request.prompt_tokens + request.output_tokens)
        verdict = self._door.offer(ticket)
        refused = []
        if verdict.evicted is not None:
            refused.append(self._at_door.pop(verdict.evicted))
        if verdict.admitted:
            self._enter(request, ticket)
            self._interrupt(now)
        elif verdict.waiting:
            self._at_door[ticket] = request
        else:
            refused.append(request)
        for one in refused:
            one.failure = verdict.reason
        return refused

    def advance(self, now: float) -> tuple[list[SimulatedRequest], list[SimulatedRequest]]:
        """End the run that ends now and begin the next one; (requests with a first token, requests that ended)."""
        firsts: list[SimulatedRequest] = []
        ended: list[SimulatedRequest] = []
        if run := self._run:
            self._run = None
            self._busy_seconds += run.ends - run.began
            self._end_answers(run, now, ended)
            self._end_pieces(run, now, firsts, ended)
            if ended:
                ended += self._open_door(now)
        self._plan(now)
        return firsts, ended

    def _enter(self, request: SimulatedRequest, ticket: Ticket) -> None:
        self._prompts.append(
            _Sequence(request=request, ticket=ticket, total=request.prompt_tokens, left=request.output_tokens)
        )

    def _open_door(self, now: float) -> list[SimulatedRequest]:
        """Let those in who may; those who waited too long."""
        late = []
        for ticket in self._door.admit_next():
            request = self._at_door.pop(ticket)
            if now - request.at_seconds > self._max_queue_seconds:
                request.failure = f"no slot became free within {self._max_queue_seconds:.0f} s"
                self._door.release(ticket)
                late.append(request)
            else:
                self._enter(request, ticket)
        return late

    def _interrupt(self, now: float) -> None:
        """A prompt came: end the run at the end of the step under way."""
        run = self._run
        if run is None:
            self.next_at = now
        elif run.steps > 1:
            steps = run.steps_until(now)
            if steps < run.steps:
                ends = run.began + run.seconds(steps)
                self._run = msgspec.structs.replace(run, steps=steps, ends=ends)
                self.next_at = ends

    def _end_answers(self, run: _Run, now: float, ended: list[SimulatedRequest]) -> None:
        self._steps_done += run.steps
        growth = run.steps * len(self._answers)
        self._context_tokens += growth
        self._private_tokens += growth
        while self._answers and self._answers[0][0] <= self._steps_done:
            _, _, sequence = heapq.heappop(self._answers)
            self._context_tokens -= sequence.computed + self._steps_done - sequence.joined_step
            self._private_tokens -= self._steps_done - sequence.joined_step
            self._leave(sequence, now, ended)

    def _end_pieces(self, run: _Run, now: float, firsts: list[SimulatedRequest], ended: list[SimulatedRequest]) -> None:
        for sequence, piece in run.pieces:
            sequence.computed += piece
            if sequence.computed < sequence.total:
                continue
            self._prompts.remove(sequence)
            self.cache.computed(sequence.pinned)
            if sequence.request.first_token_at is None:
                sequence.request.first_token_at = now
                firsts.append(sequence.request)
            sequence.left -= 1
            if sequence.left <= 0:
                self._leave(sequence, now, ended)
                continue
            sequence.joined_step = self._steps_done
            sequence.end_step = self._steps_done + sequence.left
            self._serial += 1
            heapq.heappush(self._answers, (sequence.end_step, self._serial, sequence))
            self._context_tokens += sequence.computed

    def _leave(self, sequence: _Sequence, now: float, ended: list[SimulatedRequest]) -> None:
        self._free(sequence)
        self._door.release(sequence.ticket)
        sequence.request.ended_at = now
        ended.append(sequence.request)

    def _free(self, sequence: _Sequence) -> None:
        self._private_tokens -= sequence.private_tokens
        self.cache.unpin(sequence.pinned)
        sequence.private_tokens, sequence.pinned = 0, ()

    def _plan(self, now: float) -> None:
        """What the next run carries, and when it ends."""
        self._make_room_for_growth()
        pieces = self._pieces()
        count = len(self._answers)
        if not pieces and not count:
            self.next_at = math.inf
            return
        prompt_tokens = sum(piece for _, piece in pieces)
        is_size_new = prompt_tokens + count != self._last_size
        self._last_size = prompt_tokens + count
        first_seconds = step_seconds(
            self._profile,
            prompt_tokens=prompt_tokens,
            prompt_context_tokens=sum(
                attended_tokens(prompt_tokens=piece, cached_tokens=one.computed) for one, piece in pieces
            ),
            num_sequences=count + len(pieces),
            context_tokens=self._context_tokens + sum(one.computed for one, _ in pieces),
        )
        steps = 1
        if not pieces:
            steps = min(self._answers[0][0] - self._steps_done, max(self._room() // count, 1))
        run = _Run(
            began=now,
            ends=now,
            steps=steps,
            pieces=tuple(pieces),
            first_seconds=first_seconds,
            growth_seconds=self._costs.seconds_per_context_token * count,
            first_extra_seconds=self._costs.seconds_per_size_change * is_size_new,
        )
        self._run = msgspec.structs.replace(run, ends=now + run.seconds(steps))
        self.next_at = self._run.ends

    def _pieces(self) -> list[tuple[_Sequence, int]]:
        """Pieces of prompts for the next step, in order of arrival; the first that has no room stops those behind."""
        budget = self._profile.max_num_batched_tokens - len(self._answers)
        pieces: list[tuple[_Sequence, int]] = []
        for sequence in self._prompts:
            if budget <= 0 or (not sequence.private_tokens and not self._allocate(sequence)):
                break
            piece = min(sequence.total - sequence.computed, budget)
            pieces.append((sequence, piece))
            budget -= piece
        return pieces

    def _allocate(self, sequence: _Sequence) -> bool:
        """Room for the whole prompt and what it needs of the cache; False if there is none."""
        blocks = sequence.request.blocks
        held = self.cache.num_held(blocks)
        # The last token of a prompt is always computed: its logits are the answer's beginning.
        cached = min(held * self._block_tokens, sequence.total - 1)
        shared = min(len(blocks), sequence.total // self._block_tokens) if blocks else 0
        private = sequence.total - shared * self._block_tokens + 1
        wanted = private + max(shared - held, 0) * self._block_tokens
        if wanted > self._room() and (self._answers or self._private_tokens):
            return False
        sequence.pinned = blocks[:shared]
        self.cache.pin(sequence.pinned)
        sequence.private_tokens = private
        self._private_tokens += private
        sequence.computed = cached
        sequence.request.cached_tokens = max(sequence.request.cached_tokens, cached)
        self._evict_over()
        return True

    def _room(self) -> int:
        """Tokens that fit in, idle blocks given up."""
        pinned = (len(self.cache) - self.cache.num_idle) * self._block_tokens
        return self._profile.kv_cache_tokens - self._private_tokens - pinned

    def _evict_over(self) -> None:
        over = self._private_tokens + len(self.cache) * self._block_tokens - self._profile.kv_cache_tokens
        if over > 0:
            self.cache.evict(min(math.ceil(over / self._block_tokens), self.cache.num_idle))

    def _make_room_for_growth(self) -> None:
        """Push out the youngest answers until the others can gain a token."""
        while len(self._answers) > 1 and self._room() < len(self._answers):
            youngest = max(self._answers, key=lambda entry: entry[1])
            self._answers.remove(youngest)
            heapq.heapify(self._answers)
            sequence = youngest[2]
            generated = self._steps_done - sequence.joined_step
            self._context_tokens -= sequence.computed + generated
            self._private_tokens -= generated
            self._free(sequence)
            sequence.total += generated + 1
            sequence.left = sequence.end_step - self._steps_done
            sequence.computed = 0
            self._prompts.appendleft(sequence)
        self._evict_over()
