"""cProfile as it can be left in a live program: one thread of the process at a time, and never an error.

From 3.12 on cProfile is one for the whole process: a second one raises ValueError wherever it starts, a thread that
dies without ending it keeps it for ever, and calls of other threads land in it. Before, it is one per thread, and a
second one silently ends the first. So there is one slot for the process here, which nobody waits for.
"""

from __future__ import annotations

import cProfile
import sys
import threading
import time
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType
from typing import Any

from storescope.core import checks, forks, gil
from storescope.core.profiling.profile import Exclusivity, Frame, FunctionTime, Profile, Sample, frame_of

_PROCESS_WIDE = sys.version_info >= (3, 12)
#: CPU seconds of other threads, and their part of the profiled time, up to which a profile counts as exclusive: what
#: reading two clocks one after the other can be off by.
_NOISE, _NOISE_PART = 50e-6, 0.01
#: Seconds; what a difference of sums can be off by.
_ROUNDING = 1e-9
_NOTHING = (0, 0.0, 0.0)
#: The profiler's own functions are in these files, and what the user's are called by in the last one alone.
_OWN_FILES = (str(Path(__file__).parent), checks.__file__, forks.__file__, gil.__file__)
_WRAPPERS = str(Path(__file__).with_name("profiled_calls.py"))
#: How many of them call each other at most.
_DEEPEST = 10


class _Alive:
    """Kept by a thread in its local storage, so that it dies with the thread: numbers of threads are used again."""

    __slots__ = ("__weakref__",)


class _Local(threading.local):
    alive: _Alive | None = None


_thread = _Local()


class Slot:
    """The process's one place for a running cProfile; it is taken while its owner lives."""

    def __init__(self) -> None:
        self._deciding = threading.Lock()
        self._owner: weakref.ref[_Alive] | None = None
        self._profile: cProfile.Profile | None = None
        self._began = self._others_began = 0.0
        forks.after_fork(self._renew)

    def start(self, profile: cProfile.Profile) -> bool:
        """Enable a profile in this thread, or return False where any profiler runs already. Waits for nothing."""
        if not self._claim(profile):
            return False
        try:
            profile.enable()  # and nothing after it, which would be profiled
        except ValueError:
            self._profile = self._owner = None
            return False  # another profiler was faster
        return True

    def stop(self, profile: cProfile.Profile) -> Exclusivity:
        """Disable what `start` enabled, and say whether calls of other threads may be in it."""
        if self._profile is not profile:
            return (
                Exclusivity.CONTAMINATED
            )  # taken away from a thread that had died, by one that is not its owner
        if not _PROCESS_WIDE and self._owner is not None and self._owner() is not _thread.alive:
            return Exclusivity.CONTAMINATED  # enabled in another thread, and only there can it be disabled
        profile.disable()
        alone = True
        if _PROCESS_WIDE:
            elapsed = time.perf_counter() - self._began
            alone = _others_cpu() - self._others_began <= max(_NOISE, elapsed * _NOISE_PART)
        self._profile = self._owner = None
        return Exclusivity.EXCLUSIVE if alone else Exclusivity.CONTAMINATED

    def _claim(self, profile: cProfile.Profile) -> bool:
        if not self._deciding.acquire(blocking=False):
            return False
        try:
            if self._owner is not None:
                if self._owner() is not None:
                    return False
                self._recover()
            if _foreign_tool():
                return False
            if _thread.alive is None:
                _thread.alive = _Alive()
            self._profile, self._owner = profile, weakref.ref(_thread.alive)
            if _PROCESS_WIDE:
                self._began, self._others_began = time.perf_counter(), _others_cpu()
            return True
        finally:
            self._deciding.release()

    def _recover(self) -> None:
        """Take the slot from a thread that has died; before 3.12 its cProfile has died with it."""
        leaked, self._profile, self._owner = self._profile, None, None
        if leaked is not None and _PROCESS_WIDE:
            leaked.disable()

    def _renew(self) -> None:
        """Free the slot in a forked child if its owner is a thread of the parent."""
        self._deciding = threading.Lock()
        if self._owner is not None and (_thread.alive is None or self._owner() is not _thread.alive):
            self._recover()

    def __repr__(self) -> str:
        return f"<Slot {'taken' if self._owner is not None else 'free'}>"


#: Of this process.
SLOT = Slot()


