"""PerformanceProfiler: how often functions are called, how long that takes, and where the time goes."""

from __future__ import annotations

import inspect
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from storescope.core import checks, forks
from storescope.core.gil import has_gil
from storescope.core.profiling import profiled_calls
from storescope.core.profiling.measurement import FunctionRecord, Measurement
from storescope.core.profiling.profile import Profile
from storescope.core.stats import FunctionStats, ProfilerStats

F = TypeVar("F", bound=Callable[..., Any])

#: Where names are counted that came after `max_functions` others.
OTHER_FUNCTIONS = "(other functions)"
#: What can be left in the middle, so that others run before it goes on.
_RESUMABLE = (
    inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
)


class PerformanceProfiler:
    """Time the calls of functions and of `with` blocks, and profile them with cProfile.

    Of every call the duration is kept, in a sketch of bounded size with quantiles within 1 %. One call in `every` is
    profiled as well (`mode="timing"`: none), provided that no other profiler runs in the process at that moment: nobody
    waits for another's profile to end, and no error of ours reaches a call. Thread-safe; goes on in a forked child.
    At most `max_functions` names are kept; those that come later are counted together under `(other functions)`.

    `clock` gives seconds, and must not go back.
    """

    def __init__(
        self,
        *,
        mode: Literal["cprofile", "timing"] = "cprofile",
        every: int = 1,
        max_functions: int = 1000,
        clock: Callable[[], float] = time.perf_counter,
        name: str = "profiler",
    ) -> None:
        self.mode = checks.one_of("mode", mode, ("cprofile", "timing"))
        self.every = checks.whole("every", every)
        self.max_functions = checks.whole("max_functions", max_functions)
        self.name = checks.text("name", name)
        self._clock = checks.function("clock", clock)
        self._records: dict[str, FunctionRecord] = {}
        self._lock = threading.RLock()
        forks.after_fork(self._renew_locks)

    def profile_function(self, func_name: str | None = None) -> Callable[[F], F]:
        """Decorate a function, coroutine function, generator function or async generator function.

        It stays what it was for `inspect`, and gives the same results and exceptions. Its name in reports is
        `func_name`, else its own. A coroutine's duration has its waits in it, a generator's only the making of items.
        """
        if func_name is not None:
            _check_name("func_name", func_name)

        def decorate(function: Any) -> Any:
            if isinstance(function, (staticmethod, classmethod)):
                return type(function)(decorate(function.__func__))
            checks.function("the decorated object", function)
            name = func_name or str(getattr(function, "__name__", type(function).__name__))
            return profiled_calls.wrap(function, lambda: self._measurement(name))

        return decorate

    def profile(self, name: str) -> Measurement:
        """Return a context manager that measures its block as one call of `name`.

        In a coroutine or generator it only takes the time: a profile would be of whatever else runs during an `await`
        in the block. Decorate the function for that.
        """
        _check_name("name", name)
        in_pieces = sys._getframe(1).f_code.co_flags & _RESUMABLE
        return self._measurement(name, profiled=not in_pieces)

    def get_profile_report(self, func_name: str) -> dict[str, Any] | None:
        """Return the times of a function in seconds, and as text its 20 top functions by cumulative time.

        None for a name that was never called. The text is made now (about 1 ms), not at every call.
        """
        record = self._record_of(func_name)
        if record is None:
            return None
        stats, profile = record.stats(), record.profile()
        return {
            "function_name": func_name,
            **_summary(stats),
            "profiled_calls": stats.profiled,
            "exclusivity": profile.exclusivity.value,
            "profile_details": profile.text(20, "cumulative") if stats.profiled else "no call was profiled\n",
        }

    def get_profile(self, func_name: str) -> Profile | None:
        """Return what cProfile found in all the calls that were profiled; None where there was none."""
        record = self._record_of(func_name)
        return record.profile() if record is not None and record.stats().profiled else None

    def get_summary_report(self) -> dict[str, dict[str, Any]]:
        """Return the times of every function that was called, in seconds, by name."""
        return {name: _summary(stats) for name, stats in self.stats().functions.items()}

    #: The same, by the name that all optimizers have for it.
    get_stats = get_summary_report

    def stats(self) -> ProfilerStats:
        """Return what is known of every function that was called."""
        return ProfilerStats({name: record.stats() for name, record in list(self._records.items())})

    def reset(self) -> None:
        """Forget all calls; those under way are not counted any more."""
        with self._lock:
            self._records = {}

    def _measurement(self, name: str, *, profiled: bool = True) -> Measurement:
        record = self._records.get(name) or self._new_record(name)
        return Measurement(record, self._clock, record.profile_of_next_call() if profiled else None)

    def _new_record(self, name: str) -> FunctionRecord:
        with self._lock:
            if name not in self._records and len(self._records) >= self.max_functions:
                name = OTHER_FUNCTIONS
            if name not in self._records:
                profiles = self.mode == "cprofile" and has_gil()
                self._records[name] = FunctionRecord(name, self.every if profiles else None)
            return self._records[name]

    def _record_of(self, name: str) -> FunctionRecord | None:
        _check_name("func_name", name)
        return self._records.get(name)

    def _renew_locks(self) -> None:
        self._lock = threading.RLock()
        for record in self._records.values():
            record.lock = threading.RLock()

    def __repr__(self) -> str:
        sampling = "timing only" if self.mode == "timing" else f"profiles 1 call in {self.every}"
        return f"<PerformanceProfiler {self.name!r}: {len(self._records)} functions, {sampling}>"


def _check_name(argument: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a text, not {value!r}")


def _summary(stats: FunctionStats) -> dict[str, Any]:
    return {
        "call_count": stats.count,
        "total_time": stats.total,
        "average_time": stats.average,
        "min_time": stats.minimum,
        "max_time": stats.maximum,
        "error_count": stats.errors,
        "p50_time": stats.p50,
        "p95_time": stats.p95,
        "p99_time": stats.p99,
    }
