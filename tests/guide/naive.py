"""What the guide's own code does wrong, class by class: each fault test has to fail on these.

The benchmarks measure against them too.
"""

from __future__ import annotations

import asyncio
import cProfile
import functools
import gc
import hashlib
import io
import multiprocessing
import pickle
import pstats
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import psutil


class CPUOptimizer:
    """Pools that end with their first use, sized by the machine, and a semaphore that nothing goes through."""

    def __init__(self) -> None:
        self.cpu_count = multiprocessing.cpu_count()
        self.thread_pool: ThreadPoolExecutor | None = None
        self.process_pool: ProcessPoolExecutor | None = None
        self.async_semaphore: asyncio.Semaphore | None = None

    def optimize_thread_pool(self, max_workers: int | None = None) -> ThreadPoolExecutor:
        self.thread_pool = ThreadPoolExecutor(max_workers or self.cpu_count * 3)
        return self.thread_pool

    def optimize_process_pool(self, max_workers: int | None = None) -> ProcessPoolExecutor:
        self.process_pool = ProcessPoolExecutor(max_workers or self.cpu_count)
        return self.process_pool

    def optimize_async_concurrency(self, max_concurrent: int | None = None) -> asyncio.Semaphore:
        self.async_semaphore = asyncio.Semaphore(max_concurrent or self.cpu_count * 20)
        return self.async_semaphore

    def cpu_intensive_task_optimizer(
        self, task_func: Callable[..., Any], data_chunks: Iterable[Any]
    ) -> list[Any]:
        with self.process_pool as pool:  # type: ignore[union-attr]
            futures = [pool.submit(task_func, chunk) for chunk in data_chunks]
            return [future.result() for future in futures]

    def io_intensive_task_optimizer(
        self, task_func: Callable[..., Any], task_args_list: Iterable[Iterable[Any]]
    ) -> list[Any]:
        with self.thread_pool as pool:  # type: ignore[union-attr]
            futures = [pool.submit(task_func, *args) for args in task_args_list]
            return [future.result() for future in futures]


class ObjectPool:
    """A queue without a lock, which takes whatever it is given, as often as it is given."""

    def __init__(self, factory: Callable[[], Any], max_size: int = 100) -> None:
        self.factory = factory
        self.max_size = max_size
        self.pool: deque[Any] = deque()
        self.created_count = 0
        self.reused_count = 0

    def get(self) -> Any:
        if self.pool:
            self.reused_count += 1
            return self.pool.popleft()
        self.created_count += 1
        return self.factory()

    def put(self, obj: Any) -> None:
        if len(self.pool) < self.max_size:
            if hasattr(obj, "reset"):
                obj.reset()
            self.pool.append(obj)

    def cleanup(self) -> int:
        dropped = len(self.pool)
        self.pool.clear()
        return dropped

    def get_stats(self) -> dict[str, Any]:
        handed_out = self.created_count + self.reused_count
        return {
            "pool_size": len(self.pool),
            "created_count": self.created_count,
            "reused_count": self.reused_count,
            "reuse_rate": self.reused_count / handed_out if handed_out else 0,
        }


class MemoryOptimizer:
    """Looks only when asked, at the host's memory, and cleans up at every look above the threshold."""

    def __init__(self) -> None:
        self.memory_threshold = 0.8
        self.gc_threshold = (700, 10, 10)
        self.object_pools: dict[str, ObjectPool] = {}
        self.weak_references: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()

    def optimize_garbage_collection(self) -> None:
        gc.set_threshold(*self.gc_threshold)

    def create_object_pool(self, name: str, factory: Callable[[], Any], max_size: int = 100) -> None:
        self.object_pools[name] = ObjectPool(factory, max_size)

    def get_from_pool(self, pool_name: str) -> Any:
        pool = self.object_pools.get(pool_name)
        return pool.get() if pool else None

    def return_to_pool(self, pool_name: str, obj: Any) -> None:
        pool = self.object_pools.get(pool_name)
        if pool:
            pool.put(obj)

    def monitor_memory_usage(self) -> dict[str, Any]:
        process = psutil.Process()
        memory, percent = process.memory_info(), process.memory_percent()
        if percent > self.memory_threshold * 100:
            self.trigger_memory_cleanup()
        return {"rss": memory.rss, "vms": memory.vms, "percent": percent}

    def trigger_memory_cleanup(self) -> None:
        gc.collect()
        for pool in self.object_pools.values():
            pool.cleanup()
        self.weak_references.clear()


