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
from collections import OrderedDict
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
        self._log: OrderedDict[int, int] = OrderedDict()
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
        self._sequence += 1
        each = prompt_tokens / len(blocks)
        held = self._held
        for block in reversed(blocks):  # so that the end of the prompt is the first to go
            if block in held:
                held.move_to_end(block)
            else:
                held[block] = each
                self._tokens += each
                self._note(block)
        self._evict()

    def add_answer(self, tokens: int) -> None:
        """Tokens that took room and that no later prompt's blocks name: an answer, or a short prompt."""
        if tokens <= 0:
            return
        self._answers += 1
        self._held[-self._answers] = tokens
        self._tokens += tokens
        self._sequence += 1
        self._evict()

    def changes(self, since: int) -> PrefixChanges:
        """What differs from what an asker knows. O(changes), or of everything if `since` is unknown."""
        if not self._forgotten <= since <= self._sequence:
            newest = [block for block in reversed(self._held) if block > 0][:_LARGEST_WHOLE]
            return PrefixChanges(sequence=self._sequence, is_whole=True, added=tuple(newest))
        added: list[int] = []
        removed: list[int] = []
        for block, sequence in reversed(self._log.items()):
            if sequence <= since:
                break
            (added if block in self._held else removed).append(block)
        return PrefixChanges(sequence=self._sequence, is_whole=False, added=tuple(added), removed=tuple(removed))

    def _evict(self) -> None:
        while self._tokens > self._capacity and self._held:
            block, tokens = self._held.popitem(last=False)
            self._tokens -= tokens
            if block > 0:
                self._note(block)

    def _note(self, block: int) -> None:
        """The block changed sides just now."""
        self._log[block] = self._sequence
        self._log.move_to_end(block)
        while len(self._log) > LOGGED_CHANGES:
            self._forgotten = self._log.popitem(last=False)[1]
