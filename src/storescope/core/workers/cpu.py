"""`CPUOptimizer`: pools of threads, processes and coroutines, sized by what this process may use."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Executor, Future
from dataclasses import asdict
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakSet

from storescope.core.checks import function, optional, positive, text, whole
from storescope.core.errors import Closed, PoolClosed, UsedAfterFork
from storescope.core.forks import after_fork
from storescope.core.memory.containers import cpu_count
from storescope.core.stats import CPUStats
from storescope.core.workers.concurrency import AsyncConcurrency, collected, iterable
from storescope.core.workers.executors import BoundedExecutor, process_executor, thread_executor

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

#: Workers for each CPU: waiting costs a thread little and a coroutine less, computing takes a whole CPU.
THREADS_PER_CPU: Final = 3
PROCESSES_PER_CPU: Final = 1
COROUTINES_PER_CPU: Final = 20


class CPUOptimizer:
    """Make pools that fit this process and run tasks on them, in order, losing no result.

    `cpu_count` follows affinity and the container's quota. Each pool is made when it is first needed, stays until
    `close()`, and can be used by any thread. `max_queued` tasks may wait before each pool of threads or processes;
    whoever submits more waits as well (`submit_timeout` seconds at most, then QueueFull). `executor` is any
    `concurrent.futures.Executor` that takes the place of the processes, for CPU work on other machines: of Dask, for
    one, `Client.get_executor(pure=False)` (without that Dask computes equal tasks once). It stays open when this is
    closed.
    """

    def __init__(
        self,
        *,
        executor: Executor | None = None,
        max_queued: int | None = None,
        submit_timeout: float | None = None,
        name: str = "storescope",
    ) -> None:
        if not isinstance(executor, (Executor, type(None))):
            raise TypeError(f"executor must be a concurrent.futures.Executor, not {executor!r}")
        self.cpu_count = cpu_count()
        self.name = text("name", name)
        self.thread_pool: BoundedExecutor | None = None
        self.process_pool: BoundedExecutor | None = None
        self.async_semaphore: AsyncConcurrency | None = None
        self._executor = executor
        self._options: dict[str, Any] = {
            "max_queued": optional(whole, "max_queued", max_queued),
            "submit_timeout": optional(positive, "submit_timeout", submit_timeout),
        }
        self._closed = False
        self._made: WeakSet[BoundedExecutor] = WeakSet()  # one retired lives for as long as it has tasks
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        self._lock = threading.RLock()  # what makes a pool on first use holds it already

    def __repr__(self) -> str:
        pools = [self.thread_pool, self.process_pool, self.async_semaphore]
        made = ", ".join(repr(pool) for pool in pools if pool is not None)
        return f"<CPUOptimizer {self.name!r} of {self.cpu_count} CPUs: {made or 'no pool yet'}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def optimize_thread_pool(self, max_workers: int | None = None) -> BoundedExecutor:
        """Make the pool of threads, of 3 for each CPU by default; one made before finishes its tasks and ends."""
        with self._lock:
            workers = self._workers(max_workers, THREADS_PER_CPU)
            pool = thread_executor(workers, name=f"{self.name}-worker", **self._options)
            self.thread_pool = self._replace(self.thread_pool, pool)
        return pool

    def optimize_process_pool(self, max_workers: int | None = None) -> BoundedExecutor:
        """Make the pool of processes, of 1 for each CPU by default; one made before finishes its tasks and ends.

        They are fresh interpreters, never forks. With an `executor` this is what stands before it; `max_workers` is
        then how many tasks it is taken to run at once.
        """
        name = f"{self.name}-process"
        with self._lock:
            workers = self._workers(max_workers, PROCESSES_PER_CPU)
            if self._executor is None:
                pool = process_executor(workers, name=name, **self._options)
            else:
                pool = BoundedExecutor(
                    partial(_Borrowed, self._executor), workers, name=name, **self._options
                )
            self.process_pool = self._replace(self.process_pool, pool)
        return pool

    def optimize_async_concurrency(self, max_concurrent: int | None = None) -> AsyncConcurrency:
        """Make the limit of coroutines, 20 for each CPU by default: `async with` it, or `await` its `map`."""
        self.async_semaphore = AsyncConcurrency(
            self._workers(max_concurrent, COROUTINES_PER_CPU, "max_concurrent")
        )
        return self.async_semaphore

    def cpu_intensive_task_optimizer(
        self, task_func: Callable[[Any], Any], data_chunks: Iterable[Any], *, return_errors: bool = False
    ) -> list[Any]:
        """Call `task_func(chunk)` for each chunk in a process and return the results in the chunks' order.

        Blocks until all are done. Raises TypeError for a function that another process cannot import; if any call
        failed, one TaskErrors with every result and error, or with `return_errors` each exception in its place.
        """
        function("task_func", task_func)
        chunks = iterable("data_chunks", data_chunks)
        if self._executor is None:
            _check_importable(task_func)
        return _run(self._processes, task_func, ((chunk,) for chunk in chunks), return_errors=return_errors)

    def io_intensive_task_optimizer(
        self,
        task_func: Callable[..., Any],
        task_args_list: Iterable[Iterable[Any]],
        *,
        return_errors: bool = False,
    ) -> list[Any]:
        """Call `task_func(*args)` for each `args` in a thread and return the results in their order.

        Blocks until all are done; fails as `cpu_intensive_task_optimizer` does.
        """
        function("task_func", task_func)
        calls = iterable("task_args_list", task_args_list)
        if isinstance(calls, Sequence):  # an error before anything runs; else it is that task's
            for index, arguments in enumerate(calls):
                iterable(f"task_args_list[{index}]", arguments)
        return _run(self._threads, task_func, calls, return_errors=return_errors)

    def stats(self) -> CPUStats:
        """Return what was found and made, and what the pools do."""
        return CPUStats(
            cpu_count=self.cpu_count,
            max_concurrent=None if self.async_semaphore is None else self.async_semaphore.max_concurrent,
            threads=None if self.thread_pool is None else self.thread_pool.stats(),
            processes=None if self.process_pool is None else self.process_pool.stats(),
        )

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics as a dict."""
        return asdict(self.stats())

    def close(self) -> None:
        """End the pools that were made, waiting for the tasks that they have; again does nothing.

        Called by one of their own workers it does not wait for that pool, which would wait for itself.
        """
        with self._lock:
            self._closed = True
            made = list(self._made)
        for pool in made:
            pool.shutdown()

    def _workers(self, given: int | None, for_each_cpu: int, argument: str = "max_workers") -> int:
        self._check_open()
        return self.cpu_count * for_each_cpu if given is None else whole(argument, given)

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"{self.name!r} is closed")

    def _replace(self, old: BoundedExecutor | None, new: BoundedExecutor) -> BoundedExecutor:
        self._made.add(new)
        if old is not None:
            old.shutdown(wait=False)
        return new

    def _threads(self) -> BoundedExecutor:
        with self._lock:
            self._check_open()
            return self.thread_pool or self.optimize_thread_pool()

    def _processes(self) -> BoundedExecutor:
        with self._lock:
            self._check_open()
            return self.process_pool or self.optimize_process_pool()


