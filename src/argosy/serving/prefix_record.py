"""What this replica's prefix cache holds, told in the blocks a gateway knows prompts by (`core/prefix.py`).

Engines keep KV by blocks of tokens and most do not say which. So a served model keeps the books itself: the blocks of
a prompt are entered when its first token comes out (its KV is computed then), reused ones become the newest, answers
take room, too, and beyond the engine's `kv_cache_tokens` the oldest go, ends of prompts before their beginnings. This
is the order in which vLLM and OpenVINO evict, so what the record says and what the cache holds differ by little; a
wrong entry costs one prompt that is computed anew, nothing else. An engine that tells its evictions would call
`PrefixRecord` with them; none of ours does.

Askers name the last sequence they know (`changes(since)`) and get what differs, each block at most once and as it is
now. The log is a ring: who was away for longer, or knew another run of this process, gets everything.

Source: block hashes and eviction order as in vLLM's automatic prefix caching.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence

from argosy.core.load_report import PrefixChanges

LOGGED_CHANGES = 16_384
_LARGEST_WHOLE = 65_536  # Blocks told at once, the newest: 16 MiB of prompt text.


class PrefixRecord:
    """Blocks by their last use, each with its share of tokens. Nothing here waits; O(blocks of the prompt)."""

    def __init__(self, capacity_tokens: int, *, first_sequence: int | None = None) -> None:
        """capacity_tokens: what the KV cache holds. first_sequence: where counting begins.

        It begins somewhere else in each process, so that a sequence of an earlier one is unknown here.
        """
        self._capacity = capacity_tokens
        self._held: OrderedDict[int, float] = OrderedDict()
        self._tokens = 0.0
        self._sequence = first_sequence or secrets.randbits(48) + 1
        self._log: deque[tuple[int, list[int]]] = deque()
        self._logged = 0
        self._forgotten = self._sequence
        self._answers = 0

    @property
    def num_tokens(self) -> int:
        """Tokens in the books."""
        return round(self._tokens)

    def enter(self, blocks: Sequence[int], prompt_tokens: int) -> None:
        """A prompt's KV is in the cache now. blocks: of its beginning, in order."""
        if not blocks:
            self.add_answer(prompt_tokens)
            return
        each = prompt_tokens / len(blocks)
        held = self._held
        changed = []
        for block in reversed(blocks):  # so that the end of the prompt is the first to go
            if block in held:
                held.move_to_end(block)
            else:
                held[block] = each
                self._tokens += each
                changed.append(block)
        self._evict(changed)

    def add_answer(self, tokens: int) -> None:
        """Tokens that took room and that no later prompt's blocks name: an answer, or a short prompt."""
        if tokens > 0:
            self._answers += 1
            self._held[-self._answers] = tokens
            self._tokens += tokens
            self._evict([])

    def changes(self, since: int) -> PrefixChanges:
        """What differs from what an asker knows. O(changes), or of everything if `since` is unknown."""
        if not self._forgotten <= since <= self._sequence:
            newest = [block for block in reversed(self._held) if block > 0][:_LARGEST_WHOLE]
            return PrefixChanges(sequence=self._sequence, is_whole=True, added=tuple(newest))
        changed: set[int] = set()
        for sequence, blocks in reversed(self._log):
            if sequence <= since:
                break
            changed.update(blocks)
        added = tuple(block for block in changed if block in self._held)
        removed = tuple(block for block in changed if block not in self._held)
        return PrefixChanges(sequence=self._sequence, is_whole=False, added=added, removed=removed)

    def _evict(self, changed: list[int]) -> None:
        """Make room, and log what came (`changed`) and went."""
        while self._tokens > self._capacity and self._held:
            block, tokens = self._held.popitem(last=False)
            self._tokens -= tokens
            if block > 0:
                changed.append(block)
        if not changed:
            return
        self._sequence += 1
        self._log.append((self._sequence, changed))
        self._logged += len(changed)
        while self._logged > LOGGED_CHANGES:
            self._forgotten, lost = self._log.popleft()
            self._logged -= len(lost)
