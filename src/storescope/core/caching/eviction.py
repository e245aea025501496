"""What a full cache gives up first: two policies behind one small protocol. They are not thread-safe by themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final, Protocol


@dataclass(slots=True, eq=False)
class Entry:
    """One value of a cache; only its deadline is noted later. Two entries are equal if they are the same one."""

    key: Hashable
    value: Any
    #: Until when it is a hit, and until when it is kept at all, on the cache's clock.
    fresh_until: float
    kept_until: float
    #: In bytes, as the cache's weigher has it.
    weight: int
    #: What `Deadlines.drop` takes, if it is noted there.
    deadline: int | None = None


class Policy(Protocol):
    """An order in which to give entries up. Each method is O(1).

    Entries are compared by identity, so that no Python code runs within an `OrderedDict`: a key's `__eq__` that uses
    the cache would leave one that it interrupts broken for good.
    """

    def __len__(self) -> int: ...

    @property
    def touch(self) -> Callable[[Entry], None]:
        """What takes note of a hit; KeyError for an entry that has left meanwhile."""

    def add(self, entry: Entry, *, again: bool) -> None:
        """Take in an entry; `again` says that its key had another one until now."""

    def remove(self, entry: Entry) -> bool:
        """Take out an entry; returns whether it was there."""

    def evict(self) -> Entry:
        """Take out the entry that is to go first; KeyError where there is none."""


class LRU:
    """Give up what was not used for the longest time. Every change of the order is one call into C."""

    def __init__(self) -> None:
        self._order: OrderedDict[Entry, None] = OrderedDict()
        self.touch: Callable[[Entry], None] = self._order.move_to_end

    def __len__(self) -> int:
        return len(self._order)

    def add(self, entry: Entry, *, again: bool) -> None:
        """Make it the newest."""
        self._order[entry] = None

    def remove(self, entry: Entry) -> bool:
        """Take it out, wherever it stands."""
        return self._order.pop(entry, entry) is None

    def evict(self) -> Entry:
        """Take out the oldest."""
        return self._order.popitem(last=False)[0]


class ARC:
    """Give up what was used once or what was used often, in shares that follow the requests; a scan costs little.

    Two LRU lists hold the entries used once and those used again. Beside each stand the hashes of the keys that it
    gave up last: one that comes again shows which list is too short. There are as many of these as entries.
    N. Megiddo and D. S. Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003; here the capacity is
    the number of entries held when one must go, so that it also follows a limit in bytes.
    """

    def __init__(self) -> None:
        self._once: OrderedDict[Entry, None] = OrderedDict()
        self._often: OrderedDict[Entry, None] = OrderedDict()
        self._gone_once: OrderedDict[int, None] = OrderedDict()
        self._gone_often: OrderedDict[int, None] = OrderedDict()
        #: How many entries `_once` should have.
        self._share = 0

    def __len__(self) -> int:
        return len(self._once) + len(self._often)

    def touch(self, entry: Entry) -> None:
        """Make it the newest of those used often."""
        if entry in self._often:
            self._often.move_to_end(entry)
        else:
            del self._once[entry]
            self._often[entry] = None

    def add(self, entry: Entry, *, again: bool) -> None:
        """Put it with those used once, unless its key was there before."""
        entries = self._often if again or self._returned(hash(entry.key)) else self._once
        entries[entry] = None

    def remove(self, entry: Entry) -> bool:
        """Take it out of either list."""
        return self._often.pop(entry, entry) is None or self._once.pop(entry, entry) is None

    def evict(self) -> Entry:
        """Take out the oldest of the list that has more than its share, and remember its key."""
        held = len(self)
        once = bool(self._once) and (len(self._once) > self._share or not self._often)
        entries, gone = (self._once, self._gone_once) if once else (self._often, self._gone_often)
        entry, _ = entries.popitem(last=False)
        gone[hash(entry.key)] = None
        while self._gone_once and len(self._once) + len(self._gone_once) > held:
            self._gone_once.popitem(last=False)
        while self._gone_often and len(self._gone_once) + len(self._gone_often) > held:
            self._gone_often.popitem(last=False)
        return entry

    def _returned(self, key: int) -> bool:
        """Tell whether a key was given up lately, and lengthen the list that should have kept it."""
        once, often = len(self._gone_once), len(self._gone_often)
        if key in self._gone_once:
            del self._gone_once[key]
            self._share = min(self._share + max(1, often // once), len(self))
        elif key in self._gone_often:
            del self._gone_often[key]
            self._share = max(self._share - max(1, once // often), 0)
        else:
            return False
        return True


POLICIES: Final[dict[str, Callable[[], Policy]]] = {"lru": LRU, "arc": ARC}
