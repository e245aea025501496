"""A ring of the pauses that garbage collection made, written from inside the collector and read from anywhere."""

from __future__ import annotations

import contextlib
import gc
import math
import threading
import time
from array import array
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from storescope.core import checks, forks
from storescope.core.stats import GCPauses

if TYPE_CHECKING:
    from typing_extensions import Self

_GENERATIONS: Final = 3
#: The writer's numbers, in one array so that a reader copies them in one step: how many pauses it began and how many
#: it finished to write (different while it writes), when the running collection began (0: none runs), then by
#: generation how many pauses there were, their nanoseconds, and the longest.
_OPENED, _CLOSED, _BEGAN, _COUNTS = 0, 1, 2, 3
_TOTALS: Final = _COUNTS + _GENERATIONS
_LONGEST: Final = _TOTALS + _GENERATIONS
_CELLS: Final = _LONGEST + _GENERATIONS
#: A reader that always meets a half-written state sits in a signal handler that interrupted the writer.
_TRIES: Final = 100


class Pause(NamedTuple):
    """One collection: when it began and ended (ns of the ring's clock), and how many objects it freed."""

    start_ns: int
    end_ns: int
    generation: int
    collected: int


@dataclass(frozen=True, slots=True)
class Pauses:
    """What `PauseRing.read` found: the pauses, oldest first, and how many were overwritten before they were read."""

    pauses: tuple[Pause, ...]
    lost: int
    #: Give it to the next `read` to go on from here.
    cursor: int


