"""Objects used again instead of built again: for what is dear to build, from any thread."""

from __future__ import annotations

import logging
import sys
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from storescope.core import checks, forks
from storescope.core.errors import NotFromPool, PoolClosed, PoolError
from storescope.core.stats import ObjectPoolStats

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")
_log: Final = logging.getLogger("storescope.core")
#: How many borrowed objects without weak references are held before the first look for dropped ones.
_LOOK_AT: Final = 64
_ABSENT: Final[Any] = object()


class ObjectPool(Generic[T]):
    """Keep up to `max_size` idle objects and hand them out again, the latest returned first.

    It pays for objects that take longer to build than the 1.5 µs of a borrow and a return. As multiples of the time to
    build: a dict of two entries 15, a bytearray of 16 KiB 7, of 64 KiB 3, of **256 KiB 0.8**, of 1 MiB 0.2 (and 0.06
    with filling it, since the system maps new memory in page by page), a TLS context 0.001. Whatever is smaller is
    better left to Python.

    Nothing here blocks: where no object is idle, `factory()` makes one, in the caller's thread. It may be used from
    any thread or coroutine, by `factory` and `reset` themselves, and goes on working in a forked child.

    `reset(obj)` makes a returned object fit for the next borrower; by default its own `reset()` is called, where it has
    one. Where it raises, the object is discarded and counted, and the borrower hears nothing of it.

    A borrowed object that is dropped without `put` is forgotten (`lost` in `stats()`), at once where its type supports
    weak references. Others (dict, list, bytearray) the pool has to hold while they are borrowed; it finds those that
    nobody else refers to by their reference count, on `cleanup()`, on `stats()`, and when their number has doubled. An
    object of such a type that is part of a reference cycle stays borrowed until it is returned.
    """

    def __init__(
        self,
        factory: Callable[[], T],
        max_size: int = 100,
        *,
        reset: Callable[[T], object] | None = None,
        name: str = "objects",
    ) -> None:
        self.name = checks.text("name", name)
        self.max_size = checks.whole("max_size", max_size)
        self._factory: Callable[[], T] = checks.function("factory", factory)
        self._reset: Callable[[T], object] = checks.optional(checks.function, "reset", reset) or _own_reset
        self._idle: dict[int, T] = {}
        self._watched: dict[int, weakref.KeyedRef[int, T]] = {}
        self._held: dict[int, T] = {}
        self._look_at = _LOOK_AT
        self._forget = _forgetter(self._watched)
        self._closed = False
        self._created = self._reused = self._returned = self._discarded = self._reset_errors = 0
        # Re-entrant: garbage collection may start inside, and run a finalizer that returns an object.
        self._lock = threading.RLock()
        forks.after_fork(self._renew_lock)

    def get(self) -> T:
        """Return an idle object, else what `factory()` makes; its error is the caller's and changes nothing here.

        Raises PoolClosed, or PoolError where the factory gives an object that the pool has already.
        """
        if len(self._held) > self._look_at:
            self._forget_dropped()
        with self._lock:
            self._check_open()
            if self._idle:
                _, obj = self._idle.popitem()
                self._lend(obj)
                self._reused += 1
                return obj
        obj = self._factory()
        with self._lock:
            self._check_open()
            if any(id(obj) in known for known in (self._idle, self._watched, self._held)):
                what = object.__repr__(obj)
                raise PoolError(f"the factory of {self!r} made an object that is in the pool already: {what}")
            self._lend(obj)
            self._created += 1
        return obj

    def put(self, obj: T) -> None:
        """Take an object back, and keep it unless the pool is full or closed, or its reset fails.

        Raises NotFromPool for an object that is not borrowed from here, or was returned before.
        """
        key = id(obj)
        with self._lock:
            if self._watched.pop(key, _ABSENT) is _ABSENT and self._held.pop(key, _ABSENT) is _ABSENT:
                what = "was returned before" if key in self._idle else "is not borrowed from it"
                raise NotFromPool(f"{self!r} cannot take back an object that {what}: {object.__repr__(obj)}")
            self._returned += 1
        kept = False
        try:
            kept = self._is_fit(obj)
        finally:
            with self._lock:
                if kept and not self._closed and len(self._idle) < self.max_size:
                    self._idle[key] = obj
                else:
                    self._discarded += 1

    def borrow(self) -> _Borrowed[T]:
        """Return a context manager that gets an object and, however its block ends, puts it back."""
        return _Borrowed(self)

    def cleanup(self) -> int:
        """Drop all idle objects and return how many they were."""
        self._forget_dropped()
        with self._lock:
            idle, self._idle = self._idle, {}
        return len(idle)  # they are destroyed here, outside of the lock

    def close(self) -> None:
        """Drop all idle objects, and from now on whatever is returned; `get` raises PoolClosed."""
        with self._lock:
            self._closed = True
        self.cleanup()

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._closed

    def stats(self) -> ObjectPoolStats:
        """Return what the pool holds and did."""
        self._forget_dropped()
        with self._lock:
            in_use = len(self._watched) + len(self._held)
            return ObjectPoolStats(
                idle=len(self._idle),
                in_use=in_use,
                max_size=self.max_size,
                created=self._created,
                reused=self._reused,
                discarded=self._discarded,
                reset_errors=self._reset_errors,
                lost=self._created + self._reused - self._returned - in_use,
            )

    def get_stats(self) -> dict[str, Any]:
        """Return pool_size (idle objects), created_count, reused_count and reuse_rate."""
        stats = self.stats()
        return {
            "pool_size": stats.idle,
            "created_count": stats.created,
            "reused_count": stats.reused,
            "reuse_rate": stats.reuse_rate,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        in_use = len(self._watched) + len(self._held)
        state = "closed, " if self._closed else ""
        return (
            f"<ObjectPool {self.name!r}: {state}{len(self._idle)} idle of {self.max_size}, {in_use} in use>"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosed(f"object pool {self.name!r} is closed")

    def _lend(self, obj: T) -> None:
        """Note an object by its id, which no other object can have while it is noted: it lives as long."""
        if type(obj).__weakrefoffset__:
            self._watched[id(obj)] = weakref.KeyedRef(obj, self._forget, id(obj))
        else:
            self._held[id(obj)] = obj

    def _forget_dropped(self) -> None:
        held = self._held
        with self._lock:
            dropped = [held.pop(key) for key in list(held) if _references(held, key) == _ALONE]
            self._look_at = max(_LOOK_AT, 2 * len(held))
        dropped.clear()  # they are destroyed here, outside of the lock

    def _is_fit(self, obj: T) -> bool:
        try:
            self._reset(obj)
        except Exception:
            with self._lock:
                self._reset_errors += 1
                first = self._reset_errors == 1
            if first:
                _log.warning("object pool %r discards what it cannot reset", self.name, exc_info=True)
            return False
        return True

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()


def _forgetter(watched: dict[int, weakref.KeyedRef[int, T]]) -> Callable[[Any], None]:
    """Return what is called when a borrowed object dies, before its id is given to another.

    It takes no lock, since that may be at any time, and knows the pool's loans alone, so as not to keep the pool alive.
    """

    def forget(loan: weakref.KeyedRef[int, T]) -> None:
        watched.pop(loan.key, None)

    return forget


class _Borrowed(Generic[T]):
    """An object of a pool for the length of a `with` block; a class, since a generator costs six times as much."""

    __slots__ = ("_obj", "_pool")

    def __init__(self, pool: ObjectPool[T]) -> None:
        self._pool = pool

    def __enter__(self) -> T:
        self._obj = obj = self._pool.get()
        return obj

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        obj = self._obj
        del self._obj
        try:
            self._pool.put(obj)
        except NotFromPool:  # the block has put it back itself: its own error counts for more
            if error is None:
                raise


def _own_reset(obj: Any) -> None:
    reset = getattr(obj, "reset", None)
    if reset is not None:
        reset()


def _references(held: dict[int, Any], key: int) -> int:
    return sys.getrefcount(held.get(key))


#: What `_references` says of an object to which only the dictionary refers.
_ALONE: Final = _references({0: object()}, 0)
