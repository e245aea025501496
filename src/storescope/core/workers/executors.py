"""Executors with a bounded queue: threads that carry context, processes that fork no store, and anybody's own."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar

from storescope.core.checks import optional, positive, whole
from storescope.core.errors import PoolClosed, QueueFull
from storescope.core.forks import after_fork, check_process, current_process
from storescope.core.stats import ExecutorStats
from storescope.core.workers.pickled import answer, dump, restored
from storescope.core.workers.tasks import Call, Restore, Task, works_for

T = TypeVar("T")


class BoundedExecutor(Executor):
    """An executor in front of which callers wait while `max_queued` tasks do.

    Stands before the executor that `make` returns: of threads, of processes, or of other machines. Tasks that run in
    this process see the caller's context variables. `submit` blocks while the queue is full, `submit_timeout` seconds
    at most, then raises QueueFull; from one of the pool's own workers, or a done-callback of one of its tasks, it
    never blocks, because the queue may be waiting for that very thread. An executor that broke, because a worker
    process died, is made anew for the tasks that follow. Usable from any thread of the process that made it.
    """

    def __init__(
        self,
        make: Callable[[], Executor],
        workers: int,
        *,
        restore: Restore | None = None,
        max_queued: int | None = None,
        submit_timeout: float | None = None,
        name: str = "executor",
    ) -> None:
        self.workers = whole("workers", workers)
        self.max_queued: int | None = optional(whole, "max_queued", max_queued)
        self.name = name
        self._submit_timeout: float | None = optional(positive, "submit_timeout", submit_timeout)
        self._make = make
        self._executor = make()
        self._restore = restore
        self._process = current_process()
        self._closed = False
        self._submitted = self._completed = self._failed = self._rejected = 0
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        """Start with nothing under way; in a forked child too, where `stats` and `repr` still work."""
        self._changed = threading.Condition()
        self._tasks: set[Future[Any]] = set()

    def __repr__(self) -> str:
        stats = self.stats()
        state = "closed" if self._closed else f"{stats.active} active, {stats.queued} queued"
        return f"<BoundedExecutor {self.name!r} of {self.workers}: {state}>"

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have a function called by a worker. Blocks while the queue is full; raises QueueFull or PoolClosed."""
        check_process(self._process, repr(self.name))
        task: Task[T] = Task(self, self._restore)
        call = Call(self, fn)
        with self._changed:
            self._wait_for_room()
            self._tasks.add(task)
            self._submitted += 1
        try:
            inner = self._hand_over(call, args, kwargs)
        except BaseException:
            with self._changed:
                self._submitted -= 1
                self._finished(task)
                self._check_open()  # closed meanwhile is why
            raise
        task.add_done_callback(self._count)
        task.follow(inner)
        return task

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; wait for those taken, or with `cancel_futures` only for those begun.

        Does not wait when one of the pool's own workers calls it, which would wait for itself.
        """
        if self._process != current_process():
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            pending = list(self._tasks) if cancel_futures else []
        for task in pending:
            task.cancel()
        wait = wait and not works_for(self)
        self._executor.shutdown(wait=wait, cancel_futures=cancel_futures)
        if wait:  # an executor that is not ours is not shut down, and some do not wait when they are
            with self._changed:
                self._changed.wait_for(lambda: not self._tasks)

    def stats(self) -> ExecutorStats:
        """Return what it does now, and what it did since it was made."""
        with self._changed:
            return ExecutorStats(
                workers=self.workers,
                active=min(len(self._tasks), self.workers),
                queued=max(0, len(self._tasks) - self.workers),
                max_queued=self.max_queued,
                submitted=self._submitted,
                completed=self._completed,
                failed=self._failed,
                rejected=self._rejected,
            )

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics as a dict."""
        return asdict(self.stats())

    def _wait_for_room(self) -> None:
        self._check_open()
        if self.max_queued is None or works_for(self):
            return
        most = self.workers + self.max_queued
        room = self._changed.wait_for(lambda: self._closed or len(self._tasks) < most, self._submit_timeout)
        self._check_open()
        if not room:
            self._rejected += 1
            raise QueueFull(
                f"the queue of {self.name!r} is still full after {self._submit_timeout:g} s"
                f" ({self.workers} active, {self.max_queued} queued)"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosed(f"{self.name!r} is closed")

    def _hand_over(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Future[Any]:
        executor = self._executor
        try:
            return executor.submit(call, *args, **kwargs)
        except BrokenExecutor:
            with self._changed:
                self._check_open()
                if self._executor is executor:
                    self._executor = self._make()
                executor = self._executor
            return executor.submit(call, *args, **kwargs)

    def _count(self, task: Future[Any]) -> None:
        with self._changed:
            if not task.cancelled():
                self._completed += task.exception() is None
                self._failed += task.exception() is not None
            self._finished(task)

    def _finished(self, task: Future[Any]) -> None:
        self._tasks.discard(task)
        if self._closed:
            self._changed.notify_all()  # who closes it waits for the last, and there may be several
        else:
            self._changed.notify()


class _Processes(ProcessPoolExecutor):
    """Worker processes that take pickled calls and give Answers, so that no task can break the pool of all."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        try:
            pickled = dump((fn, args, kwargs))
        except Exception as error:
            refused: Future[Any] = Future()
            refused.set_exception(error)
            return refused
        return super().submit(answer, pickled)


def thread_executor(workers: int, *, name: str, **options: Any) -> BoundedExecutor:
    """Return an executor of threads, whose tasks see the context variables that their submitters saw."""
    return BoundedExecutor(
        partial(ThreadPoolExecutor, workers, thread_name_prefix=name),
        workers,
        name=name,
        **options,
    )


def process_executor(workers: int, *, name: str, **options: Any) -> BoundedExecutor:
    """Return an executor of processes that begin as fresh interpreters: a forked store would hang.

    What a task is given and returns is pickled; context variables do not cross. A program that uses it needs the
    `if __name__ == "__main__":` of multiprocessing.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    return BoundedExecutor(
        partial(_Processes, workers, mp_context=context),
        workers,
        restore=restored,
        name=name,
        **options,
    )
