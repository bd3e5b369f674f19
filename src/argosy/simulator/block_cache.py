"""The prefix cache of a replica: blocks of prompts, shared, the least recently used ones given up first.

A block can be found from the moment it is computed: of two equal prompts that come at once, each is computed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class BlockCache:
    """Blocks that hold keys and values. Pinned ones are in use; the others stay until their room is needed."""

    __slots__ = ("_added", "_computing", "_idle", "_pins", "_removed")

    def __init__(self) -> None:
        self._pins: dict[int, int] = {}
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._computing: set[int] = set()
        self._added: list[int] = []
        self._removed: list[int] = []

    def __len__(self) -> int:
        return len(self._pins) + len(self._idle)

    @property
    def num_idle(self) -> int:
        """Blocks that could be given up."""
        return len(self._idle)

    def num_held(self, blocks: Sequence[int]) -> int:
        """How many of the leading blocks are here."""
        held = 0
        for block in blocks:
            if (block not in self._pins or block in self._computing) and block not in self._idle:
                break
            held += 1
        return held

    def pin(self, blocks: Sequence[int]) -> None:
        """Keep these blocks until `unpin`; those that are new can be found once they are `computed`."""
        for block in blocks:
            pins = self._pins.get(block)
            if pins is None:
                if block in self._idle:
                    del self._idle[block]
                else:
                    self._computing.add(block)
                self._pins[block] = 1
            else:
                self._pins[block] = pins + 1

    def computed(self, blocks: Sequence[int]) -> None:
        """These can be found from now on."""
        for block in blocks:
            if block in self._computing:
                self._computing.remove(block)
                self._added.append(block)

    def unpin(self, blocks: Sequence[int]) -> None:
        """Give them back, the end of the prompt first: a beginning is worth more than what follows it."""
        for block in reversed(blocks):
            if self._pins[block] > 1:
                self._pins[block] -= 1
            else:
                del self._pins[block]
                self._idle[block] = None

    def evict(self, count: int) -> None:
        """Give up the `count` least recently used idle blocks."""
        for _ in range(count):
            block, _none = self._idle.popitem(last=False)
            self._removed.append(block)

    def take_changes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Blocks that came and went since the last call."""
        changes = tuple(self._added), tuple(self._removed)
        self._added, self._removed = [], []
        return changes
