"""Which replica holds which prefix blocks: fed by the replicas' own reports, and by what was just sent to them.

    index.apply(replica, report.prefix)       after each GET /replica/state?since={index.since(replica)}
    found = index.lookup(blocks, now)          found.held.get(replica, 0), found.first_new_block
    index.mark(replica, blocks, now)           when the request has been sent

Reports are level-triggered: each says what changed since the sequence the asker named, or everything if that is
unknown. A lost report leaves the asker where it was, so the next one brings the same again. What makes no sense (a
sequence that went back) empties the record of that replica and asks for everything: `since` is 0 again.

A report lags behind: a prompt is in the replica's cache once it is computed, and told with the next report. Until
then a mark says so, or ten questions about one new document would go to ten replicas. A mark ends when the report
confirms it (the block counts as held for as long as the reports say) or after MARK_SECONDS, whichever is first, so a
request that failed misleads for that time at most.

A block's holders are one int, a bit per replica: a lookup is one dict access and one `&` per block. One index per
service: `RequestHint` and `EndpointLoad` take what it finds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from argosy.core.load_report import PrefixChanges

MARK_SECONDS = 10.0
MAX_BLOCKS_PER_REPLICA = 65_536  # 16 MiB of prompt text; what a replica reports beyond is not followed.


class Holdings(msgspec.Struct, frozen=True, kw_only=True):
    """What is held of a prompt's beginning.

    held: leading blocks by replica; those with none are absent. first_new_block: the first one that nobody holds after
    those before it; 0 = there is none.
    """

    held: Mapping[str, int] = {}
    first_new_block: int = 0


class _Replica:
    """What one replica holds. bit: its place in a block's holders. marks: block → when the mark ends."""

    def __init__(self, name: str, bit: int) -> None:
        self.name = name
        self.bit = bit
        self.sequence = 0
        self.reported: set[int] = set()
        self.marks: dict[int, float] = {}


class PrefixIndex:
    """Blocks by holder. Units: `now` in seconds, monotonic. Memory: MAX_BLOCKS_PER_REPLICA per replica, twice."""

    def __init__(self, *, mark_seconds: float = MARK_SECONDS) -> None:
        self._mark_seconds = mark_seconds
        self._replicas: dict[str, _Replica] = {}
        self._by_bit: dict[int, _Replica] = {}
        self._holders: dict[int, int] = {}
        self._endings: deque[tuple[float, _Replica, Sequence[int]]] = deque()

    @property
    def num_blocks(self) -> int:
        """Different blocks known to be held."""
        return len(self._holders)

    def since(self, replica: str) -> int:
        """The sequence to name in the next question to a replica; 0 = tell everything."""
        known = self._replicas.get(replica)
        return known.sequence if known else 0

    def apply(self, replica: str, changes: PrefixChanges) -> None:
        """Take in a replica's answer to a question that named `since(replica)`."""
        known = self._replica(replica)
        if changes.is_whole:
            self._remove(known, known.reported.difference(changes.added))
        elif changes.sequence < known.sequence:
            self._remove(known, [*known.reported])
            known.sequence = 0
            return
        self._remove(known, changes.removed)
        self._add(known, changes.added)
        known.sequence = changes.sequence

    def mark(self, replica: str, blocks: Sequence[int], now: float) -> None:
        """Count the blocks as held by a replica to which a request with them was just sent."""
        self._end_marks(now)
        known = self._replica(replica)
        ends = now + self._mark_seconds
        room = MAX_BLOCKS_PER_REPLICA - len(known.marks)
        fresh = [block for block in blocks if block not in known.reported][: max(room, 0)]
        if not fresh:
            return
        for block in fresh:
            known.marks[block] = ends
            self._holders[block] = self._holders.get(block, 0) | known.bit
        self._endings.append((ends, known, fresh))

    def lookup(self, blocks: Sequence[int], now: float) -> Holdings:
        """Who holds how much of a prompt's beginning. O(len(blocks))."""
        self._end_marks(now)
        holders = self._holders
        alive = holders.get(blocks[0], 0) if blocks else 0
        held: dict[str, int] = {}
        for count, block in enumerate(blocks):
            still = alive & holders.get(block, 0)
            if still != alive:
                self._note(held, alive ^ still, count)
                alive = still
            if not alive:
                return Holdings(held=held, first_new_block=block)
        self._note(held, alive, len(blocks))
        return Holdings(held=held)

    def held_blocks(self, replica: str, blocks: Sequence[int]) -> int:
        """How many leading blocks one replica holds."""
        known = self._replicas.get(replica)
        if known is None:
            return 0
        for count, block in enumerate(blocks):
            if not self._holders.get(block, 0) & known.bit:
                return count
        return len(blocks)

    def forget(self, replica: str) -> None:
        """A replica is gone, and its cache with it."""
        known = self._replicas.pop(replica, None)
        if known is None:
            return
        for block in known.reported.union(known.marks):
            self._clear(known, block)
        known.marks = {}
        del self._by_bit[known.bit]

    def keep_only(self, replicas: Iterable[str]) -> None:
        """Forget every replica but these."""
        for gone in self._replicas.keys() - set(replicas):
            self.forget(gone)

    def _replica(self, name: str) -> _Replica:
        known = self._replicas.get(name)
        if known is None:
            bit = 1
            while bit in self._by_bit:
                bit <<= 1
            known = self._replicas[name] = self._by_bit[bit] = _Replica(name, bit)
        return known

    def _note(self, held: dict[str, int], bits: int, count: int) -> None:
        """All replicas of `bits` hold `count` blocks."""
        while bits:
            bit = bits & -bits
            held[self._by_bit[bit].name] = count
            bits ^= bit

    def _add(self, known: _Replica, blocks: Iterable[int]) -> None:
        for block in blocks:
            if len(known.reported) >= MAX_BLOCKS_PER_REPLICA:
                return
            known.reported.add(block)
            known.marks.pop(block, None)
            self._holders[block] = self._holders.get(block, 0) | known.bit

    def _remove(self, known: _Replica, blocks: Iterable[int]) -> None:
        """The replica holds these no more, unless a request that will bring them back is on its way."""
        for block in blocks:
            known.reported.discard(block)
            if block not in known.marks:
                self._clear(known, block)

    def _clear(self, known: _Replica, block: int) -> None:
        left = self._holders.get(block, 0) & ~known.bit
        if left:
            self._holders[block] = left
        else:
            self._holders.pop(block, None)

    def _end_marks(self, now: float) -> None:
        while self._endings and self._endings[0][0] <= now:
            ends, known, blocks = self._endings.popleft()
            for block in blocks:
                if known.marks.get(block) == ends:
                    del known.marks[block]
                    if block not in known.reported:
                        self._clear(known, block)