class MockConnection:
    """A connection to nowhere."""

    def __init__(self, config: Any = None) -> None:
        self.config = config
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def close(self) -> None:
        self.alive = False


class OptimizedConnectionPool:
    """Mocks in a queue, a count that is looked at too early and never corrected, and a cleaner without an end."""

    connection_class = MockConnection
    cleanup_interval = 60.0

    def __init__(
        self, service_config: Any, min_size: int = 2, max_size: int = 10, max_idle_time: float = 300
    ) -> None:
        self.service_config = service_config
        self.min_size, self.max_size, self.max_idle_time = min_size, max_size, max_idle_time
        self.active: set[Any] = set()
        self.idle: queue.Queue[tuple[Any, float]] = queue.Queue()
        self.count = 0
        self.lock = threading.RLock()
        self.counts = {"created": 0, "reused": 0, "closed": 0, "timeouts": 0}
        for _ in range(min_size):
            self.idle.put((self._create(), time.time()))
        threading.Thread(target=self._clean, name="naive-cleaner", daemon=True).start()

    @contextmanager
    def get_connection(self, timeout: float = 30) -> Iterator[Any]:
        connection = self._find(timeout)
        try:
            if not self._valid(connection):
                connection = self._create()
            with self.lock:
                self.active.add(connection)
            yield connection
        finally:
            self._release(connection)

    def get_stats(self) -> dict[str, Any]:
        with self.lock:
            return {
                "active_connections": len(self.active),
                "idle_connections": self.idle.qsize(),
                "total_connections": self.count,
                "max_size": self.max_size,
                "min_size": self.min_size,
                "usage_rate": self.count / self.max_size,
                **self.counts,
            }

    def _find(self, timeout: float) -> Any:
        try:
            connection, _ = self.idle.get_nowait()
        except queue.Empty:
            if self.count < self.max_size:
                return self._create()
            try:
                connection, _ = self.idle.get(timeout=timeout)
            except queue.Empty:
                self.counts["timeouts"] += 1
                raise RuntimeError("timeout") from None
        self.counts["reused"] += 1
        return connection

    def _create(self) -> Any:
        with self.lock:
            if self.count >= self.max_size:
                raise RuntimeError("the pool is full")
            connection = self.connection_class(self.service_config)
            self.count += 1
            self.counts["created"] += 1
            return connection

    def _release(self, connection: Any) -> None:
        with self.lock:
            if connection not in self.active:
                return
            self.active.remove(connection)
            if self._valid(connection):
                self.idle.put((connection, time.time()))
            else:
                self._close(connection)

    def _valid(self, connection: Any) -> bool:
        try:
            return bool(connection.is_alive())
        except:  # noqa: E722
            return False

    def _close(self, connection: Any) -> None:
        try:
            connection.close()
            with self.lock:
                self.count -= 1
                self.counts["closed"] += 1
        except:  # noqa: E722
            pass

    def _clean(self) -> None:
        while True:
            now = time.time()
            old, young = [], []
            while True:
                try:
                    connection, since = self.idle.get_nowait()
                except queue.Empty:
                    break
                (old if now - since > self.max_idle_time else young).append((connection, since))
            for entry in young:
                self.idle.put(entry)
            for connection, _ in old:
                self._close(connection)
            time.sleep(self.cleanup_interval)


class IntelligentCache:
    """A dict and the wall clock, without a lock; to evict one entry it looks at all of them."""

    def __init__(self, max_size: int = 1000, default_ttl: float = 300) -> None:
        self.max_size = max_size
        self.default_ttl = default_ttl
        self.cache: dict[Any, tuple[Any, float]] = {}
        self.access_times: dict[Any, float] = {}
        self.hit_count = 0
        self.miss_count = 0

    def get(self, key: Any) -> Any:
        if key in self.cache:
            value, expires = self.cache[key]
            if time.time() < expires:
                self.access_times[key] = time.time()
                self.hit_count += 1
                return value
            del self.cache[key]
            del self.access_times[key]
        self.miss_count += 1
        return None

    def set(self, key: Any, value: Any, ttl: float | None = None) -> None:
        expires = time.time() + (self.default_ttl if ttl is None else ttl)
        if len(self.cache) >= self.max_size:
            oldest = min(self.access_times, key=self.access_times.__getitem__)
            del self.cache[oldest]
            del self.access_times[oldest]
        self.cache[key] = (value, expires)
        self.access_times[key] = time.time()

    def clear(self) -> None:
        self.cache.clear()
        self.access_times.clear()

    def get_stats(self) -> dict[str, Any]:
        requests = self.hit_count + self.miss_count
        return {
            "size": len(self.cache),
            "max_size": self.max_size,
            "hit_count": self.hit_count,
            "miss_count": self.miss_count,
            "hit_rate": self.hit_count / requests if requests else 0,
            "usage_rate": len(self.cache) / self.max_size,
        }


