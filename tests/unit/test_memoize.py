"""`cache_result`: what a decorated function answers, computes, shares and forgets."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import gc
import inspect
import os
import pickle
import sys
import threading
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from storescope.core import IntelligentCache, cache_result
from storescope.core.caching.memo import CacheInfo

WAIT = 10.0
request: ContextVar[str] = ContextVar("request", default="none")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gate:
    """Holds a computation until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()

    def __call__(self) -> None:
        self.begun.set()
        assert self.opened.wait(WAIT)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def counted(info: CacheInfo) -> dict[str, Any]:
    """Return what is not 0, but for the cache's size."""
    return {name: value for name, value in dataclasses.asdict(info).items() if value and name != "maxsize"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> IntelligentCache:
    return IntelligentCache(clock=clock)


# What is one call


class Shelf:
    """Has each kind of method, each with what it was called with."""

    def __init__(self, cache: IntelligentCache) -> None:
        self.calls: list[Any] = []
        self.cache = cache


def test_a_function_keeps_what_it_is(cache: IntelligentCache) -> None:
    """Name, documentation, signature and pickle are those of the function, which is at `__wrapped__`."""
    assert module_level.__name__ == "module_level"
    assert module_level.__doc__ == "Add."
    assert str(inspect.signature(module_level)) == "(a: 'int', b: 'int' = 1) -> 'int'"
    assert pickle.loads(pickle.dumps(module_level)) is module_level
    assert module_level.__wrapped__(1) == 2


@cache_result(IntelligentCache())
def module_level(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


def test_values_are_told_apart_by_type(cache: IntelligentCache) -> None:
    """1, 1.0 and True are three calls, alone and in containers."""
    function = cache_result(cache)(repr_of)

    for value in (1, 1.0, True, [1], [1.0], [True], {"a": (1,)}, {"a": (1.0,)}):
        assert function(value) == repr(value)
        assert function(value) == repr(value)
    assert counted(function.cache_info()) == {"hits": 8, "misses": 8, "currsize": 8}


def repr_of(value: Any) -> str:
    return repr(value)


def test_functions_that_share_a_cache_share_nothing_else(cache: IntelligentCache) -> None:
    """Lambdas, functions of one name, and one function decorated twice have each their own results."""
    first, second = cache_result(cache)(lambda number: "first"), cache_result(cache)(lambda number: "second")
    assert (first(1), second(1)) == ("first", "second")

    calls: list[int] = []
    for _ in range(2):
        cache_result(cache)(calls.append)(1)
    assert calls == [1, 1]


def test_instances_share_nothing_and_are_not_kept(cache: IntelligentCache) -> None:
    """A method's results are those of one instance, equal or not, which ends when its owner lets it go."""

    @dataclasses.dataclass(eq=True)
    class Note:
        text: str

        @cache_result(cache)
        def loud(self, mark: str = "!") -> str:
            return f"{self.text}{mark} {id(self)}"

    one, two = Note("a"), Note("a")
    assert one == two
    assert one.loud() == one.loud("!") == one.loud(mark="!") == f"a! {id(one)}"
    assert two.loud() == f"a! {id(two)}"
    assert Note.loud.invalidate(one)
    assert counted(Note.loud.cache_info()) == {"hits": 2, "misses": 2, "currsize": 1}

    gone = weakref.ref(one)
    del one
    gc.collect()
    assert gone() is None


def test_class_and_static_methods(cache: IntelligentCache) -> None:
    """Either order of the decorators works; subclasses are classes of their own."""

    class Note:
        @classmethod
        @cache_result(cache)
        def inner(cls, number: int) -> tuple[str, int]:
            return cls.__name__, number

        @cache_result(cache)
        @classmethod
        def outer(cls, number: int) -> tuple[str, int]:
            return cls.__name__, number

        @cache_result(cache)
        @staticmethod
        def static(number: int) -> int:
            return -number

        @property
        @cache_result(cache)
        def identity(self) -> int:
            return id(self)

    class Task(Note):
        pass

    note = Note()
    for _ in range(2):
        assert Note.inner(1) == note.outer(1) == Note.outer(number=1) == ("Note", 1)
        assert Task.inner(1) == Task().outer(1) == ("Task", 1)
        assert Note.static(2) == note.static(2) == -2
        assert note.identity == id(note) != Note().identity
    assert counted(Note.outer.cache_info()) == {"hits": 4, "misses": 2, "currsize": 2}


def test_a_key_func_says_what_one_call_is(cache: IntelligentCache) -> None:
    """It gets what the function gets, may return what cannot be hashed, and fails for its caller to see."""
    calls: list[str] = []

    def key(name: str, **options: Any) -> Any:
        return [name.lower(), len(options) // 0] if name == "" else [name.lower()]

    first = cache_result(cache, None, key)(lambda name, **options: calls.append(name))
    second = cache_result(cache, key_func=key)(lambda name, **options: "second")
    first("A", x=1), first("a", y=object())
    assert calls == ["A"]
    assert second("A") == "second"
    assert first.invalidate("a", z=1)
    with pytest.raises(ZeroDivisionError):
        first("")


def test_a_wrong_call_is_the_functions_own_error(cache: IntelligentCache) -> None:
    """Its TypeError has no other as its context; one within the function is passed on as well."""

    @cache_result(cache)
    def function(a: int, *, b: int = 1) -> int:
        return a + b

    for call in (function, lambda: function(1, 2), lambda: function(1, c=2), lambda: function("1")):
        with pytest.raises(TypeError) as raised:
            call()
        assert raised.value.__context__ is None
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        function.invalidate()


def test_what_has_no_key_is_computed(cache: IntelligentCache) -> None:
    """Arguments that cannot be keyed reach the function each time, and are counted."""
    endless: list[Any] = []
    endless.append(endless)
    function = cache_result(cache)(len)

    async def length(value: Any) -> int:
        return len(value)

    tasks = cache_result(cache)(length)
    assert [function(endless), function(endless), function(memoryview(bytearray(3)))] == [1, 1, 3]
    assert asyncio.run(tasks(endless)) == 1
    assert counted(function.cache_info()) == {"uncached": 3}
    assert counted(tasks.cache_info()) == {"uncached": 1}


@pytest.mark.parametrize("kind", ["partial", "instance", "async instance", "builtin"])
def test_callables_that_are_no_functions(cache: IntelligentCache, kind: str) -> None:
    """Partial functions, instances with `__call__` and functions written in C are cached as functions are."""

    class Adder:
        def __call__(self, a: int) -> int:
            return a + 1

    class AsyncAdder:
        async def __call__(self, a: int) -> int:
            return a + 1

    made: Any = {"partial": functools.partial(module_level, 1), "instance": Adder(), "builtin": abs}.get(
        kind, AsyncAdder()
    )
    decorated = cache_result(cache)(made)

    def call() -> Any:
        return asyncio.run(decorated(2)) if kind == "async instance" else decorated(2)

    assert call() == call()
    assert decorated.cache_info().hits == 1
    assert inspect.iscoroutinefunction(decorated) == (kind == "async instance")


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("error", "message", "arguments", "function"),
    [
        (TypeError, "cache must be an IntelligentCache, not {}", {"cache": {}}, repr_of),
        (ValueError, "ttl must be above 0, not 0", {"ttl": 0}, repr_of),
        (ValueError, "ttl must be above 0, not nan", {"ttl": float("nan")}, repr_of),
        (TypeError, "ttl must be a number, not True", {"ttl": True}, repr_of),
        (ValueError, "stale must be 0 or more, not -1", {"stale": -1}, repr_of),
        (TypeError, "key_func must be callable, not 'key'", {"key_func": "key"}, repr_of),
        (TypeError, "name must be a text, not 1", {"name": 1}, repr_of),
        (ValueError, "name must not be empty", {"name": ""}, repr_of),
        (TypeError, "function must be callable, not 5", {}, 5),
        (TypeError, "function must not be a generator function", {}, generator),
        (TypeError, "function must not be a generator function", {}, async_generator),
    ],
)
def test_bad_arguments_are_refused_at_decoration(
    cache: IntelligentCache, error: type[Exception], message: str, arguments: dict[str, Any], function: Any
) -> None:
    """The error names the argument and its value."""
    with pytest.raises(error, match=message.replace("{}", "{}")):
        cache_result(**{"cache": cache, **arguments})(function)


# Time


def test_results_have_their_time(cache: IntelligentCache, clock: Clock) -> None:
    """A result is kept for `ttl` seconds, else as long as the cache says."""
    short, usual = cache_result(cache, 10)(object), cache_result(cache)(object)
    first = short(), usual()
    clock.now += 9.9
    assert (short(), usual()) == first
    clock.now += 0.2
    assert short() is not first[0]
    assert usual() is first[1]
    clock.now += 300
    assert usual() is not first[1]


def test_an_expired_result_is_answered_while_one_refresh_runs(cache: IntelligentCache, clock: Clock) -> None:
    """Stale hits come at once; the refresh is one thread with the caller's context, and its result is the next."""
    gate, results, seen = Gate(), iter(["first", "second"]), list[tuple[str, bool]]()

    @cache_result(cache, 10, stale=20, name="notes")
    def function() -> str:
        result = next(results)
        if result == "second":
            seen.append((request.get(), threading.current_thread().daemon))
            gate()
        return result

    assert function() == "first"
    clock.now += 11
    token = request.set("mine")
    assert [function() for _ in range(5)] == ["first"] * 5
    request.reset(token)
    assert gate.begun.wait(WAIT)
    assert "notes" in [thread.name for thread in threading.enumerate()]
    gate.opened.set()
    until(lambda: not function.cache_info().in_flight)
    assert function() == "second"
    assert seen == [("mine", True)]
    assert counted(function.cache_info()) == {
        "hits": 6,
        "misses": 1,
        "currsize": 1,
        "stale": 5,
        "refreshes": 1,
    }


def test_a_refresh_that_fails_leaves_the_result_until_its_end(cache: IntelligentCache, clock: Clock) -> None:
    """Nobody sees its exception; when the stale time is over, the function's own is seen."""
    broken = False

    @cache_result(cache, 10, stale=20)
    def function() -> str:
        if broken:
            raise LookupError("away")
        return "value"

    function()
    broken = True
    clock.now += 29
    for failures in (1, 2):
        assert function() == "value"
        until(lambda failures=failures: function.cache_info().refresh_errors == failures)
        until(lambda: not function.cache_info().in_flight)
    clock.now += 2
    with pytest.raises(LookupError):
        function()


def test_a_stale_result_of_a_coroutine_function(cache: IntelligentCache, clock: Clock) -> None:
    """The same for tasks: answered at once, one refresh, failures leave it."""
    results = iter(["first", LookupError("away"), "third"])

    @cache_result(cache, 10, stale=20)
    async def function() -> str:
        result = next(results)
        await asyncio.sleep(0)
        if isinstance(result, Exception):
            raise result
        return result

    async def main() -> None:
        assert await function() == "first"
        clock.now += 11
        for _ in range(2):
            assert await asyncio.gather(*[function() for _ in range(5)]) == ["first"] * 5
            await asyncio.wait_for(
                asyncio.to_thread(until, lambda: not function.cache_info().in_flight), WAIT
            )
        assert await function() == "third"

    asyncio.run(main())
    expected = {"hits": 11, "misses": 1, "currsize": 1, "stale": 10, "refreshes": 2, "refresh_errors": 1}
    assert counted(function.cache_info()) == expected


# At the same time


def test_threads_compute_once_and_failures_are_not_kept(cache: IntelligentCache) -> None:
    """Callers at the same time share a result, or an exception; the next call computes anew."""
    gate, outcomes = Gate(), iter([LookupError("away"), "value"])

    @cache_result(cache)
    def function() -> str:
        gate()
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(function) for _ in range(4)]
        assert gate.begun.wait(WAIT)
        until(lambda: function.cache_info().misses == 4)
        gate.opened.set()
        assert {type(call.exception(WAIT)) for call in calls} <= {LookupError, type(None)}
    assert function() == "value"
    assert next(outcomes, None) is None


def test_a_late_caller_finds_what_was_computed_meanwhile(cache: IntelligentCache) -> None:
    """However threads are scheduled between look-up and computation, a call is computed once."""
    interval = sys.getswitchinterval()
    calls: list[int] = []
    function = cache_result(cache)(calls.append)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(function, [number // 8 for number in range(1600)]))
    finally:
        sys.setswitchinterval(interval)
    assert sorted(calls) == list(range(200))
    info = function.cache_info()
    assert info.hits + info.misses == 1600
    assert info.misses == 200 + info.joined


def test_tasks_compute_once_whoever_is_cancelled(cache: IntelligentCache) -> None:
    """With the first caller cancelled, the others get the value, which is kept; nothing is left of a last one."""
    calls: list[int] = []

    @cache_result(cache)
    async def function(number: int) -> int:
        calls.append(number)
        await asyncio.sleep(0.01)
        return number

    async def main() -> None:
        first, *others = [asyncio.create_task(function(1)) for _ in range(5)]
        alone = asyncio.create_task(function(2))
        await asyncio.sleep(0)
        first.cancel()
        alone.cancel()
        assert await asyncio.gather(*others) == [1] * 4
        assert first.cancelled()
        assert await function(1) == 1
        assert await function(2) == 2

    asyncio.run(main())
    assert calls == [1, 2, 2]
    assert inspect.iscoroutinefunction(function)


def test_event_loops_share_results_and_no_futures(cache: IntelligentCache) -> None:
    """A result of one loop answers the next one's call."""
    calls: list[int] = []

    @cache_result(cache)
    async def function() -> int:
        await asyncio.sleep(0)
        calls.append(1)
        return 1

    assert [asyncio.run(function()) for _ in range(3)] == [1, 1, 1]
    assert calls == [1]


def test_recursion(cache: IntelligentCache) -> None:
    """A function that calls itself is computed once for each argument; with the same argument it ends as it would."""

    @cache_result(cache)
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(80) == 23416728348467685
    assert fibonacci.cache_info().misses == 81

    depth = 0

    @cache_result(cache)
    def same() -> int:
        nonlocal depth
        depth += 1
        return depth if depth == 5 else same()

    assert same() == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_goes_on(cache: IntelligentCache) -> None:
    """A child has its parent's results, and computes what another thread of the parent was computing."""
    gate = Gate()

    @cache_result(cache)
    def function(number: int) -> int:
        if number == 2 and os.getpid() == parent:
            gate()
        return -number

    parent = os.getpid()
    function(1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(function, 2)
        assert gate.begun.wait(WAIT)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads
            child = os.fork()
        if child == 0:
            os._exit(0 if (function(1), function(2), function.cache_info().hits) == (-1, -2, 1) else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        gate.opened.set()
        assert (status, running.result(WAIT)) == (0, -2)


# Forgetting


def test_invalidate_forgets_one_call(cache: IntelligentCache) -> None:
    """It takes any spelling, and tells whether there was something."""
    function = cache_result(cache)(lambda a, b=2: object())
    one, other = function(1), function(3)

    assert function.invalidate(a=1, b=2)
    assert not function.invalidate(1)
    assert function(1) is not one
    assert function(3) is other


def test_clear_forgets_one_function(cache: IntelligentCache) -> None:
    """Others that share the cache keep theirs; the entries are gone, and the counts begin anew."""
    function, other = (
        cache_result(cache)(lambda number: object()),
        cache_result(cache)(lambda number: object()),
    )
    before = [function(number) for number in range(5)], other(1)
    function(1)

    function.cache_clear()
    assert function.cache_info() == CacheInfo(0, 0, 1000, 0, 0, 0, 0, 0, 0, 0)
    assert len(cache) == 1
    assert not {function(number) for number in range(5)} & set(before[0])
    assert other(1) is before[1]


@pytest.mark.parametrize("how", ["invalidate", "cache_clear"])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_is_forgotten_is_not_kept_afterwards(cache: IntelligentCache, how: str, is_async: bool) -> None:
    """A result that was being computed when it was forgotten goes to who asked for it, and to nobody later."""
    gate, results = Gate(), iter(["old", "new"])

    def compute() -> str:
        result = next(results)
        if result == "old":
            gate()
        return result

    async def compute_async() -> str:
        return await asyncio.to_thread(compute)

    decorated: Any = cache_result(cache)(compute_async if is_async else compute)

    def call() -> Any:
        return asyncio.run(decorated()) if is_async else decorated()

    with ThreadPoolExecutor(1) as pool:
        old = pool.submit(call)
        assert gate.begun.wait(WAIT)
        getattr(decorated, how)()
        assert call() == "new"
        gate.opened.set()
        assert old.result(WAIT) == "old"
    assert call() == "new"


def test_what_the_cache_gave_up_is_not_remembered() -> None:
    """Keys of evicted results do not gather: few more are held than the cache has entries."""

    @dataclasses.dataclass(frozen=True)
    class Question:
        number: int

    function = cache_result(IntelligentCache(max_size=10))(repr_of)
    alive: weakref.WeakSet[Question] = weakref.WeakSet()
    for number in range(1000):
        question = Question(number)
        alive.add(question)
        function(question)

    assert len(alive) <= 25
    assert counted(function.cache_info()) == {"misses": 1000, "currsize": 10}


class AgainstAModel(RuleBasedStateMachine):
    """Calls, forgetting and time against a dict of what must be answered."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.version = 0
        self.model: dict[tuple[Any, ...], tuple[Any, float]] = {}
        self.function = cache_result(IntelligentCache(clock=self.clock), 10)(self.compute)

    def compute(self, a: Any, b: Any = 1, **more: Any) -> Any:
        return a, b, self.version

    @rule(a=st.integers(0, 1), b=st.sampled_from([1, 2]), style=st.sampled_from("pkdm"))
    def call(self, a: int, b: int, style: str) -> None:
        args, kwargs = {
            "p": ((a, b), {}),
            "k": ((), {"b": b, "a": a}),
            "d": ((a,), {}),
            "m": ((a,), {"b": b}),
        }[style]
        b = 1 if style == "d" else b
        value, until = self.model.get((a, b), (None, 0.0))
        if until <= self.clock.now:
            value, until = (a, b, self.version), self.clock.now + 10
            self.model[a, b] = value, until
        assert self.function(*args, **kwargs) == value

    @rule()
    def change(self) -> None:
        self.version += 1

    @rule(seconds=st.sampled_from([1, 5, 11]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(a=st.integers(0, 1))
    def invalidate(self, a: int) -> None:
        _, until = self.model.pop((a, 1), (None, 0.0))
        assert self.function.invalidate(a) == (until > self.clock.now)

    @rule()
    def clear(self) -> None:
        self.model.clear()
        self.function.cache_clear()

    @invariant()
    def sizes_agree(self) -> None:
        alive = sum(until > self.clock.now for _, until in self.model.values())
        assert self.function.cache_info().currsize == alive


TestAgainstAModel = AgainstAModel.TestCase
TestAgainstAModel.settings = settings(deadline=None, max_examples=20, stateful_step_count=25)


@pytest.mark.parametrize(
    "function", [lambda x: asyncio.sleep(0, x), lambda x: (each for each in [x]), lambda x: iter([x])]
)
def test_what_is_read_once_is_not_kept(function: Callable[[int], Any]) -> None:
    """An awaitable, a generator, an iterator: each call gets one of its own, and none is counted as a miss."""

    def read(result: Any) -> int:
        async def wait() -> int:
            return await result

        return asyncio.run(wait()) if inspect.isawaitable(result) else next(result)

    decorated = cache_result(IntelligentCache(), stale=10)(function)
    assert [read(decorated(5)), read(decorated(5))] == [5, 5]
    info = decorated.cache_info()
    assert (info.uncached, info.hits, info.misses, info.currsize) == (2, 0, 0, 0)


def test_callers_at_the_same_time_share_nothing_that_is_read_once() -> None:
    """Of two calls at once each reads all of its own."""
    gate, began = Gate(), []

    @cache_result(IntelligentCache())
    def function() -> Iterator[int]:
        began.append(1)
        gate()
        return iter([1, 2, 3])

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(function)
        assert gate.begun.wait(WAIT)
        second = threads.submit(function)
        until(lambda: function.cache_info().misses == 2)
        gate.opened.set()
        assert [list(first.result(WAIT)), list(second.result(WAIT))] == [[1, 2, 3], [1, 2, 3]]
    assert len(began) == 2


def test_an_iterator_of_a_coroutine_function_is_not_kept() -> None:
    """Nor is it shared by two that wait for it."""

    @cache_result(IntelligentCache())
    async def function() -> Iterator[int]:
        await asyncio.sleep(0)
        return iter([1, 2])

    async def both() -> list[Iterator[int]]:
        return [*await asyncio.gather(function(), function()), await function()]

    assert [list(each) for each in asyncio.run(both())] == [[1, 2]] * 3
    assert function.cache_info().uncached == 3
