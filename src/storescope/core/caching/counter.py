"""A counter that threads may add to without a lock."""

from __future__ import annotations

from itertools import count


class Counter:
    """Count exactly, in one call into C: `itertools.count` is atomic under the GIL.

    Where there is no GIL, whoever adds holds a lock. Whoever reads holds one everywhere.
    """

    __slots__ = ("_reads", "add")

    def __init__(self) -> None:
        #: Add one.
        self.add = count().__next__
        self._reads = 0

    def read(self) -> int:
        """Return what was added until now. Only adding tells it, so that the reads are taken off again."""
        seen = self.add() - self._reads
        self._reads += 1
        return seen
