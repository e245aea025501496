"""Memory watched against the container's limit, freed when it runs short, and collected when it does no harm."""

from __future__ import annotations

import gc
import logging
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psutil

from storescope.core import checks, forks
from storescope.core.errors import Closed, CoreError, UnknownPool
from storescope.core.memory import containers, gc_tuning
from storescope.core.memory.gc_pauses import pause_ring
from storescope.core.memory.object_pool import ObjectPool
from storescope.core.stats import GCPauses, MemoryCleanup, MemoryPressure, MemoryStats

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
_log: Final = logging.getLogger("storescope.core")


class MemoryOptimizer:
    """Watch memory, clean up when it runs short, keep object pools, and tune the garbage collector.

    A cleanup runs once when usage rises above `memory_threshold` (a share of the limit, 0.8 by default), and again only
    after usage has been below `(1 - hysteresis) * memory_threshold`. The limit is the container's where there is one,
    else the host's memory. Pauses of garbage collection are recorded from now to `close()`, which stops the monitor,
    closes the pools and gives back the collector's settings. It is thread-safe; in a forked child everything goes on
    but the monitor. `root` is where `/proc` and `/sys` are found.
    """

    def __init__(
        self,
        *,
        memory_threshold: float = 0.8,
        hysteresis: float = 0.1,
        root: Path = containers.ROOT,
        name: str = "memory",
    ) -> None:
        self.name = checks.text("name", name)
        self.memory_threshold = memory_threshold
        self.hysteresis = checks.number("hysteresis", hysteresis, 0, 0.99)
        self.object_pools: dict[str, ObjectPool[Any]] = {}
        #: Whatever the application can do without: it is forgotten by the next cleanup.
        self.weak_references: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
        self._gc_threshold: gc_tuning.Threshold | None = None
        self._tuning = gc_tuning.Tuning()
        if not isinstance(root, (str, os.PathLike)):
            raise TypeError(f"root must be a path, not {root!r}")
        self._root = Path(root)
        #: By what their `remove` knows them: one may be registered twice.
        self._callbacks: dict[object, Callable[[MemoryPressure], object]] = {}
        self._monitor: _Monitor | None = None
        self._armed = True
        self._cleanups = 0
        self._closed = False
        pause_ring.install()
        self._stop_recording = weakref.finalize(self, pause_ring.uninstall)
        self._restore_collector = weakref.finalize(self, self._tuning.restore)
        self._stop_recording.atexit = self._restore_collector.atexit = False
        self._begin()
        forks.after_fork(self._begin)

    @property
    def memory_threshold(self) -> float:
        """The share of the limit above which memory is short, above 0 and up to 1."""
        return self._memory_threshold

    @memory_threshold.setter
    def memory_threshold(self, share: float) -> None:
        self._memory_threshold = checks.number(
            "memory_threshold", checks.positive("memory_threshold", share), 0, 1
        )

    @property
    def gc_threshold(self) -> gc_tuning.Threshold:
        """The thresholds that `optimize_garbage_collection()` aims at; one that is assigned is an explicit one."""
        return self._gc_threshold or gc_tuning.ROOMY

    @gc_threshold.setter
    def gc_threshold(self, threshold: gc_tuning.Threshold) -> None:
        self._gc_threshold = gc_tuning.checked("gc_threshold", threshold)

    def optimize_garbage_collection(
        self, threshold: gc_tuning.Threshold | None = None
    ) -> gc_tuning.Threshold:
        """Collect, freeze what the program will keep, set the collector's thresholds, and return those in force.

        To be called after start-up; blocks for a full collection. By default thresholds become (10_000, 10, 10), but
        nowhere lower than they are. An explicit threshold is set as it is; where it lowers one, there is one
        RuntimeWarning. `close()` undoes it, unless somebody changed them meanwhile.
        """
        self._check_open()
        return self._tuning.apply(self._gc_threshold if threshold is None else threshold, stacklevel=3)

    def defer_garbage_collection(self, max_allocations: int = 100_000) -> AbstractContextManager[None]:
        """Return a context manager that holds automatic collection off, for so many more allocations at most.

        See `gc_tuning.deferred_collection`.
        """
        self._check_open()
        return gc_tuning.deferred_collection(max_allocations)

    def gc_pauses(self, generation: int | None = None) -> GCPauses:
        """Return the pauses of garbage collection (seconds) in this process while any optimizer recorded them."""
        return pause_ring.stats(generation)

    def create_object_pool(
        self,
        name: str,
        factory: Callable[[], T],
        max_size: int = 100,
        *,
        reset: Callable[[T], object] | None = None,
    ) -> ObjectPool[T]:
        """Create a pool, see `ObjectPool`, and return it. ValueError where an open one has that name."""
        pool = ObjectPool(factory, max_size, reset=reset, name=name)
        with self._lock:
            self._check_open()
            known = self.object_pools.get(name)
            if known is not None and not known.closed:
                raise ValueError(f"name must be new, not {name!r}: there is {known!r}")
            self.object_pools[name] = pool
        return pool

    def get_from_pool(self, pool_name: str) -> Any:
        """Return an object of a pool, made where none is idle. Raises UnknownPool."""
        self._check_open()
        return self._pool(pool_name).get()

    def return_to_pool(self, pool_name: str, obj: object) -> None:
        """Give an object back to the pool that it is from. Raises UnknownPool, NotFromPool."""
        self._pool(pool_name).put(obj)

    def monitor_memory_usage(self) -> dict[str, Any]:
        """Look once: return rss, vms (bytes) and percent (0 to 100), having cleaned up where usage rose too high.

        Callbacks run before it returns, in this thread.
        """
        self._check_open()
        usage = self._look()
        return {"rss": usage.rss, "vms": usage.vms, "percent": usage.percent}

    def start_monitoring(self, interval: float = 1.0) -> None:
        """Look every `interval` seconds (a fifth of a millisecond each) in a daemon thread, until `stop_monitoring()`.

        Raises CoreError where it does so already. It ends by itself after the optimizer was dropped.
        """
        seconds = checks.number("interval", checks.positive("interval", interval), 0, threading.TIMEOUT_MAX)
        with self._lock:
            self._check_open()
            if self._monitor is not None:
                raise CoreError(f"{self!r} is monitoring already, every {self._monitor.interval:g} s")
            self._monitor = _Monitor(self, seconds)

    def stop_monitoring(self) -> None:
        """End the monitor thread, after the look and the callbacks that it may be at. Nothing where there is none."""
        with self._lock:
            monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.stop()

    def on_pressure(self, callback: Callable[[MemoryPressure], object]) -> Callable[[], None]:
        """Have a callback called after each cleanup that rising usage caused; return what takes it off again.

        It runs in the thread that looked. Where it raises, that is logged, and the others are called all the same.
        """
        checks.function("callback", callback)
        registration = object()
        with self._lock:
            self._check_open()
            self._callbacks[registration] = callback

        def remove() -> None:
            self._callbacks.pop(registration, None)

        return remove

    def trigger_memory_cleanup(self) -> MemoryCleanup:
        """Drop idle pool objects and weak references, collect garbage, and return how much of each.

        Blocks for a full collection.
        """
        self._check_open()
        return self._clean_up()

    def stats(self) -> MemoryStats:
        """Return memory as it is now, without cleaning up."""
        memory = self._process.memory_info()
        host = psutil.virtual_memory().total
        limit = containers.memory_limit(root=self._root)
        used = None if limit is None else containers.memory_usage(root=self._root)
        if limit is None or limit >= host:
            limit, used = host, memory.rss
        percent = 100 * (memory.rss if used is None else used) / limit
        return MemoryStats(memory.rss, memory.vms, limit, percent, self._cleanups)

    def get_stats(self) -> dict[str, Any]:
        """Return memory as it is now, and the statistics of each pool under "object_pools"."""
        pools = {name: pool.get_stats() for name, pool in list(self.object_pools.items())}
        return {**asdict(self.stats()), "object_pools": pools}

    def close(self) -> None:
        """Stop the monitor, close the pools, stop recording pauses, and restore the garbage collector's settings."""
        with self._lock:
            self._closed = True
        with ExitStack() as rest:  # each of these is done, whatever comes of the others
            rest.callback(self._stop_recording)
            rest.callback(self._restore_collector)
            for pool in list(self.object_pools.values()):
                rest.callback(pool.close)
            self.stop_monitoring()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        monitor = self._monitor
        watching = "closed" if self._closed else "not monitoring"
        if monitor is not None:
            watching = f"every {monitor.interval:g} s"
        return f"<MemoryOptimizer {self.name!r}: {watching}, {len(self.object_pools)} pools, {self._cleanups} cleanups>"

    def _look(self) -> MemoryStats:
        usage = self.stats()
        if self._rose(usage.percent / 100):
            pressure = MemoryPressure(usage, self._clean_up())
            for callback in list(self._callbacks.values()):
                try:
                    callback(pressure)
                except Exception:
                    _log.exception("a callback of %r failed", self)
        return usage

    def _clean_up(self) -> MemoryCleanup:
        pools = {name: pool.cleanup() for name, pool in list(self.object_pools.items())}
        weak = len(self.weak_references)
        self.weak_references.clear()
        collected = gc.collect()  # last, since what was dropped may be part of cycles
        with self._lock:
            self._cleanups += 1
        return MemoryCleanup(collected, pools, weak)

    def _rose(self, share: float) -> bool:
        """Tell whether memory ran short just now: once, until it has been well below the threshold."""
        with self._lock:
            if self._armed and share > self.memory_threshold:
                self._armed = False
                return True
            if share < (1 - self.hysteresis) * self.memory_threshold:
                self._armed = True
            return False

    def _pool(self, name: str) -> ObjectPool[Any]:
        try:
            return self.object_pools[checks.text("pool_name", name)]
        except KeyError:
            known = ", ".join(map(repr, self.object_pools)) or "none"
            raise UnknownPool(f"no object pool {name!r} (there are: {known})") from None

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"memory optimizer {self.name!r} is closed")

    def _begin(self) -> None:
        """Make what belongs to one process, at the start and in a forked child, which has no monitor thread."""
        self._lock = threading.RLock()
        self._process = psutil.Process()
        self._monitor = None


class _Monitor:
    """A thread that looks at memory, and keeps its optimizer alive only while it does."""

    def __init__(self, optimizer: MemoryOptimizer, interval: float) -> None:
        self.interval = interval
        self._stopped = threading.Event()
        watched = weakref.ref(optimizer)
        self._thread = threading.Thread(
            target=self._run, args=(watched,), name=f"storescope-{optimizer.name}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread is not threading.current_thread():  # a callback may stop its own monitor
            self._thread.join()

    def _run(self, watched: weakref.ref[MemoryOptimizer]) -> None:
        while not self._stopped.wait(self.interval):
            optimizer = watched()
            if optimizer is None:
                return
            try:
                optimizer._look()
            except Exception:
                _log.exception("%r could not look at memory", optimizer)
            del optimizer
