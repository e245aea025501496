"""What is kept of each profiled function, and the measuring of one call."""

from __future__ import annotations

import cProfile
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Final

from storescope.core.profiling import quantiles, safe_cprofile
from storescope.core.profiling.profile import Exclusivity, Profile
from storescope.core.stats import FunctionStats

_log = logging.getLogger(__name__)

#: How many functions one cProfile may hold (code made at run time could be without end), and after how many profiled
#: calls that is looked at.
_MAX_CODES: Final = 10_000
_CALLS_BETWEEN_LOOKS: Final = 256


class FunctionRecord:
    """Everything that a profiler knows of one name; its size does not depend on the number of calls."""

    def __init__(self, name: str, every: int | None) -> None:
        self.name = name
        #: Locked by whoever owns the record. Re-entrant: a finalizer may call a profiled function at any time.
        self.lock = threading.RLock()
        self._every = every
        self._turns = itertools.count()
        self._seconds = quantiles.Quantiles()
        self._errors = 0
        self._profile = cProfile.Profile()
        self._profiled = self._contaminated = 0
        self._profiled_seconds = 0.0

    def profile_of_next_call(self) -> cProfile.Profile | None:
        """Return what the next call is to be profiled with, if it is its turn."""
        return self._profile if self._every and next(self._turns) % self._every == 0 else None

    def add(self, seconds: float, failed: bool, exclusivity: Exclusivity | None) -> None:
        """Count a call; `exclusivity` is None where it was not profiled."""
        with self.lock:
            self._seconds.add(seconds)
            self._errors += failed
            if exclusivity is None:
                return
            self._profiled += 1
            self._profiled_seconds += seconds
            self._contaminated += exclusivity is Exclusivity.CONTAMINATED
            if self._profiled % _CALLS_BETWEEN_LOOKS == 0 and len(self._profile.getstats()) > _MAX_CODES:
                # Not cleared: some call may be writing to it.
                self._profile = cProfile.Profile()

    def stats(self) -> FunctionStats:
        """Return the times of all calls."""
        with self.lock:
            seconds = self._seconds
            return FunctionStats(
                name=self.name,
                count=seconds.count,
                errors=self._errors,
                profiled=self._profiled,
                total=seconds.total,
                minimum=seconds.minimum if seconds.count else 0.0,
                maximum=seconds.maximum,
                p50=seconds.quantile(0.50),
                p95=seconds.quantile(0.95),
                p99=seconds.quantile(0.99),
            )

    def profile(self) -> Profile:
        """Return what cProfile saw in the calls that it profiled."""
        with self.lock:
            return safe_cprofile.read(
                self.name,
                self._profile,
                duration=self._profiled_seconds,
                exclusivity=Exclusivity.CONTAMINATED if self._contaminated else Exclusivity.EXCLUSIVE,
            )


class Measurement:
    """One call of a function, or one run of a `with` block. Nothing in it is raised into the call but its misuse."""

    __slots__ = ("_began", "_clock", "_exclusivity", "_profile", "_profiling", "_record", "_seconds")

    def __init__(
        self, record: FunctionRecord, clock: Callable[[], float], profile: cProfile.Profile | None
    ) -> None:
        self._record = record
        self._clock = clock
        self._profile = profile
        self._profiling = False
        self._began: float | None = None
        self._seconds = 0.0
        self._exclusivity: Exclusivity | None = None

    def __enter__(self) -> None:
        if self._began is not None:
            raise RuntimeError(f"the block {self._record.name!r} has begun already")
        self.start()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()
        self.finish(failed=kind is not None)

    def start(self) -> None:
        """Let the clock run, and the profile."""
        self.start_clock()
        self.start_profile()

    def stop(self) -> None:
        """Hold both."""
        self.stop_profile()
        self.stop_clock()

    def start_clock(self) -> None:
        """Let the clock run: the call takes its time from here."""
        try:
            self._began = self._clock()
        except Exception:
            _log.debug("the clock of %r failed", self._record.name, exc_info=True)

    def stop_clock(self) -> None:
        """Hold the clock."""
        try:
            if self._began is not None:
                self._seconds += self._clock() - self._began
        except Exception:
            _log.debug("the clock of %r failed", self._record.name, exc_info=True)
        self._began = None

    def start_profile(self) -> None:
        """Profile from here, where nothing else is profiled in this process."""
        if self._profile is not None:
            self._profiling = safe_cprofile.SLOT.start(self._profile)

    def stop_profile(self) -> None:
        """End what `start_profile` began."""
        if self._profiling and self._profile is not None:
            exclusivity = safe_cprofile.SLOT.stop(self._profile)
            self._profiling = False
            if self._exclusivity is not Exclusivity.CONTAMINATED:
                self._exclusivity = exclusivity

    def finish(self, *, failed: bool) -> None:
        """Count the call."""
        try:
            self._record.add(self._seconds, failed, self._exclusivity)
        except Exception:
            _log.debug("a call of %r is not counted", self._record.name, exc_info=True)
        self._seconds, self._exclusivity = 0.0, None
