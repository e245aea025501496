"""What a sampler asks of the interpreter while it looks at frames of other threads, and how it gives that back."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from storescope.core import forks
from storescope.core.gil import has_gil

#: On 3.11 a garbage collection inside `f_back` of a running frame lets that frame end under it, and crashes.
_COLLECTION_IS_DANGEROUS: Final = sys.version_info[:2] == (3, 11)
#: A threshold that is never reached; an odd one, so that no application has set it.
_NEVER: Final = 2**31 - 19
#: Seconds; not quite a millisecond, so that an application that sets 1 ms itself can be told from us.
_SHORT: Final = 0.000_999


class SwitchInterval:
    """The interpreter's switch interval, short while anybody needs it so.

    With the usual 5 ms a sampler mostly gets to look when some thread lets go by itself, to wait: of two tasks of
    equal work the one that calls out more is seen more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._found = self._set = 0.0
        forks.after_fork(self._renew)

    def shorten(self) -> None:
        """Set it to 1 ms, unless it is shorter already."""
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._found = self._set = sys.getswitchinterval()
                if self._found > _SHORT:
                    sys.setswitchinterval(_SHORT)
                    self._set = sys.getswitchinterval()

    def restore(self) -> None:
        """Set it to what it was once nobody needs it any more, unless the application has set it meanwhile."""
        with self._lock:
            self._users -= 1
            if not self._users:
                self._put_back()

    def _put_back(self) -> None:
        if self._set != self._found and sys.getswitchinterval() == self._set:
            sys.setswitchinterval(self._found)
        self._set = self._found

    def _renew(self) -> None:
        """Put it back in a forked child, which has no sampler's thread."""
        self._lock = threading.Lock()
        if self._users:
            self._users = 0
            self._put_back()


#: Of this process.
SWITCH_INTERVAL: Final = SwitchInterval()

_threshold = 0


@contextmanager
def _held_collection() -> Iterator[None]:
    """Let no collection start by itself.

    By the threshold and not by `gc.disable()`: another thread may call that or `gc.enable()` meanwhile, and what it
    has set then holds. Nor is a threshold overwritten that it sets.
    """
    global _threshold  # noqa: PLW0603
    found = gc.get_threshold()[0]
    if found == 0:
        yield
        return
    if found != _NEVER:  # else: another thread has read it while it was ours, and has put it back
        _threshold = found
    gc.set_threshold(_NEVER)
    try:
        yield
    finally:
        if gc.get_threshold()[0] == _NEVER:
            gc.set_threshold(_threshold)


@contextmanager
def _any_collection() -> Iterator[None]:
    yield


#: Frames of other threads are walked inside this.
safe_to_walk = _held_collection if _COLLECTION_IS_DANGEROUS else _any_collection


def why_no_sampling() -> str | None:
    """Return what keeps this interpreter from being sampled: frames of running threads need the GIL to be safe."""
    if not has_gil():
        return "this interpreter runs without the GIL"
    return None


def cpu_clock() -> int | None:
    """Return the clock of this thread's CPU time, for other threads to read; None where the system has none."""
    return _cpu_clock(threading.get_ident()) if _cpu_clock is not None else None


_cpu_clock: Callable[[int], int] | None = getattr(time, "pthread_getcpuclockid", None)


def read_cpu_clock(clock: int) -> float | None:
    """Return the CPU seconds of a thread; None where it has died."""
    try:
        return time.clock_gettime(clock)
    except OSError:
        return None