def read(name: str, profile: cProfile.Profile, *, duration: float, exclusivity: Exclusivity) -> Profile:
    """Return what a cProfile has collected, without the profiler's own functions.

    Their time, that of measuring profiled calls inside the profiled one, is the own time of whoever called them: the
    sum is the time of the calls. cProfile knows of each pair of functions how long one ran right below the other, and
    nothing further up: samples are such pairs. Cumulative times are in `functions`, where they are exact.
    """
    entries = profile.getstats()
    shown = [entry for entry in entries if not _is_own(entry.code)]
    hidden = [entry for entry in entries if _is_own(entry.code)]
    below, measuring, folded = (
        _sums(shown),
        _sums(hidden, _is_for_measuring),
        _own_time_by_caller(shown, hidden),
    )
    functions, samples = [], []
    for entry in shown:
        frame = _frame(entry.code)
        count, own, total = measuring[entry.code]
        if entry.callcount <= count:
            continue
        self_time = entry.inlinetime - own + folded[entry.code]
        functions.append(
            FunctionTime(frame, entry.callcount - count, self_time, max(self_time, entry.totaltime - total))
        )
        rest = self_time - below[entry.code][1]
        if rest > _ROUNDING:
            samples.append(Sample((frame,), rest, entry.callcount - count))
        samples += [
            Sample((frame, _frame(called.code)), called.inlinetime, called.callcount)
            for called in entry.calls or ()
            if not _is_own(called.code)
        ]
    return Profile(name, "cprofile", tuple(samples), tuple(functions), duration, exclusivity)


def _sums(
    entries: Iterable[Any], counts: Callable[[Any, Any], bool] = lambda caller, called: True
) -> defaultdict[Any, tuple[int, float, float]]:
    """Sum, by function, how often and how long these entries called it."""
    sums: defaultdict[Any, tuple[int, float, float]] = defaultdict(lambda: _NOTHING)
    for entry in entries:
        for called in entry.calls or ():
            if counts(entry.code, called.code):
                count, own, total = sums[called.code]
                sums[called.code] = (
                    count + called.callcount,
                    own + called.inlinetime,
                    total + called.totaltime,
                )
    return sums


def _own_time_by_caller(shown: list[Any], hidden: list[Any]) -> defaultdict[Any, float]:
    """Sum, by shown function, the seconds of hidden functions below it.

    Those of a hidden one that several called are divided by how often each did, and go up to a shown one like that.
    """
    times: defaultdict[Any, float] = defaultdict(float)
    callers: defaultdict[Any, list[tuple[Any, float]]] = defaultdict(list)
    known = _sums(
        (*shown, *hidden)
    )  # not with what called the profiled call itself, which nobody was seen to call
    calls = {entry.code: known[entry.code][0] for entry in hidden}
    for entry in (*shown, *hidden):
        for called in entry.calls or ():
            if called.code in calls:
                callers[called.code].append((entry.code, called.callcount / calls[called.code]))
            if called.code in calls or (entry.code in calls and _is_for_measuring(entry.code, called.code)):
                times[entry.code] += called.inlinetime
    for _ in range(_DEEPEST):
        for code in calls:
            seconds = times.pop(code, 0.0)
            for caller, part in callers[code]:
                times[caller] += seconds * part
    return times


def _is_own(code: CodeType | str) -> bool:
    return "_lsprof.Profiler" in code if isinstance(code, str) else code.co_filename.startswith(_OWN_FILES)


def _is_for_measuring(caller: CodeType | str, called: CodeType | str) -> bool:
    """Tell whether what one of our functions called is no part of the user's program."""
    return isinstance(called, str) or isinstance(caller, str) or caller.co_filename != _WRAPPERS


def _others_cpu() -> float:
    """Return the CPU seconds that all threads but this one have used."""
    return time.process_time() - time.thread_time()


def _foreign_tool() -> bool:
    """Tell whether another profiler runs in this thread, or from 3.12 on in this process."""
    if sys.getprofile() is not None:
        return True
    return sys.version_info >= (3, 12) and sys.monitoring.get_tool(sys.monitoring.PROFILER_ID) is not None


def _frame(code: CodeType | str) -> Frame:
    """Describe a function; cProfile has a text for what is written in C."""
    return Frame(code) if isinstance(code, str) else frame_of(code)
