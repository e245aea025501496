"""Deadlines in the order of time: what is over is found without a look at what is not."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

T = TypeVar("T")

#: Seconds: what is later never comes up, and no clock goes so far.
NEVER: Final = 1e30

#: A deadline and a serial number in one integer: nanoseconds, and this many bits. It is compared in one step, and the
#: garbage collector has nothing to look at: with tuples in the heap its pauses were the longest of a cache's.
_SERIAL_BITS: Final = 40
_ALL_SERIALS: Final = (1 << _SERIAL_BITS) - 1
#: A dict of 100,000 is rehashed in 7 ms, and none of so many parts is as large.
_PARTS: Final = 16


class Deadlines(Generic[T]):
    """Keep deadlines in a heap: O(log n) to add, O(1) to drop, and no pause in which all of them are tidied up.

    A number that was dropped stays in the heap until it comes up. When most are such, a new heap takes over, and each
    `add` carries a few numbers across: without its last items a heap is still a heap.

    A signal handler, or a finalizer, may call it in the middle of a call: each number is in one heap or in one frame,
    what stands beside it is found or not, and the count of the dropped is only a hint.
    """

    def __init__(self) -> None:
        self._serials = count()
        self._begin()

    def _begin(self) -> None:
        self._heap: list[int] = []
        self._former: list[int] = []
        self._waiting: tuple[dict[int, T], ...] = tuple({} for _ in range(_PARTS))
        self._dropped = 0

    def add(self, when: float, what: T) -> int:
        """Have `what` come up at `when` (before NEVER), to the nanosecond; returns what `drop` takes."""
        number = (math.floor(when * 1e9) << _SERIAL_BITS) + next(self._serials)
        self._waiting[number % _PARTS][number] = what
        heappush(self._heap, number)
        if self._former or self._dropped > len(self._heap) // 2 + _PARTS:
            self._tidy()
        return number

    def drop(self, number: int) -> None:
        """Forget a deadline; one that has come up, or was dropped already, is none."""
        if self._waiting[number % _PARTS].pop(number, None) is not None:
            self._dropped += 1

    def due(self, now: float, most: float = math.inf) -> list[T]:
        """Take out and return what is over at `now`, in `most` steps at most."""
        found: list[T] = []
        latest = (math.floor(now * 1e9) << _SERIAL_BITS) + _ALL_SERIALS
        for heap in (self._heap, self._former):
            while most > 0 and (number := _first(heap, latest)) is not None:
                most -= 1
                what = self._take(number)
                if what is not None:
                    found.append(what)
        return found

    def clear(self) -> object:
        """Forget all of them; returns what they were, for it to end where the caller likes."""
        left = self._waiting
        self._begin()
        return left

    def _take(self, number: int) -> T | None:
        what = self._waiting[number % _PARTS].pop(number, None)
        if what is None:
            self._dropped -= 1
        return what

    def _tidy(self) -> None:
        fresh: list[int] = []
        if not self._former:
            self._former, self._heap = self._heap, fresh
        for _ in range(4):
            try:
                number = self._former.pop()
            except IndexError:
                return
            if number in self._waiting[number % _PARTS]:
                heappush(self._heap, number)
            else:
                self._dropped -= 1


def _first(heap: list[int], latest: int) -> int | None:
    """Take the first number out if it is up to `latest`; asked before and after, for a handler may come between."""
    try:
        if heap[0] > latest:
            return None
        number = heappop(heap)
    except IndexError:
        return None
    if number > latest:
        heappush(heap, number)
        return None
    return number