class PauseRing:
    """Remember the latest `capacity` pauses, and the number, sum and longest of all.

    `install()` adds one entry to `gc.callbacks`, shared by all who installed the ring; the last `uninstall()` removes
    it. A collection costs about 1.2 µs more. The entry writes integers into arrays made beforehand: it takes no lock,
    allocates no container and calls nothing but the clock, since it runs wherever an allocation happens to be, under
    whatever locks. The collector runs one collection at a time, so there is one writer. Readers take no lock either;
    they notice what was overwritten while they read. A forked child begins with empty statistics.

    `clock` gives nanoseconds, and operations that are compared with pauses (`overlap`) have to use the same.
    """

    def __init__(
        self, capacity: int = 4096, *, clock: Callable[[], int] = time.perf_counter_ns, name: str = "gc"
    ) -> None:
        self.name = name
        self.capacity = checks.whole("capacity", capacity, 2)
        self._cells = array("q", [0] * _CELLS)
        self._starts = array("q", [0] * capacity)
        self._ends = array("q", [0] * capacity)
        self._generations = array("b", [0] * capacity)
        self._collected = array("q", [0] * capacity)
        self._record = self._recorder(checks.function("clock", clock))
        self._first = 0
        self._users = 0
        self._lock = threading.RLock()
        forks.after_fork(self._begin_in_child)

    def install(self) -> None:
        """Begin to record, or note one more who wants it."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._cells[_BEGAN] = 0
                gc.callbacks.append(self._record)

    def uninstall(self) -> None:
        """Stop to record once every `install()` has been undone; what was recorded stays. Once too often is nothing."""
        with self._lock:
            self._users = max(self._users - 1, 0)
            if self._users == 0:
                with contextlib.suppress(ValueError):  # never installed, or removed by somebody else
                    gc.callbacks.remove(self._record)
                self._cells[_BEGAN] = 0

    @property
    def written(self) -> int:
        """How many pauses have been written so far; the cursor for a `read` of what follows."""
        return self._cells[_CLOSED]

    def overlap(self, start_ns: int, end_ns: int) -> tuple[int, float]:
        """Return how many collections ran between two times, and for how many seconds of that time.

        A collection that runs at this moment counts up to `end_ns`. Of a span so long that its first pauses have been
        overwritten, the latest `capacity` count.
        """
        cells = self._cells
        running, number = cells[_BEGAN], cells[_CLOSED]
        count = nanoseconds = 0
        if end_ns <= start_ns or (not running and self._ends[(number - 1) % self.capacity] <= start_ns):
            return 0, 0.0  # as most short operations find it, in a tenth of a microsecond
        if 0 < running < end_ns:
            count, nanoseconds = 1, end_ns - max(running, start_ns)
        while number > self._first:
            number -= 1
            pause = self._at(number)
            if pause is None or pause.end_ns <= start_ns:
                break
            # One that ended since it was seen running is in both places.
            if pause.start_ns < end_ns and pause.start_ns != running:
                count += 1
                nanoseconds += min(pause.end_ns, end_ns) - max(pause.start_ns, start_ns)
        return count, nanoseconds / 1e9

    def read(self, cursor: int = 0) -> Pauses:
        """Return the pauses since a cursor, or all that are left, in the order in which they happened."""
        written = self._cells[_CLOSED]
        begin = max(checks.whole("cursor", cursor, 0), self._first)
        kept = [self._at(number) for number in range(max(begin, written - self.capacity), written)]
        pauses = tuple(pause for pause in kept if pause is not None)
        return Pauses(pauses, lost=max(written - begin, 0) - len(pauses), cursor=written)

    def stats(self, generation: int | None = None) -> GCPauses:
        """Return the pauses of a generation (0, 1, 2) or of all, in seconds.

        Number, sum and longest are of all pauses since the ring was first installed, the quantiles of those that it
        still holds.
        """
        wanted = range(_GENERATIONS)
        if generation is not None:
            first = checks.whole("generation", generation, 0)
            wanted = range(first, first + 1)
            if first >= _GENERATIONS:
                raise ValueError(f"generation must be 0, 1 or 2, not {generation!r}")
        cells = self._consistent_cells()
        durations = sorted(
            (pause.end_ns - pause.start_ns) / 1e9
            for pause in self.read().pauses
            if pause.generation in wanted
        )
        return GCPauses(
            count=sum(cells[_COUNTS + each] for each in wanted),
            total=sum(cells[_TOTALS + each] for each in wanted) / 1e9,
            longest=max(cells[_LONGEST + each] for each in wanted) / 1e9,
            p50=_quantile(durations, 0.50),
            p95=_quantile(durations, 0.95),
            p99=_quantile(durations, 0.99),
        )

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics of each generation, under "generations", and of all."""
        by_generation = [asdict(self.stats(each)) for each in range(_GENERATIONS)]
        return {**asdict(self.stats()), "lost": self.read().lost, "generations": by_generation}

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uninstall()

    def __repr__(self) -> str:
        state = "recording" if self._users else "not recording"
        return f"<PauseRing {self.name!r}: {state}, {self.written} pauses, {self.read().lost} overwritten>"

    def _recorder(self, clock: Callable[[], int]) -> Callable[[str, dict[str, int]], None]:
        """Return the entry of `gc.callbacks`: a closure, since it is what every collection pays for."""
        cells, starts, ends = self._cells, self._starts, self._ends
        generations, collected, capacity = self._generations, self._collected, self.capacity

        def record(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                cells[_BEGAN] = clock()
                return
            began = cells[_BEGAN]
            if not began:  # installed in the middle of a collection
                return
            ended = clock()
            number = cells[_CLOSED]
            cells[_OPENED] = number + 1
            slot = number % capacity
            generation = info["generation"]
            starts[slot] = began
            ends[slot] = ended
            generations[slot] = generation
            collected[slot] = info["collected"]
            pause = ended - began
            cells[_COUNTS + generation] += 1
            cells[_TOTALS + generation] += pause
            if pause > cells[_LONGEST + generation]:
                cells[_LONGEST + generation] = pause
            cells[_CLOSED] = number + 1
            cells[_BEGAN] = 0

        return record

    def _at(self, number: int) -> Pause | None:
        """Return a pause by its number, None where it was overwritten before or while it was read."""
        slot = number % self.capacity
        pause = Pause(self._starts[slot], self._ends[slot], self._generations[slot], self._collected[slot])
        return pause if self._cells[_OPENED] - number <= self.capacity else None

    def _consistent_cells(self) -> array[int]:
        for _ in range(_TRIES):
            cells = self._cells[:]
            if cells[_OPENED] == cells[_CLOSED]:
                break
            time.sleep(0)  # lets the thread go on that was interrupted in the middle of writing
        return cells

    def _begin_in_child(self) -> None:
        self._lock = threading.RLock()
        cells = self._cells
        cells[_BEGAN], cells[_OPENED] = 0, cells[_CLOSED]
        for cell in range(_COUNTS, _CELLS):
            cells[cell] = 0
        self._first = cells[_CLOSED]  # numbers go on, so that cursors stay what they are


def _quantile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least a share of all does not exceed; 0 where there is none."""
    return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0


#: The ring of this process, which all share who watch pauses.
pause_ring: Final = PauseRing()
