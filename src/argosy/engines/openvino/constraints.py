"""A stranger's schema, pattern or grammar is tried in a process of its own before the batch sees it. D-27.

OpenVINO GenAI compiles a constraint inside step(): one that is wrong leaves the pipeline unusable, one that explodes
stalls every request. So each new constraint first runs through the checker: the same worker program over a toy model
with the real vocabulary (it starts in half a second, at the first constraint, and holds 150 MB). If it crashes or is
too slow there, only the checker dies, the request is refused, and the verdict is remembered.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from typing import Any

from argosy.core.errors import EngineError, InvalidRequest, Overloaded
from argosy.core.sampling import Constraint, ConstraintKind, SamplingParams
from argosy.engines.openvino.channel import Channel
from argosy.engines.openvino.generation_config import generation_config
from argosy.engines.openvino.json_grammar import OBJECT_GRAMMAR, literal, schema_grammar
from argosy.engines.openvino.messages import Event, Failed, Load, Ready, Report, Submit

MAX_CONSTRAINT_BYTES = 65_536
# The batch stalls for as long as compiling takes, once per new constraint: this is the longest stall we accept.
CHECK_SECONDS = 1.0
START_SECONDS = 30.0
_REMEMBERED = 1024
# Distinct constraints that may wait for their trial at once.
_MAX_UNTRIED = 4
# Enough steps to see that masks are computed in time, not only that the grammar compiles.
_TRIAL_TOKENS = 4


def constraint_fields(constraint: Constraint) -> dict[str, str]:
    """The field of openvino_genai.StructuredOutputConfig that says the same."""
    match constraint.kind:
        case ConstraintKind.JSON_SCHEMA:
            grammar = schema_grammar(constraint.text)
            return {"json_schema": constraint.text} if grammar is None else {"grammar": grammar}
        case ConstraintKind.JSON_OBJECT:
            return {"grammar": OBJECT_GRAMMAR}
        case ConstraintKind.REGEX:
            return {"regex": constraint.text}
        case ConstraintKind.GRAMMAR:
            return {"grammar": constraint.text}
        case ConstraintKind.CHOICE:
            return {"grammar": "root ::= " + " | ".join(literal(choice) for choice in constraint.choices)}


def require_bounded(constraint: Constraint) -> None:
    """Raises: InvalidRequest if the constraint is too large or empty to be tried at all."""
    size = len(constraint.text.encode()) + sum(len(choice.encode()) for choice in constraint.choices)
    if size > MAX_CONSTRAINT_BYTES:
        raise InvalidRequest(
            f"the {constraint.kind.value} has {size} bytes; at most {MAX_CONSTRAINT_BYTES} are accepted: simplify it",
            param=constraint.kind.value,
        )
    needs_text = constraint.kind not in (ConstraintKind.JSON_OBJECT, ConstraintKind.CHOICE)
    if (needs_text and not constraint.text) or (
        constraint.kind is ConstraintKind.CHOICE and not all(constraint.choices or ("",))
    ):
        raise InvalidRequest(
            f"the {constraint.kind.value} is empty: say what the answer must match", param=constraint.kind.value
        )


class ConstraintChecker:
    """Verdicts on constraints, each reached once."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._lock = asyncio.Lock()
        self._verdicts: OrderedDict[bytes, str | None] = OrderedDict()
        self._untried: Counter[bytes] = Counter()  # who waits for a first verdict, by constraint
        self._channel: Channel | None = None
        self._answer: asyncio.Future[str | None] | None = None

    async def require_usable(self, constraint: Constraint) -> None:
        """Cancels: the verdict is not remembered. Raises: InvalidRequest saying what is wrong; Overloaded; EngineError.

        A constraint known already waits for nobody.
        """
        require_bounded(constraint)
        key = hashlib.sha256(repr((constraint.kind.value, constraint.text, constraint.choices)).encode()).digest()
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
            reason = self._verdicts[key]
        else:
            reason = await self._first_verdict(key, constraint)
        if reason is not None:
            raise InvalidRequest(
                f"the {constraint.kind.value} cannot be used: {reason}: correct or simplify it",
                param=constraint.kind.value,
            )

    async def close(self) -> None:
        """End the checker's process, if there is one. Idempotent."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    async def _first_verdict(self, key: bytes, constraint: Constraint) -> str | None:
        """Try the constraint when its turn comes. The line is short: who waits in it holds a place in the batch."""
        if key not in self._untried and len(self._untried) >= _MAX_UNTRIED:
            raise Overloaded(
                f"{_MAX_UNTRIED} new schemas or patterns wait to be tried already: send this one again in a moment",
                retry_after_seconds=_MAX_UNTRIED * CHECK_SECONDS,
            )
        self._untried[key] += 1
        try:
            async with self._lock:
                if key not in self._verdicts:
                    self._verdicts[key] = await self._try(constraint)
                    if len(self._verdicts) > _REMEMBERED:
                        self._verdicts.popitem(last=False)
                return self._verdicts[key]
        finally:
            self._untried -= Counter([key])

    async def _try(self, constraint: Constraint) -> str | None:
        try:
            channel = await self._open()
            return await self._ask(channel, constraint)
        except BaseException:
            await self.close()
            raise

    async def _open(self) -> Channel:
        if self._channel is None:
            self._channel = Channel(self._on_event, self._on_death)
            self._answer = asyncio.get_running_loop().create_future()
            await self._channel.open()
            self._channel.send(self._load)
            try:
                async with asyncio.timeout(START_SECONDS):
                    reason = await self._answer
            except TimeoutError as exc:
                raise EngineError(f"the constraint checker did not start in {START_SECONDS:.0f} s") from exc
            if reason is not None:
                raise EngineError(f"the constraint checker cannot start: {reason}")
        return self._channel

    async def _ask(self, channel: Channel, constraint: Constraint) -> str | None:
        self._answer = asyncio.get_running_loop().create_future()
        params = SamplingParams(max_tokens=_TRIAL_TOKENS, temperature=0.0)
        channel.send(
            Submit(
                number=0,
                prompt_token_ids=(0,),
                config=generation_config(params, fallback_seed=0),
                constraint=constraint_fields(constraint),
            )
        )
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                reason = await self._answer
        except TimeoutError:
            reason = f"it takes longer than {CHECK_SECONDS:.0f} s to compile"
        if reason is not None:
            channel.kill()
            await self.close()
        return reason

    def _settle(self, reason: str | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(reason)

    def _on_event(self, event: Event) -> None:
        match event:
            case Ready():
                self._settle(None)
            case Failed():
                self._settle(event.message)
            case Report():
                self._on_gains(event.gains)

    def _on_gains(self, gains: list[Any]) -> None:
        for gain in gains:
            if gain.ending is not None:
                self._settle(gain.error)

    def _on_death(self, reason: str) -> None:
        self._settle(f"trying it failed ({reason})")
