"""The guide's `cache_result`, and what its own code gets wrong: each fault fails on `naive` and not on ours."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from guide import naive

from storescope.core import IntelligentCache, cache_result

Decorator = Callable[..., Any]


def fault(reason: str, raises: type[BaseException] = AssertionError) -> pytest.MarkDecorator:
    """Run a test with the guide's code, which has to fail, and with ours."""
    fails = pytest.mark.xfail(strict=True, reason=reason, raises=raises)
    broken = pytest.param(naive.cache_result, marks=fails, id="naive")
    return pytest.mark.parametrize("decorator", [broken, pytest.param(cache_result, id="ours")])


@pytest.fixture
def cache() -> IntelligentCache:
    return IntelligentCache(max_size=500, default_ttl=600)


class Calls(list[Any]):
    """Remembers what it was called with."""

    def result(self, *args: Any) -> str:
        self.append(args)
        return " and ".join(map(str, args))


def test_the_program_of_the_guide(cache: IntelligentCache) -> None:
    """A decorated function computes once what it is asked for twice, and the cache says so."""
    calls = Calls()

    @cache_result(cache, ttl=300)
    def expensive_operation(param1: str, param2: str) -> str:
        return f"Result for {calls.result(param1, param2)}"

    first = expensive_operation("test", "data")
    second = expensive_operation("test", "data")

    assert first == second == "Result for test and data"
    assert calls == [("test", "data")]
    statistics = cache.get_stats()
    assert (statistics["size"], statistics["max_size"]) == (1, 500)
    assert (statistics["hit_count"], statistics["miss_count"], statistics["hit_rate"]) == (1, 1, 0.5)


@fault("None is taken for a miss")
def test_none_is_a_result(decorator: Decorator, cache: IntelligentCache) -> None:
    """A function that returns None is computed once."""
    calls = Calls()
    function = decorator(cache)(lambda: calls.append(1))

    assert function() is function() is None
    assert len(calls) == 1


@fault("keys have the bare name of a function")
def test_functions_of_one_name_are_two(decorator: Decorator, cache: IntelligentCache) -> None:
    """Two functions of one name do not answer for each other."""

    def named(result: str) -> Callable[[int], str]:
        def read(number: int) -> str:
            return f"{result} {number}"

        return read

    first, second = decorator(cache)(named("note")), decorator(cache)(named("task"))

    assert (first(1), second(1)) == ("note 1", "task 1")


@fault("keys are of the spelling of a call")
@pytest.mark.parametrize("spelling", [((1,), {"b": 2}), ((), {"b": 2, "a": 1}), ((1,), {})])
def test_spellings_of_a_call_are_one(decorator: Decorator, cache: IntelligentCache, spelling: Any) -> None:
    """Arguments by position, by name and by default are the same call."""
    calls = Calls()

    @decorator(cache)
    def function(a: int, b: int = 2) -> str:
        return calls.result(a, b)

    args, kwargs = spelling
    assert function(1, 2) == function(*args, **kwargs) == "1 and 2"
    assert calls == [(1, 2)]


@fault("arguments are pickled", TypeError)
def test_what_cannot_be_pickled_is_an_argument(decorator: Decorator, cache: IntelligentCache) -> None:
    """A lock, a lambda, an open generator: any object is an argument, and the same one is the same call."""
    calls = Calls()
    lock = threading.Lock()
    function = decorator(cache)(lambda lock, options: calls.result("called"))

    assert function(lock, {"by": calls.append}) == function(lock, {"by": lock}) == "called"
    assert function(lock, {"by": lock}) == "called"
    assert len(calls) == 2


@fault("a pickle has the order of a dict")
def test_a_dict_has_no_order(decorator: Decorator, cache: IntelligentCache) -> None:
    """Two equal dicts are one argument, in whatever order they were filled."""
    calls = Calls()
    function = decorator(cache)(lambda options: calls.result(sorted(options)))

    assert function({"a": 1, "b": {"c": 2, "d": 3}}) == function({"b": {"d": 3, "c": 2}, "a": 1})
    assert len(calls) == 1


@fault("every caller computes")
def test_callers_at_the_same_time_compute_once(decorator: Decorator, cache: IntelligentCache) -> None:
    """Of eight threads that ask for the same at once one computes, and all get its result."""
    calls = Calls()
    asked = threading.Barrier(8)
    ended = threading.Event()

    @decorator(cache)
    def slow(number: int) -> str:
        calls.append(number)
        ended.wait(0.2)
        return f"result {number}"

    def ask(_: int) -> str:
        asked.wait(10)
        result = slow(1)
        ended.set()
        return str(result)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == ["result 1"] * 8
    assert calls == [1]


@fault("a coroutine is kept, which can be awaited once", RuntimeError)
def test_coroutine_functions_are_cached(decorator: Decorator, cache: IntelligentCache) -> None:
    """A decorated coroutine function is one, and what it returns is kept."""
    calls = Calls()

    async def function(number: int) -> str:
        return calls.result(number)

    decorated = decorator(cache)(function)

    async def ask() -> tuple[str, str]:
        return await decorated(1), await decorated(1)

    assert asyncio.run(ask()) == ("1", "1")
    assert len(calls) == 1
    assert inspect.iscoroutinefunction(decorated)


@fault("nothing but the end of its time takes a result out", AttributeError)
def test_a_result_can_be_invalidated(decorator: Decorator, cache: IntelligentCache) -> None:
    """After `invalidate` the call is computed again, and others are not."""
    calls = Calls()

    @decorator(cache)
    def function(number: int) -> str:
        return calls.result(number)

    function(1), function(2)

    assert function.invalidate(number=1)
    function(1), function(2)
    assert calls == [(1,), (2,), (1,)]
