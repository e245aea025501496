"""Profiled functions of every kind stay what they are, and are profiled while their own code runs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import sys
import types
import weakref
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest
from unit.profiled import Clock, busy, names

from storescope.core.profiling.profiler import PerformanceProfiler
from storescope.core.profiling.safe_cprofile import SLOT

PROCESS_WIDE = sys.version_info >= (3, 12)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timing(clock: Clock) -> PerformanceProfiler:
    return PerformanceProfiler(mode="timing", clock=clock)


@pytest.fixture
def profiler() -> PerformanceProfiler:
    return PerformanceProfiler()


@pytest.fixture(autouse=True)
def free_slot() -> Iterator[None]:
    """No test leaves cProfile running."""
    yield
    assert repr(SLOT) == "<Slot free>"
    assert sys.getprofile() is None


def test_functions_stay_of_their_kind(profiler: PerformanceProfiler) -> None:
    """inspect, names, signatures and documentation say the same of a decorated function."""

    def function(a: int, *, b: int = 2) -> int:
        """Add."""
        return a + b

    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def async_generator() -> AsyncGenerator[int, None]:
        yield 1

    questions = (
        inspect.isfunction,
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    )
    for plain in (function, coroutine, generator, async_generator):
        decorated = profiler.profile_function()(plain)
        assert [is_one(decorated) for is_one in questions] == [is_one(plain) for is_one in questions]
        assert inspect.signature(decorated) == inspect.signature(plain)
        assert (decorated.__name__, decorated.__doc__) == (plain.__name__, plain.__doc__)


def test_methods_of_every_kind_can_be_decorated(profiler: PerformanceProfiler) -> None:
    """Methods, class methods and static methods work on either side of their own decorator."""

    class Shop:
        @profiler.profile_function("method")
        def method(self) -> type:
            return type(self)

        @profiler.profile_function("class")
        @classmethod
        def of_class(cls) -> type:
            return cls

        @classmethod
        @profiler.profile_function("class")
        def of_class_too(cls) -> type:
            return cls

        @profiler.profile_function("static")
        @staticmethod
        def static(value: int) -> int:
            return value

    shop = Shop()
    assert [shop.method(), shop.of_class(), Shop.of_class_too()] == [Shop, Shop, Shop]
    assert shop.static(3) == 3
    assert {name: stats.count for name, stats in profiler.stats().functions.items()} == {
        "method": 1,
        "class": 2,
        "static": 1,
    }


class Trouble(Exception):
    pass


@pytest.mark.parametrize("error", [Trouble("x"), StopIteration("y"), KeyboardInterrupt(), GeneratorExit()])
def test_results_and_exceptions_are_the_calls_own(
    profiler: PerformanceProfiler, error: BaseException
) -> None:
    """The very object comes out, whatever it is, and is counted as an error."""
    result = object()

    @profiler.profile_function()
    def call(fails: bool) -> object:
        if fails:
            raise error
        return result

    assert call(False) is result
    with pytest.raises(type(error)) as caught:
        call(True)
    assert caught.value is error
    assert profiler.stats().functions["call"].errors == 1


async def exchange(log: list[Any]) -> AsyncGenerator[Any, Any]:
    try:
        received = yield 1
        log.append(received)
        try:
            yield 2
        except Trouble as trouble:
            log.append(str(trouble))
        await asyncio.sleep(0)
        yield 3
        yield 4
    finally:
        await asyncio.sleep(0)
        log.append("closed")


def exchange_in_sync(log: list[Any]) -> Generator[Any, Any, str]:
    try:
        received = yield 1
        log.append(received)
        try:
            yield 2
        except Trouble as trouble:
            log.append(str(trouble))
        yield 3
        return "the end"
    finally:
        log.append("closed")


def test_generators_are_driven_as_before(profiler: PerformanceProfiler) -> None:
    """send, throw, close and the returned value reach and leave the generator as without the decorator."""

    def drive(function: Callable[..., Any]) -> list[Any]:
        log: list[Any] = []
        generator = function(log)
        log += [next(generator), generator.send("hello"), generator.throw(Trouble("oh"))]
        with pytest.raises(StopIteration) as stop:
            next(generator)
        log.append(stop.value.value)
        closed = function(log)
        next(closed)
        closed.close()
        with pytest.raises(StopIteration):
            next(closed)
        return log

    assert drive(profiler.profile_function("g")(exchange_in_sync)) == drive(exchange_in_sync)
    stats = profiler.stats().functions["g"]
    assert (stats.count, stats.errors) == (2, 0)


def test_async_generators_are_driven_as_before(profiler: PerformanceProfiler) -> None:
    """asend, athrow and aclose do what they do without the decorator."""

    async def drive(function: Callable[..., Any]) -> list[Any]:
        log: list[Any] = []
        generator = function(log)
        log += [
            await generator.asend(None),
            await generator.asend("hello"),
            await generator.athrow(Trouble("oh")),
        ]
        await generator.aclose()
        log += [item async for item in function(log)]
        return log

    decorated = profiler.profile_function("g")(exchange)
    assert asyncio.run(drive(decorated)) == asyncio.run(drive(exchange))
    stats = profiler.stats().functions["g"]
    assert (stats.count, stats.errors) == (2, 0)


def test_a_generator_that_ignores_its_end_is_told_so(profiler: PerformanceProfiler) -> None:
    """Yielding on close is the RuntimeError that it was."""

    @profiler.profile_function("stubborn")
    def stubborn() -> Iterator[int]:
        while True:
            try:
                yield 1
            except GeneratorExit:
                yield 2

    generator = stubborn()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()  # type: ignore[attr-defined]
    with pytest.raises(Trouble):
        generator.throw(Trouble())  # type: ignore[attr-defined]


def test_coroutines_of_the_old_kind_can_be_awaited(profiler: PerformanceProfiler) -> None:
    """What `types.coroutine` made can be awaited when it is decorated."""

    @profiler.profile_function("old")
    @types.coroutine
    def old() -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        return 7

    async def main() -> int:
        return await old()

    assert asyncio.run(main()) == 7


def test_an_object_with_an_async_call_is_a_coroutine_function(profiler: PerformanceProfiler) -> None:
    """It is timed and profiled until its end, not until its coroutine is made."""

    class Work:
        async def __call__(self) -> int:
            await asyncio.sleep(0.02)
            return busy()

    decorated = profiler.profile_function("work")(Work())
    assert inspect.iscoroutinefunction(decorated)
    assert asyncio.run(decorated()) == busy()
    assert profiler.stats().functions["work"].total >= 0.02
    assert "busy" in names(profiler.get_profile("work"))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no function can be marked as one")
def test_a_marked_function_may_return_any_awaitable(profiler: PerformanceProfiler) -> None:
    """An awaitable whose `__await__` gives a plain iterator, without send and throw, is awaited as without us."""

    class Awaitable:
        def __init__(self, *steps: Any) -> None:
            self.steps = steps

        def __await__(self) -> Iterator[Any]:
            return iter(self.steps)

    @inspect.markcoroutinefunction  # type: ignore[attr-defined, unused-ignore]
    def call(*steps: Any) -> Awaitable:
        return Awaitable(*steps)

    async def main() -> list[None]:
        decorated = profiler.profile_function("call")(call)
        return [await decorated(), await decorated(None, None)]  # type: ignore[misc]

    assert asyncio.run(main()) == [None, None]
    coroutine = profiler.profile_function("thrown")(call)(None)
    coroutine.send(None)
    with pytest.raises(Trouble):
        coroutine.throw(Trouble())
    assert profiler.stats().functions["thrown"].errors == 1


def test_an_exception_that_was_thrown_in_is_not_kept(profiler: PerformanceProfiler) -> None:
    """No cycle keeps an exception, and what its frames hold, until the next garbage collection."""

    @profiler.profile_function()
    def items() -> Iterator[int]:
        yield 1

    def throw() -> weakref.ref[Trouble]:
        generator, error = items(), Trouble()
        next(generator)
        reference = weakref.ref(error)
        with contextlib.suppress(Trouble):
            generator.throw(error)  # type: ignore[attr-defined]
        del error
        return reference

    gc.disable()
    try:
        assert throw()() is None
    finally:
        gc.enable()


def test_a_generator_is_timed_while_it_makes_items(timing: PerformanceProfiler, clock: Clock) -> None:
    """What whoever iterates does between two items is no time of the generator's."""

    @timing.profile_function("items")
    def items() -> Iterator[int]:
        for item in range(3):
            clock.advance(1)
            yield item
        clock.advance(0.5)

    @timing.profile_function("async items")
    async def async_items() -> AsyncGenerator[int, None]:
        for item in range(3):
            clock.advance(1)
            await asyncio.sleep(0)
            clock.advance(1)
            yield item

    async def iterate() -> None:
        async for _ in async_items():
            clock.advance(10)

    for _ in items():
        clock.advance(10)
    asyncio.run(iterate())
    assert timing.stats().functions["items"].total == pytest.approx(3.5)
    assert timing.stats().functions["async items"].total == pytest.approx(6)