class _Borrowed(Executor):
    """An executor of the application's, which closing a pool leaves open."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        return self._executor.submit(fn, *args, **kwargs)


def _check_importable(task_func: Callable[..., Any]) -> None:
    try:
        pickle.dumps(task_func)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"task_func must be a function of a module, which a process can import, not {task_func!r}"
        ) from error


def _run(
    current: Callable[[], BoundedExecutor],
    task_func: Callable[..., Any],
    calls: Iterable[Iterable[Any]],
    *,
    return_errors: bool,
) -> list[Any]:
    """Submit all, wait for all, and cancel what has not begun when the caller is interrupted."""
    current()  # raises before anything is taken from the iterable
    results: dict[int, Any] = {}
    errors: dict[int, BaseException] = {}
    futures: dict[int, Future[Any]] = {}
    try:
        for index, arguments in enumerate(calls):
            results[index] = None
            try:
                futures[index] = _submit(current, task_func, tuple(iterable("arguments", arguments)))
            except UsedAfterFork:
                raise
            except Exception as error:
                errors[index] = error
        for index, future in futures.items():
            try:
                failed = future.exception()
            except CancelledError as cancelled:
                failed = cancelled
            if failed is None:
                results[index] = future.result()
            else:
                errors[index] = failed
    except BaseException:
        for future in futures.values():
            future.cancel()
        raise
    return collected(results, errors, return_errors=return_errors)


def _submit(
    current: Callable[[], BoundedExecutor], task_func: Callable[..., Any], arguments: tuple[Any, ...]
) -> Future[Any]:
    """Submit a task to the current pool, or to the one that takes its place meanwhile."""
    while True:
        pool = current()
        try:
            return pool.submit(task_func, *arguments)
        except PoolClosed:
            if pool is current():
                raise
