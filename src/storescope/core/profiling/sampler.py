"""A sampling profiler of operations, told apart by the frame that opened them: it holds across `await`."""

from __future__ import annotations

import atexit
import logging
import math
import random
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Final

from storescope.core import checks, forks
from storescope.core.errors import Closed
from storescope.core.profiling import interpreter
from storescope.core.profiling.sampled_operation import Operation
from storescope.core.profiling.stacks import running_stacks, suspended_stack
from storescope.core.stats import SamplerStats

if TYPE_CHECKING:
    from typing_extensions import Self

_log = logging.getLogger(__name__)

#: How many ticks without any operation it takes until the thread parks: short operations in a row wake it once.
_EMPTY_TICKS: Final = 5
#: How many suspended operations are looked at in one tick. The others have their turn, and lose no time by it.
_SUSPENDED_PER_TICK: Final = 32


class Sampler:
    """Look at the stacks of operations `rate` times a second, from one thread that sleeps while there are none.

        sampler = Sampler()
        with sampler.operation("checkout") as operation:
            ...
        print(operation.profile().text())

    Looks come at random distances (half to one and a half periods), so that they do not keep step with the program.
    Functions in C are seen as the function that calls them. Of an operation at most `max_stacks` different stacks are
    kept, of a stack `max_depth` frames; more than `max_operations` at a time are not sampled. While operations are
    open, of which not more than one thread's use the CPU, and up to ten periods longer, the interpreter's switch
    interval is 1 ms. Without the GIL frames of running
    threads cannot be read: the sampler is off then, with a warning, and its operations are empty. A forked child
    samples what it opens itself. `clock` gives seconds; `random` numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        rate: float = 100.0,
        max_depth: int = 64,
        max_stacks: int = 1000,
        max_operations: int = 1000,
        clock: Callable[[], float] = time.perf_counter,
        random: Callable[[], float] = random.random,
        name: str = "sampler",
    ) -> None:
        #: Mean seconds from one look to the next.
        self.period = 1 / checks.number("rate", rate, 1, 1000)
        self.max_depth = checks.whole("max_depth", max_depth, 3)
        self.max_stacks = checks.whole("max_stacks", max_stacks)
        self.max_operations = checks.whole("max_operations", max_operations)
        self.clock = checks.function("clock", clock)
        self.name = checks.text("name", name)
        self._random = checks.function("random", random)
        checks.number("clock()", self.clock(), -math.inf)
        self._pause()  # raises where `random` gives what is none
        #: Why nothing is sampled; None where it is.
        self.off = interpreter.why_no_sampling()
        if self.off:
            warnings.warn(f"{name} samples nothing: {self.off}", RuntimeWarning, stacklevel=2)
        self._ticks = self._refused = self._lost = 0
        self._closed = False
        self._set_up()
        forks.after_fork(self._set_up)

    def _set_up(self) -> None:
        """Make what a forked child needs anew: there is no thread in it."""
        self._operations: dict[FrameType, tuple[Operation, ...]] = {}
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._parked = False

    def operation(self, name: str, *, frame: FrameType | None = None) -> Operation:
        """Return a context manager; what its block does is sampled, wherever the block goes on after an `await`.

        `frame` is the frame to know it by, where that is another than the one with the block. Raises Closed.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be a text, not {name!r}")
        if frame is not None and not isinstance(frame, FrameType):
            raise TypeError(f"frame must be a frame, not {frame!r}")
        if self._closed:
            raise Closed(f"{self.name} is closed")
        return Operation(self, name, frame)

    def add(self, frame: FrameType, operation: Operation) -> None:
        """Begin to look at an operation that was entered."""
        if self.off or self._closed:
            return
        if len(self._operations) >= self.max_operations:
            self._refused += 1
            return
        self._operations[frame] = (*self._operations.get(frame, ()), operation)
        if self._thread is None:
            self._start()
        elif self._parked:
            self._wake.set()

    def remove(self, frame: FrameType, operation: Operation) -> None:
        """Look no more at an operation that ends."""
        left = tuple(other for other in self._operations.get(frame, ()) if other is not operation)
        if left:
            self._operations[frame] = left
        else:
            self._operations.pop(frame, None)

    def close(self) -> None:
        """End the thread, for which it waits up to two periods; operations under way keep what was seen of them."""
        self._closed = True
        self._closing.set()
        self._wake.set()
        atexit.unregister(self.close)
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._operations.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def stats(self) -> SamplerStats:
        """Return what it samples now, and has done."""
        return SamplerStats(
            operations=sum(map(len, list(self._operations.values()))),
            parked=self._parked or self._thread is None,
            ticks=self._ticks,
            refused=self._refused,
            lost=self._lost,
        )

    def get_stats(self) -> dict[str, int | bool]:
        """Return the same as a dict."""
        stats = self.stats()
        return {field: getattr(stats, field) for field in SamplerStats.__slots__}

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._run, name=f"storescope-{self.name}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no thread can be had, or the interpreter is about to end
                self.off = str(error)
                self._operations.clear()
                return
            self._thread = thread
            atexit.register(self.close)

    def _run(self) -> None:
        while not self._closing.is_set():
            interpreter.SWITCH_INTERVAL.shorten()
            try:
                self._look_until_idle()
            except Exception as error:  # of `clock` or `random`
                _log.warning("%s samples nothing any more", self.name, exc_info=True)
                self.off = str(error)
                self._operations.clear()
                return
            finally:
                interpreter.SWITCH_INTERVAL.restore()
            self._park()

    def _park(self) -> None:
        """Sleep until an operation is added. It is added before `_parked` is read, so none is missed."""
        self._parked = True
        if not self._operations:
            self._wake.wait()
        self._parked = False
        self._wake.clear()

    def _look_until_idle(self) -> None:
        empty, last_tick = 0, self.clock()
        while empty < _EMPTY_TICKS and not self._closing.wait(self._pause()):
            now = self.clock()
            empty = 0 if self._operations else empty + 1
            if not empty:
                self._look(now, last_tick)
            last_tick = now

    def _pause(self) -> float:
        """Return the seconds until the next look."""
        return self.period * (0.5 + checks.number("random()", self._random(), 0, 1))

    def _look(self, now: float, last_tick: float) -> None:
        """Look once at every operation in a thread, and at some of those that are in none."""
        self._ticks += 1
        operations = dict(self._operations)
        with interpreter.safe_to_walk():
            running = running_stacks(self._threads(operations), operations, self.max_depth)
            for frame, (thread, stack) in running.items():
                for operation in operations.pop(frame):
                    operation.saw_running(now, last_tick, thread, stack)
            resumable = [frame for frame, (first, *_) in operations.items() if first.is_resumable]
            self._lost += len(operations) - len(resumable)
            for frame in self._in_turn(resumable):
                outermost = operations[frame][0].outermost_coroutine
                stack = suspended_stack(frame, outermost, self.max_depth)
                for operation in operations[frame]:
                    operation.saw_suspended(now, last_tick, stack)

    def _threads(self, operations: dict[FrameType, tuple[Operation, ...]]) -> dict[int, FrameType]:
        """Return the innermost frames of all threads, first of those in which operations were entered."""
        innermost = sys._current_frames()
        innermost.pop(threading.get_ident(), None)
        likely = {first.thread for first, *_ in operations.values()} & innermost.keys()
        return {**{thread: innermost[thread] for thread in likely}, **innermost}

    def _in_turn(self, frames: list[FrameType]) -> list[FrameType]:
        if len(frames) <= _SUSPENDED_PER_TICK:
            return frames
        begin = self._ticks * _SUSPENDED_PER_TICK % len(frames)
        return (frames + frames)[begin : begin + _SUSPENDED_PER_TICK]

    def __repr__(self) -> str:
        if self.off or self._closed:
            state = "closed" if self._closed else f"off, {self.off}"
        else:
            state = "parked" if self.stats().parked else f"{1 / self.period:g} Hz"
        return f"<Sampler {self.name!r}: {state}, {self.stats().operations} operations>"