def test_a_coroutine_is_timed_with_its_waits_and_profiled_without(profiler: PerformanceProfiler) -> None:
    """Other tasks that run while it waits are in its duration, and not in its profile."""

    def of_another_task() -> int:
        return busy()

    def of_its_own() -> int:
        return busy()

    async def other(done: asyncio.Event) -> None:
        while not done.is_set():
            of_another_task()
            await asyncio.sleep(0)

    @profiler.profile_function("task")
    async def task() -> None:
        of_its_own()
        await asyncio.sleep(0.02)
        of_its_own()

    async def main() -> None:
        done = asyncio.Event()
        running = asyncio.ensure_future(other(done))
        await task()
        done.set()
        await running

    asyncio.run(main())
    assert profiler.stats().functions["task"].minimum >= 0.02
    seen = names(profiler.get_profile("task"))
    assert "of_its_own" in seen
    assert "of_another_task" not in seen


def test_two_tasks_at_once_are_both_profiled(profiler: PerformanceProfiler) -> None:
    """Tasks that wait at the same time each have their own steps profiled."""

    def first_part() -> int:
        return busy()

    def second_part() -> int:
        return busy()

    @profiler.profile_function("first")
    async def first() -> None:
        for _ in range(5):
            first_part()
            await asyncio.sleep(0)

    @profiler.profile_function("second")
    async def second() -> None:
        for _ in range(5):
            second_part()
            await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(first(), second())

    asyncio.run(main())
    assert {"first_part", "second_part"} & names(profiler.get_profile("first")) == {"first_part"}
    assert {"first_part", "second_part"} & names(profiler.get_profile("second")) == {"second_part"}


def test_the_body_of_a_generator_is_profiled(profiler: PerformanceProfiler) -> None:
    """What a generator calls is seen, and what is done with its items is not."""

    def inside() -> int:
        return busy()

    def outside() -> int:
        return busy()

    @profiler.profile_function("items")
    def items() -> Iterator[int]:
        for _ in range(3):
            yield inside()

    for _ in items():
        outside()
    assert {"inside", "outside"} & names(profiler.get_profile("items")) == {"inside"}


def test_a_block_in_a_coroutine_is_only_timed(profiler: PerformanceProfiler) -> None:
    """A block that waits in its middle would profile others: it has its duration and no profile."""

    async def main() -> None:
        with profiler.profile("block"):
            await asyncio.sleep(0.001)

    asyncio.run(main())
    stats = profiler.stats().functions["block"]
    assert (stats.count, stats.profiled) == (1, 0)
    assert stats.minimum >= 0.001
    assert profiler.get_profile("block") is None
