"""The policies that were measured beside those that are shipped, each as short as it can be: keys only."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

Keys = OrderedDict[int, int]


class Candidate(Protocol):
    """A cache of keys."""

    def ask(self, key: int) -> bool:
        """Tell whether a key is there, and see that it is."""


class Sieve:
    """SIEVE (Zhang et al., NSDI 2024): a hand goes from old to new and takes out what was not asked for since.

    What it passes by keeps its place: here the queue is cut at the hand into what is older and what is newer.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.passed, self.ahead = Keys(), Keys()

    def ask(self, key: int) -> bool:
        for queue in (self.passed, self.ahead):
            if key in queue:
                queue[key] = 1
                return True
        while len(self.passed) + len(self.ahead) >= self.size:
            if not self.ahead:
                self.passed, self.ahead = self.ahead, self.passed
            oldest, visited = self.ahead.popitem(last=False)
            if visited:
                self.passed[oldest] = 0
        self.ahead[key] = 0
        return False


class S3FIFO:
    """S3-FIFO (Yang et al., SOSP 2023): a small queue for newcomers, a main one, and a memory of keys."""

    def __init__(self, size: int, small: float = 0.1) -> None:
        self.size, self.small_size = size, max(1, int(size * small))
        self.small, self.main, self.gone = Keys(), Keys(), Keys()

    def ask(self, key: int) -> bool:
        for queue in (self.small, self.main):
            if key in queue:
                queue[key] = min(3, queue[key] + 1)
                return True
        while len(self.small) + len(self.main) >= self.size:
            self._evict()
        queue = self.small if self.gone.pop(key, None) is None else self.main
        queue[key] = 0
        return False

    def _evict(self) -> None:
        if len(self.small) >= self.small_size or not self.main:
            key, asked = self.small.popitem(last=False)
            if asked:
                self.main[key] = 0
                return
            self.gone[key] = 1
            if len(self.gone) > self.size:
                self.gone.popitem(last=False)
            return
        key, asked = self.main.popitem(last=False)
        if asked:
            self.main[key] = asked - 1


class TwoQueues:
    """2Q (Johnson and Shasha, VLDB 1994): a queue for newcomers, LRU for those that come back from its memory."""

    def __init__(self, size: int) -> None:
        self.size, self.in_size, self.out_size = size, size // 4, size // 2
        self.newcomers, self.gone, self.main = Keys(), Keys(), Keys()

    def ask(self, key: int) -> bool:
        if key in self.main:
            self.main.move_to_end(key)
            return True
        if key in self.newcomers:
            return True
        back = self.gone.pop(key, None) is not None
        if len(self.newcomers) + len(self.main) >= self.size:
            if len(self.newcomers) > self.in_size or not self.main:
                self.gone[self.newcomers.popitem(last=False)[0]] = 1
                if len(self.gone) > self.out_size:
                    self.gone.popitem(last=False)
            else:
                self.main.popitem(last=False)
        (self.main if back else self.newcomers)[key] = 1
        return False


class TinyLFU:
    """W-TinyLFU (Einziger et al., 2017): a window, and a main part that newcomers enter if they are asked for more.

    Requests are counted exactly, which is what its sketch comes near to, and halved after ten times the size.
    """

    def __init__(self, size: int, window: float = 0.01) -> None:
        self.window_size = max(1, int(size * window))
        self.main_size = size - self.window_size
        self.protected_size = int(self.main_size * 0.8)
        self.sample = 10 * size
        self.window, self.probation, self.protected = Keys(), Keys(), Keys()
        self.counts: dict[int, int] = {}
        self.counted = 0

    def ask(self, key: int) -> bool:
        self._count(key)
        for queue in (self.window, self.protected):
            if key in queue:
                queue.move_to_end(key)
                return True
        if key in self.probation:
            self.protected[key] = self.probation.pop(key)
            if len(self.protected) > self.protected_size:
                self.probation[self.protected.popitem(last=False)[0]] = 1
            return True
        self.window[key] = 1
        if len(self.window) > self.window_size:
            self._admit(self.window.popitem(last=False)[0])
        return False

    def _admit(self, candidate: int) -> None:
        if len(self.probation) + len(self.protected) >= self.main_size:
            queue = self.probation or self.protected
            victim = next(iter(queue))
            if self.counts.get(candidate, 0) <= self.counts.get(victim, 0):
                return
            del queue[victim]
        self.probation[candidate] = 1

    def _count(self, key: int) -> None:
        self.counts[key] = min(15, self.counts.get(key, 0) + 1)
        self.counted += 1
        if self.counted >= self.sample:
            self.counts = {each: count // 2 for each, count in self.counts.items() if count > 1}
            self.counted //= 2


CANDIDATES: Final[dict[str, Callable[[int], Candidate]]] = {
    "SIEVE": Sieve,
    "S3-FIFO": S3FIFO,
    "S3-FIFO, small 25 %": lambda size: S3FIFO(size, 0.25),
    "2Q": TwoQueues,
    "W-TinyLFU": TinyLFU,
    "W-TinyLFU, window 20 %": lambda size: TinyLFU(size, 0.2),
}
