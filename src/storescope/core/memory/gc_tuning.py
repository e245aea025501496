"""Thresholds of the garbage collector: set, deferred and given back, without undoing what the application sets."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
from types import TracebackType
from typing import Final, TypeAlias

from storescope.core import checks, forks
from storescope.core.errors import CoreError

#: How many container objects may be made, net of those freed, before the youngest are collected; and how many
#: collections of one generation start one of the next.
Threshold: TypeAlias = tuple[int, int, int]
#: Building a million containers took half of the collector's time with it, against CPython 3.13's (2000, 10, 10), and
#: a young collection of ten thousand objects is still well below a millisecond.
ROOMY: Final[Threshold] = (10_000, 10, 10)
#: The collector has them as C's int.
_MOST: Final = 2**31 - 1
#: CPython 3.12 counts immortal objects, some hundred, among the frozen ones, and adds them at any collection.
_IMMORTAL: Final = 1_000 if sys.version_info[:2] == (3, 12) else 0


class Tuning:
    """One wish for thresholds, from `apply()` to `restore()`.

    Thresholds belong to the process. Several tunings may be in force at once, the latest on top, and may be restored in
    any order. The application may set its own at any time, and those win: they stay as they are until the next
    `apply()` or deferral, which is laid over them.
    """

    def apply(self, threshold: Threshold | None = None, *, stacklevel: int = 2) -> Threshold:
        """Collect, freeze what survived, set the thresholds, and return them.

        Blocks for a full collection (tens of milliseconds for some hundred thousand objects). Later collections pass
        over what is frozen (`gc.freeze`), so call this once the program has started up. Without a threshold it is
        ROOMY, but nowhere lower than what is in force. An explicit one is set as it is, with one RuntimeWarning if that
        lowers any of the three.
        """
        wanted = None if threshold is None else checked("threshold", threshold)
        gc.collect()
        before = _process.apply(self, wanted)
        if wanted is not None and any(map(int.__lt__, _comparable(wanted), _comparable(before))):
            warnings.warn(
                f"thresholds of garbage collection are lowered from {before} to {wanted}: it will run more often",
                RuntimeWarning,
                stacklevel=stacklevel,
            )
        return gc.get_threshold()

    def restore(self) -> None:
        """Give back what was found: thresholds unless the application changed them, and `gc.unfreeze()` with the last.

        Nothing is unfrozen where the application froze something itself, before the first tuning or after the latest.
        """
        _process.restore(self)


class deferred_collection:  # noqa: N801 - it is used as a function is, behind `with`
    """Defer automatic collection while latency counts, for at most so many more allocations of containers.

    The bound is the collector's own threshold: nothing has to watch it. When that many container objects were made
    since the block began, net of those freed, the collector runs as usual; else right after the block. Blocks may be
    nested, and overlap in threads and tasks: the largest bound counts until the last of them has ended. The collector
    is that of the process, so every thread's collections wait. `gc.collect()` works as ever, a collector that the
    application disabled stays disabled, and thresholds that it sets inside a block stay as it set them.

    Each is good for one block: CoreError for a second.
    """

    def __init__(self, max_allocations: int = 100_000) -> None:
        self._max_allocations = _in_range("max_allocations", max_allocations, 1)
        #: The thread that entered its block, and will leave it.
        self.thread: int | None = None

    def __enter__(self) -> None:
        if self.thread is not None:
            raise CoreError("a deferral of garbage collection is for one block: make another")
        self.thread = threading.get_ident()
        _process.defer(self, min(self._max_allocations + gc.get_count()[0], _MOST))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _process.resume(self)


def checked(name: str, value: object) -> Threshold:
    """Return three integers of 0 or more; where the first is 0, there is no automatic collection."""
    if not isinstance(value, tuple) or len(value) != len(ROOMY):
        raise TypeError(f"{name} must be a tuple of three integers, not {value!r}")
    first, second, third = (_in_range(f"{name}[{index}]", each, 0) for index, each in enumerate(value))
    return first, second, third


def _in_range(name: str, value: object, least: int) -> int:
    checked = checks.whole(name, value, least)
    if checked > _MOST:
        raise ValueError(f"{name} must be {_MOST} or less, not {value!r}")
    return checked


def _comparable(threshold: Threshold) -> Threshold:
    """Let 0, which switches collection off, be the highest of all."""
    return threshold[0] or 2**63, threshold[1], threshold[2]


def _raised(found: Threshold) -> Threshold:
    return found[0] and max(found[0], ROOMY[0]), max(found[1], ROOMY[1]), max(found[2], ROOMY[2])


class _Process:
    """The thresholds of this process: what the application set, and what is laid over it."""

    def __init__(self) -> None:
        self._application = self._set = gc.get_threshold()
        self._tunings: dict[Tuning, Threshold | None] = {}
        self._sections: dict[deferred_collection, int] = {}
        self._freezers: set[Tuning] = set()
        #: The most that may be frozen if it was all frozen here; -1 where the application froze something itself.
        self._frozen = 0
        # Re-entrant: a finalizer that garbage collection runs may close an optimizer.
        self._lock = threading.RLock()
        forks.after_fork(self._begin_in_child)

    def apply(self, tuning: Tuning, wanted: Threshold | None) -> Threshold:
        with self._lock:
            self._look()
            before = self._tuned()
            self._tunings.pop(tuning, None)
            self._tunings[tuning] = wanted
            self._settle()
            ours = self._frozen if self._freezers else _IMMORTAL
            may_thaw = gc.get_freeze_count() <= ours
            self._freezers.add(tuning)
            gc.freeze()
            self._frozen = gc.get_freeze_count() + _IMMORTAL if may_thaw else -1
        return before

    def restore(self, tuning: Tuning) -> None:
        with self._lock:
            self._look()
            if tuning in self._tunings:
                del self._tunings[tuning]
                self._settle()
            if tuning not in self._freezers:
                return
            self._freezers.discard(tuning)
            if not self._freezers and gc.get_freeze_count() <= self._frozen:
                gc.unfreeze()

    def defer(self, section: deferred_collection, bound: int) -> None:
        with self._lock:
            self._look()
            self._sections[section] = bound
            self._settle()

    def resume(self, section: deferred_collection) -> None:
        with self._lock:
            self._look()
            if section in self._sections:
                del self._sections[section]
                self._settle()

    def _look(self) -> None:
        """Take thresholds that are not ours for the application's, and drop what was laid over its earlier ones."""
        found = gc.get_threshold()
        if found != self._set:
            self._application = self._set = found
            self._tunings.clear()
            self._sections.clear()

    def _settle(self) -> None:
        first, second, third = self._tuned()
        if first and self._sections:
            first = max(first, *self._sections.values())
        gc.set_threshold(first, second, third)
        self._set = gc.get_threshold()  # not always what was set: some releases ignore the third

    def _tuned(self) -> Threshold:
        threshold = self._application
        for wanted in self._tunings.values():
            threshold = _raised(threshold) if wanted is None else wanted
        return threshold

    def _begin_in_child(self) -> None:
        """Drop the blocks of threads that a forked child does not have, since nobody will leave them there."""
        self._lock = threading.RLock()
        gone = [section for section in self._sections if section.thread != threading.get_ident()]
        for section in gone:
            self.resume(section)


_process: Final = _Process()
