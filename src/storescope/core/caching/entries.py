"""The entries of a cache: what is kept, how long, and in what space. Whoever calls this holds the cache's lock."""

from __future__ import annotations

import math
from collections.abc import Hashable
from contextlib import suppress
from typing import Final

from storescope.core.caching.eviction import POLICIES, Entry, Policy
from storescope.core.caching.expiry import NEVER, Deadlines

#: Entries of a part, of which a larger cache has several; and the most parts that it has.
PART_SIZE: Final = 16_384
MAX_PARTS: Final = 15
#: Deadlines that one `put` looks after: many more than it makes, and never a pause.
DUE_PER_PUT: Final = 32


class Part:
    """Entries by key, and the order in which they go.

    `find(key)` is one call into C, and so is `touch(entry)` of the policy `lru`: under the GIL they need no lock.
    """

    __slots__ = ("entries", "find", "policy", "touch")

    def __init__(self, policy: Policy) -> None:
        self.entries: dict[Hashable, Entry] = {}
        self.find = self.entries.get
        #: What stands in the order is what is held, and counts.
        self.policy = policy
        self.touch = policy.touch


class Entries:
    """Hold entries within `max_size` and `max_bytes`, and count why they leave.

    A large cache has its entries in parts, by the hashes of their keys, as set-associative caches do: a dict is
    rehashed now and then, in 7 ms where it has 100,000 entries, and none of the parts has as many. What goes first is
    what the policy says of one part; parts of thousands are too much alike for that to show in hit ratios.

    A key's comparison, a signal handler or a finalizer may use the cache in the middle of a change, and even clear it.
    So parts stay the same objects for good; what is counted goes by the order, which takes each entry in and out once;
    counts are only added to; and whoever has put an entry in looks whether it is still found.
    """

    def __init__(self, policy: str, max_size: int | None, max_bytes: int | None) -> None:
        self._make_policy = POLICIES[policy]
        self._max_size = math.inf if max_size is None else max_size
        self._max_bytes = math.inf if max_bytes is None else max_bytes
        self.by_size = self.by_ttl = self.explicitly = 0
        parts = 1
        if self._max_bytes == math.inf:  # else it may be that a few entries are all that it allows
            parts = int(self._max_size) // PART_SIZE | 1  # odd, for keys in steps of 2, 4, 8, ...
            parts = min(parts, MAX_PARTS)
        self.parts = tuple(Part(self._make_policy()) for _ in range(parts))
        self._deadlines: Deadlines[Entry] = Deadlines()
        self._size = self.bytes = 0

    def __len__(self) -> int:
        return self._size

    def part(self, key: Hashable) -> Part:
        """Return the part that a key belongs to; TypeError for a key that cannot be hashed."""
        try:
            return self.parts[hash(key) % len(self.parts)]
        except TypeError as error:
            raise TypeError(f"key must be hashable, not {key!r}") from error

    def find(self, key: Hashable) -> Entry | None:
        """Return a key's entry, also one that has expired; this is no use of it."""
        return self.part(key).find(key)

    def touch(self, entry: Entry) -> None:
        """Take note of a use."""
        try:  # noqa: SIM105 - suppress takes longer than all the rest
            self.part(entry.key).touch(entry)
        except KeyError:
            pass  # it has left just now

    def put(self, entry: Entry, now: float) -> list[Entry]:
        """Keep an entry in place of its key's former one, and return those that had to leave."""
        part = self.part(entry.key)
        left = self._due(now, DUE_PER_PUT)
        former = part.entries.pop(entry.key, None)
        if former is not None and self._leave(part, former):
            self.by_ttl += now >= former.kept_until
            left.append(former)
        if entry.weight > self._max_bytes:
            self.by_size += 1
            return left
        self._make_room(part, now, left, 1, entry.weight)
        part.entries[entry.key] = entry
        part.policy.add(entry, again=former is not None)
        self._size += 1
        self.bytes += entry.weight
        if entry.kept_until < NEVER:
            entry.deadline = self._deadlines.add(entry.kept_until, entry)
        if part.find(entry.key) is not entry:  # it was replaced or taken out meanwhile
            self._leave(part, entry)
            self._drop_deadline(entry)
        self._make_room(part, now, left)  # others may have been set meanwhile
        return left

    def take(self, key: Hashable, now: float) -> Entry | None:
        """Take out a key's entry on purpose; one that has expired is none."""
        part = self.part(key)
        entry = part.entries.pop(key, None)
        if entry is None or not self._leave(part, entry):
            return None
        if now >= entry.kept_until:
            self.by_ttl += 1
            return None
        self.explicitly += 1
        return entry

    def expire(self, now: float) -> list[Entry]:
        """Take out and return all that has expired."""
        return self._due(now, math.inf)

    def clear(self) -> object:
        """Take out everything on purpose; returns it, for it to end outside of the lock."""
        left = [self._clear(part) for part in self.parts]
        return left, self._deadlines.clear()

    def _clear(self, part: Part) -> list[Entry]:
        left = part.policy.clear()
        number, weight = len(left), sum(entry.weight for entry in left)
        self._size -= number
        self.bytes -= weight
        self.explicitly += number
        part.touch = part.policy.touch
        with suppress(KeyError):
            while part.entries:  # `clear` within a key's comparison breaks a dict of CPython 3.11
                part.entries.popitem()
        return left

    def _due(self, now: float, most: float) -> list[Entry]:
        left = self._deadlines.due(now, most)
        for entry in left:
            part = self.part(entry.key)
            if self._leave(part, entry):
                self.by_ttl += 1
            self._forget(part, entry)
        return left

    def _make_room(
        self, part: Part, now: float, left: list[Entry], entries: int = 0, weight: int = 0
    ) -> None:
        while self._has_no_room(entries, weight):
            try:
                left.append(self._evict(part, now))
            except KeyError:  # whoever interrupted this has emptied it
                return

    def _has_no_room(self, entries: int, weight: int) -> bool:
        if self._size + entries > self._max_size:
            return True
        return self.bytes + weight > self._max_bytes and self._size > 0

    def _evict(self, part: Part, now: float) -> Entry:
        """Make room in a part, or in the fullest where that one has less than half of its share."""
        if 2 * len(part.policy) * len(self.parts) < self._size:
            part = max(self.parts, key=lambda each: len(each.policy))
        entry = part.policy.evict()
        self._release(entry)
        self._forget(part, entry)
        if now < entry.kept_until:
            self.by_size += 1
        else:
            self.by_ttl += 1
        return entry

    def _leave(self, part: Part, entry: Entry) -> bool:
        """Take an entry out of the order; returns whether it was there."""
        was_there = part.policy.remove(entry)
        if was_there:
            self._release(entry)
        return was_there

    def _release(self, entry: Entry) -> None:
        self._size -= 1
        self.bytes -= entry.weight
        self._drop_deadline(entry)

    def _drop_deadline(self, entry: Entry) -> None:
        if entry.deadline is not None:
            self._deadlines.drop(entry.deadline)

    def _forget(self, part: Part, entry: Entry) -> None:
        """Let its key find an entry no more, if it still does."""
        if part.find(entry.key) is entry:
            part.entries.pop(entry.key, None)
