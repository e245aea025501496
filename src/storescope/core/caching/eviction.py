"""What a full cache gives up first: two policies behind one small protocol. They are not thread-safe by themselves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
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
    the cache would leave one that it interrupts broken for good. A signal handler may use the cache between any two
    calls: what has to go together is written without one (by index and `del`), and the rest finds less than it saw.
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

    def clear(self) -> list[Entry]:
        """Take out and return all of them, in O(n). `touch` is another one afterwards."""


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

    def clear(self) -> list[Entry]:
        """Begin anew."""
        fresh: OrderedDict[Entry, None] = OrderedDict()
        left, self._order = self._order, fresh
        self.touch = fresh.move_to_end
        return list(left)


class ARC:
    """Give up what was used once or what was used often, in shares that follow the requests; a scan costs little.

    Two LRU lists hold the entries used once and those used again. Beside each stand the hashes of the keys that it
    gave up last: one that comes again shows which list is too short. There are as many of these as entries.
    N. Megiddo and D. S. Modha, "ARC: A Self-Tuning, Low Overhead Replacement Cache", FAST 2003; here the capacity is
    the number of entries held when one must go, so that it also follows a limit in bytes.
    """

    def __init__(self) -> None:
        #: With the hash of its key, which Python code may have to tell, and does so in `add` alone.
        self._once: OrderedDict[Entry, int] = OrderedDict()
        self._often: OrderedDict[Entry, int] = OrderedDict()
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
            hashed = self._once[entry]
            del self._once[entry]
            self._often[entry] = hashed

    def add(self, entry: Entry, *, again: bool) -> None:
        """Put it with those used once, unless its key was there before."""
        hashed = hash(entry.key)
        if again or self._returned(hashed):
            self._often[entry] = hashed
        else:
            self._once[entry] = hashed

    def remove(self, entry: Entry) -> bool:
        """Take it out of either list."""
        return self._often.pop(entry, None) is not None or self._once.pop(entry, None) is not None

    def evict(self) -> Entry:
        """Take out the oldest of the list that has more than its share, and remember its key."""
        held = len(self)
        once = bool(self._once) and (len(self._once) > self._share or not self._often)
        entries, gone = (self._once, self._gone_once) if once else (self._often, self._gone_often)
        entry, hashed = entries.popitem(last=False)
        gone[hashed] = None
        with suppress(KeyError):
            while self._gone_once and len(self._once) + len(self._gone_once) > held:
                self._gone_once.popitem(last=False)
            while self._gone_often and len(self._gone_once) + len(self._gone_often) > held:
                self._gone_often.popitem(last=False)
        return entry

    def clear(self) -> list[Entry]:
        """Begin anew, also with what it has learned."""
        once: OrderedDict[Entry, int] = OrderedDict()
        often: OrderedDict[Entry, int] = OrderedDict()
        left_once, left_often, self._once, self._often = self._once, self._often, once, often
        self._gone_once, self._gone_often = OrderedDict(), OrderedDict()
        self._share = 0
        return [*left_once, *left_often]

    def _returned(self, key: int) -> bool:
        """Tell whether a key was given up lately, and lengthen the list that should have kept it."""
        once, often = len(self._gone_once), len(self._gone_often)
        if key in self._gone_once:
            del self._gone_once[key]
            self._share = min(self._share + max(1, often // max(once, 1)), len(self))
        elif key in self._gone_often:
            del self._gone_often[key]
            self._share = max(self._share - max(1, once // max(often, 1)), 0)
        else:
            return False
        return True


POLICIES: Final[dict[str, Callable[[], Policy]]] = {"lru": LRU, "arc": ARC}