def cache_result(
    cache: Any, ttl: float | None = None, key_func: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A decorator whose keys are pickles of the spelling of a call, and to which None is no result."""

    def decorate(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if key_func is None:
                spelling = {"func": func.__name__, "args": args, "kwargs": kwargs}
                key = hashlib.md5(pickle.dumps(spelling, pickle.HIGHEST_PROTOCOL)).hexdigest()
            else:
                key = key_func(*args, **kwargs)
            kept = cache.get(key)
            if kept is not None:
                return kept
            result = func(*args, **kwargs)
            cache.set(key, result, ttl)
            return result

        return wrapper

    return decorate


class BatchOptimizer:
    """Groups of four types, all submitted at once, whose results come as they please and go with any failure."""

    priorities = ("read", "write", "delete", "create")

    def __init__(self, store: Any) -> None:
        self.store = store
        self.batch_size = 20
        self.max_concurrent = 5
        self.operation_queue: list[dict[str, Any]] = []

    def add_operation(self, operation_type: str, tool_name: str, arguments: dict[str, Any]) -> None:
        self.operation_queue.append({"type": operation_type, "tool_name": tool_name, "arguments": arguments})

    def optimize_batch_execution(self) -> list[Any]:
        batches = []
        for kind in self.priorities:
            calls = [
                {"tool_name": each["tool_name"], "arguments": each["arguments"]}
                for each in self.operation_queue
                if each["type"] == kind
            ]
            batches += [
                calls[start : start + self.batch_size] for start in range(0, len(calls), self.batch_size)
            ]
        results: list[Any] = []
        with ThreadPoolExecutor(self.max_concurrent) as pool:
            futures = [pool.submit(self._execute_batch, batch) for batch in batches]
            for future in as_completed(futures):
                try:
                    results += future.result()
                    print("a batch is done")
                except Exception as error:
                    print(f"a batch failed: {error}")
        self.operation_queue.clear()
        return results

    def _execute_batch(self, batch: list[dict[str, Any]]) -> list[Any]:
        results: list[Any] = self.store.batch_call(batch)
        return results


class PerformanceProfiler:
    """A cProfile around every call, whoever else has one; its text made each time, and all durations kept."""

    def __init__(self) -> None:
        self.profiles: dict[str, str] = {}
        self.timing_data: dict[str, list[float]] = {}

    def profile_function(
        self, func_name: str | None = None
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            name = func_name or function.__name__

            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                profile = cProfile.Profile()
                profile.enable()
                begin = time.time()
                try:
                    return function(*args, **kwargs)
                finally:
                    duration = time.time() - begin
                    profile.disable()
                    text = io.StringIO()
                    pstats.Stats(profile, stream=text).sort_stats("cumulative").print_stats(20)
                    self.profiles[name] = text.getvalue()
                    self.timing_data.setdefault(name, []).append(duration)

            return call

        return decorate

    def get_profile_report(self, func_name: str) -> dict[str, Any] | None:
        if func_name not in self.profiles:
            return None
        return {
            "function_name": func_name,
            **self._times(self.timing_data[func_name]),
            "profile_details": self.profiles[func_name],
        }

    def get_summary_report(self) -> dict[str, dict[str, Any]]:
        return {name: self._times(durations) for name, durations in self.timing_data.items()}

    def _times(self, durations: list[float]) -> dict[str, Any]:
        return {
            "call_count": len(durations),
            "total_time": sum(durations),
            "average_time": sum(durations) / len(durations),
            "min_time": min(durations),
            "max_time": max(durations),
        }
