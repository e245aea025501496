"""`cache_result`: a decorator that answers repeated calls of a function from an `IntelligentCache`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, overload

from storescope.core import checks
from storescope.core.caching.cache import IntelligentCache
from storescope.core.caching.memo import MISSING, CacheInfo, Call, Memo, SharedMemo

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")

#: What a function must not be: its result can be read once.
_GENERATORS: Final = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)


class CachedMethod(Protocol[P, R_co]):
    """A method that `cache_result` decorates, as an instance has it."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result, from the cache where it is there."""


class CachedFunction(Protocol[P, R_co]):
    """What `cache_result` makes of a function: the function, and what is known of its results."""

    @property
    def __wrapped__(self) -> Callable[P, R_co]:
        """The function itself, which no cache is asked for."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Return the result, from the cache where it is there."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Forget the result of a call, also of one that is under way; returns whether there was one.

        A method is given its instance: `Class.method.invalidate(instance, ...)`.
        """

    def cache_info(self) -> CacheInfo:
        """Return what was counted since the decoration or the last `cache_clear`."""

    def cache_clear(self) -> None:
        """Forget the results of this function, also of calls that are under way, and what was counted."""

    @overload
    def __get__(self, instance: None, owner: type) -> CachedFunction[P, R_co]: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None
    ) -> CachedMethod[Q, R]: ...


def cache_result(
    cache: IntelligentCache,
    ttl: float | None = None,
    key_func: Callable[..., Any] | None = None,
    *,
    stale: float = 0.0,
    name: str | None = None,
) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
    """Answer repeated calls of a function, a method or a coroutine function from `cache`.

    - `ttl`: seconds that a result is kept; None: as long as the cache keeps what has no time of its own.
    - `key_func(*args, **kwargs)`: what tells one call from another, instead of all its arguments.
    - `stale`: seconds more in which a call is answered with the expired result at once, while one refresh runs
      beside it, in a thread (a task for coroutine functions). If that fails, the old result stays until its end.
    - `name`: of the function in the second level of the cache, the same in every process; by default its module and
      qualified name.

    Calls are the same if their arguments are, in whatever way they are given, in type and at every depth
    (`call_key.freeze`); `self` counts by identity and is not kept alive, while arguments may be, such as a bound method
    and its instance. A call whose arguments have no key is computed and not kept, and so is one whose result can be
    read once: an awaitable, a generator or another iterator. Equal calls at the same time are computed once, and all
    get its result or its exception (see `single_flight`). Every caller gets the same object; exceptions are not kept.

    A call blocks while another computes the same, and for the second level of the cache where there is one; on an
    event loop that is asked in a thread. Arguments without a form that every process has keep to the first level.

    Raises TypeError for what cannot be called or is a generator function, and ValueError for a function whose name
    is not the same in every process (a lambda, one within a function, one of `__main__`), with a second level and
    without `name`.
    """
    if not isinstance(cache, IntelligentCache):
        raise TypeError(f"cache must be an IntelligentCache, not {cache!r}")
    checks.optional(checks.positive, "ttl", ttl)
    checks.optional(checks.function, "key_func", key_func)
    checks.number("stale", stale)
    checks.optional(checks.text, "name", name)
    make = Memo if cache.second_level is None else SharedMemo

    def decorate(function: Any) -> Any:
        if isinstance(function, (classmethod, staticmethod)):
            return type(function)(decorate(function.__func__))
        checks.function("function", function)
        if any(is_one(function) for is_one in _GENERATORS):
            raise TypeError(
                f"function must not be a generator function, whose result is read once: {function!r}"
            )
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__)
        memo = make(function, cache, ttl, key_func, stale, name, is_async)
        face: Any = update_wrapper((_async_face if is_async else _face)(memo), function)
        face.invalidate, face.cache_info, face.cache_clear = memo.invalidate, memo.info, memo.clear
        return face

    return decorate


def _face(memo: Memo) -> Callable[..., Any]:
    look_up, count_hit, function, keyless = memo.look_up, memo.count_hit, memo.function, memo.keyless

    def cached(*args: Any, **kwargs: Any) -> Any:
        try:
            key = memo.key(*args, **kwargs)
        except keyless:
            key = None
        if (
            key is None
        ):  # not within the handler: the function's own exception is to have no other as its context
            memo.count_uncached()
            return function(*args, **kwargs)
        value = look_up(key, MISSING)
        if value is not MISSING:
            count_hit()
            return value
        return memo.run(Call(key, args, kwargs))

    return cached


def _async_face(memo: Memo) -> Callable[..., Any]:
    look_up, count_hit, function, keyless = memo.look_up, memo.count_hit, memo.function, memo.keyless

    async def cached(*args: Any, **kwargs: Any) -> Any:
        try:
            key = memo.key(*args, **kwargs)
        except keyless:
            key = None
        if key is None:
            memo.count_uncached()
            return await function(*args, **kwargs)
        value = look_up(key, MISSING)
        if value is not MISSING:
            count_hit()
            return value
        return await memo.run_async(Call(key, args, kwargs))

    return cached
