"""A task of a pool: the call that a worker makes, and the future that its submitter holds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import copy_context
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: What comes of a task, and what its future is to have: a value or an error.
Restore = Callable[[Any], "tuple[Any, BaseException | None]"]

#: The pools that the current thread works for.
_working = threading.local()

#: Stands in the place of a future that has ended, so that what it holds is not held twice.
_ENDED: Final[Future[Any]] = Future()
_ENDED.set_result(None)


def works_for(pool: Executor) -> bool:
    """Whether the current thread is busy for a pool: with a task, or with what is called when one is done."""
    return pool in getattr(_working, "pools", ())


def work_for(pool: Executor, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function, and let the thread be known as one of the pool's meanwhile."""
    outer = getattr(_working, "pools", ())
    _working.pools = (*outer, pool)
    try:
        return function(*args, **kwargs)
    finally:
        _working.pools = outer


class Call:
    """A function to be called in its submitter's context, by a thread of the pool.

    Pickled, because it is to run in another process or on another machine, it is the function alone: neither the
    context nor the pool is there, nor perhaps this package.
    """

    def __init__(self, pool: Executor, function: Callable[..., Any]) -> None:
        self.__name__: str = getattr(function, "__name__", type(function).__name__)  # Dask groups tasks by it
        self._pool = pool
        self._function = function
        self._context = copy_context()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        return work_for(self._pool, self._context.run, self._function, *args, **kwargs)

    def __reduce__(self) -> tuple[type[partial[Any]], tuple[Callable[..., Any]]]:
        return partial, (self._function,)


class Task(Future[T]):
    """The future of a pool's task, which follows the one that the executor behind the pool gave for it.

    Its callbacks run as work for the pool, whichever thread calls them: what they submit must not wait either.
    """

    def __init__(self, pool: Executor, restore: Restore | None) -> None:
        super().__init__()
        self._pool = pool
        self._restore = restore
        self._inner: Future[Any] = _ENDED

    def follow(self, inner: Future[Any]) -> None:
        """Become what another future becomes."""
        self._inner = inner
        inner.add_done_callback(partial(work_for, self._pool, self._settle))

    def cancel(self) -> bool:
        """Cancel it unless it has begun, and tell whether it is cancelled."""
        return self.cancelled() or self._inner.cancel()

    def running(self) -> bool:
        """Whether a worker has it."""
        return self._inner.running()

    def _settle(self, inner: Future[Any]) -> None:
        if inner.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        error = inner.exception()
        value: Any = None if error else inner.result()
        if error is None and self._restore is not None:
            value, error = self._restore(value)
        if error is None:
            self.set_result(value)
        else:
            self.set_exception(error)
        self._inner = _ENDED
