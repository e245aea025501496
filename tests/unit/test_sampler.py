"""The sampling profiler: shares, states, tasks, threads, and what it does to the interpreter."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from unit.profiled import first_part, names, second_part, spin

from storescope.core.profiling.profile import Profile, State
from storescope.core.profiling.sampler import Sampler


@pytest.fixture(autouse=True)
def switch_interval() -> Iterator[None]:
    """Each test finds the interval as it left it."""
    before = sys.getswitchinterval()
    yield
    after = sys.getswitchinterval()
    sys.setswitchinterval(before)
    assert after == before


@pytest.fixture
def sampler() -> Iterator[Sampler]:
    with Sampler() as sampler:
        yield sampler


@pytest.fixture
def quick() -> Iterator[Sampler]:
    """One that looks often, where shares do not matter."""
    with Sampler(rate=500) as sampler:
        yield sampler


def seconds_below(profile: Profile, function: str, *states: State) -> float:
    """Sum the samples in whose stacks a function is, in some states or in all."""
    samples = profile.only(*(states or State)).samples
    return sum(s.seconds for s in samples if any(f.function.rpartition(".")[2] == function for f in s.stack))


def seconds_of(function: Callable[[float], object], seconds: float) -> float:
    """Return how long that took by the clock on the wall, which the sampler goes by as well."""
    begin = time.perf_counter()
    function(seconds)
    return time.perf_counter() - begin


def test_a_busy_function_is_found_with_its_share(sampler: Sampler) -> None:
    """A function that takes about 70 percent of the time is found with its share, give or take 5 points."""
    first = second = 0.0
    with sampler.operation("work") as operation:
        for _ in range(25):
            first += seconds_of(first_part, 0.056)
            second += seconds_of(second_part, 0.024)
    profile = operation.profile()
    found = seconds_below(profile, "first_part"), seconds_below(profile, "second_part")
    assert found[0] / sum(found) == pytest.approx(first / (first + second), abs=0.05)
    assert profile.seconds == pytest.approx(profile.duration, rel=0.1)
    assert profile.top(1)[0].frame.function == "test_a_busy_function_is_found_with_its_share"
    assert profile.top(1, by="self")[0].frame.function == "spin"
    assert (profile.name, profile.source, profile.period) == ("work", "sampler", 0.01)


def test_two_tasks_of_equal_share_are_seen_alike() -> None:
    """Of two tasks that take turns, one of which lets go of the interpreter, neither has more than 60 percent.

    With the interpreter's own switch interval nearly all looks would be at the one that lets go.
    """

    def let_go(seconds: float) -> None:
        spin(seconds / 2)
        time.sleep(0)
        spin(seconds / 2)

    async def task(part: Callable[[float], None]) -> float:
        taken = 0.0
        with sampler.operation(part.__name__) as operation:
            for _ in range(80):
                taken += seconds_of(part, 0.008)
                await asyncio.sleep(0)
        return operation.profile().only(State.RUNNING, State.BLOCKED).seconds / taken

    async def main() -> list[float]:
        return await asyncio.gather(task(spin), task(let_go))

    with Sampler(rate=200) as sampler:
        first, second = asyncio.run(main())
    assert 0.4 <= first / (first + second) <= 0.6


def test_tasks_never_have_each_others_stacks(quick: Sampler) -> None:
    """Whatever a task awaits, its profile has only its own functions, while it runs and while it waits."""

    async def leaf_of_a(seconds: float) -> None:
        spin(seconds)
        await asyncio.sleep(seconds)

    async def leaf_of_b(seconds: float) -> None:
        spin(seconds)
        await asyncio.sleep(seconds)

    async def task(leaf: Callable[[float], Awaitable[None]]) -> Profile:
        with quick.operation(leaf.__name__) as operation:
            for _ in range(20):
                await leaf(0.005)
        return operation.profile()

    async def main() -> list[Profile]:
        return await asyncio.gather(*(task(leaf) for leaf in [leaf_of_a, leaf_of_b] * 3))

    for profile in asyncio.run(main()):
        assert {"leaf_of_a", "leaf_of_b"} & names(profile) == {profile.name}
        assert seconds_below(profile, profile.name, State.SUSPENDED) > 0
        assert profile.only(State.RUNNING).seconds < profile.duration / 2


def test_a_suspended_operation_shows_what_it_waits_for(quick: Sampler) -> None:
    """The stack of a task that waits goes through coroutines, async generators and awaitables to the innermost."""

    async def innermost() -> None:
        await asyncio.sleep(0.15)

    class Awaited:
        def __await__(self) -> Any:
            return innermost().__await__()

    async def items() -> AsyncGenerator[int, None]:
        await Awaited()
        yield 1

    async def outer() -> None:
        async for _ in items():
            pass

    async def main() -> Profile:
        with quick.operation("wait") as operation:
            await outer()
        return operation.profile()

    profile = asyncio.run(main())
    (stack,) = {s.stack for s in profile.only(State.SUSPENDED).samples if s.count > 5}
    inner = [frame.function.rpartition(".")[2] for frame in stack]
    assert inner == ["main", "outer", "items", "innermost", "sleep"]
    assert seconds_below(profile, "innermost", State.SUSPENDED) > 0.1
    assert seconds_below(profile, "innermost", State.RUNNING) < 0.05


@pytest.mark.skipif(not hasattr(time, "pthread_getcpuclockid"), reason="threads have no CPU clocks here")
def test_a_thread_that_waits_is_not_running(quick: Sampler) -> None:
    """Blocked in a system call or a lock, an operation is told from one that computes."""
    with quick.operation("sleep") as operation:
        time.sleep(0.2)
    profile = operation.profile()
    assert seconds_below(profile, "test_a_thread_that_waits_is_not_running", State.BLOCKED) > 0.15
    with quick.operation("spin") as operation:
        spin(0.2)
    profile = operation.profile()
    assert profile.only(State.RUNNING).seconds > profile.only(State.BLOCKED).seconds


def test_threads_have_their_own_operations(quick: Sampler) -> None:
    """Operations of threads and executors are told apart, and hold nothing of the thread that waits for them."""

    def part_0() -> None:
        spin(0.1)

    def part_1() -> None:
        spin(0.1)

    def part_2() -> None:
        spin(0.1)

    def work(part: Callable[[], None]) -> Profile:
        with quick.operation(part.__name__) as operation:
            part()
        return operation.profile()

    async def main() -> list[Profile]:
        with quick.operation("loop") as operation, ThreadPoolExecutor(3) as executor:
            loop = asyncio.get_running_loop()
            found = await asyncio.gather(*(loop.run_in_executor(executor, work, part) for part in parts))
        return [operation.profile(), *found]

    parts = [part_0, part_1, part_2]
    waiting, *found = asyncio.run(main())
    for profile in found:
        assert {part.__name__ for part in parts} & names(profile) == {profile.name}
        assert profile.seconds > 0.05
    assert not {part.__name__ for part in parts} & names(waiting)
    assert waiting.only(State.SUSPENDED).seconds > 0.05


def test_operations_nest(quick: Sampler) -> None:
    """An inner operation is part of the outer one; two of one frame are both seen, and end in any order."""

    def inner() -> Profile:
        with quick.operation("inner") as operation:
            spin(0.1)
        return operation.profile()

    first = quick.operation("first").__enter__()
    second = quick.operation("second").__enter__()
    profile = inner()
    first.__exit__(None, None, None)
    first_part(0.1)
    second.__exit__(None, None, None)
    assert seconds_below(first.profile(), "inner") > 0.05
    assert seconds_below(profile, "inner") > 0.05
    assert "first_part" not in names(first.profile())
    assert seconds_below(second.profile(), "first_part") > 0.05
    assert quick.stats().operations == 0


def test_a_generator_is_followed_from_thread_to_thread(quick: Sampler) -> None:
    """A generator that other threads go on with is still found, and waits in no thread meanwhile."""

    def items() -> Iterator[Any]:
        with quick.operation("items") as operation:
            first_part(0.08)
            yield None
            second_part(0.08)
        yield operation.profile()

    generator = items()
    next(generator)
    time.sleep(0.08)
    with ThreadPoolExecutor(1) as executor:
        profile = executor.submit(next, generator).result()
    assert seconds_below(profile, "first_part") > 0.04
    assert seconds_below(profile, "second_part") > 0.04
    assert 0.04 < profile.only(State.SUSPENDED).seconds < profile.duration - 0.1


def test_many_suspended_operations_lose_no_time(quick: Sampler) -> None:
    """Where more wait than are looked at in one tick, each still has all its waiting time, and no running time."""

    async def wait() -> Profile:
        with quick.operation("wait") as operation:
            await asyncio.sleep(0.2)
        return operation.profile()

    async def main() -> list[Profile]:
        return await asyncio.gather(*(wait() for _ in range(150)))

    for profile in asyncio.run(main()):
        assert profile.only(State.SUSPENDED).seconds == pytest.approx(profile.duration, abs=0.08)
        assert profile.only(State.RUNNING).seconds < 0.1


def test_stacks_and_depth_are_bounded() -> None:
    """A deep stack keeps its operation and its innermost frames; too many stacks are summed up; no time is lost."""

    def dive(depth: int) -> None:
        if depth:
            dive(depth - 1)
        else:
            spin(0.1)

    with Sampler(rate=1000, max_depth=10, max_stacks=2) as sampler:
        with sampler.operation("deep") as operation:
            dive(200)
            first_part(0.05)
            second_part(0.05)
            eval("spin(0.05)")
        profile = operation.profile()
        assert max(len(sample.stack) for sample in profile.samples) <= 10
        deepest = max(profile.samples, key=lambda sample: sample.seconds).stack
        if len(deepest) == 10:
            assert [frame.function for frame in deepest[:2]] == ["test_stacks_and_depth_are_bounded", "…"]
            assert deepest[-1].function == "spin"
        assert len(profile.samples) <= 2 + 2  # the rest, for each state that was met
        assert any(sample.stack[-1].function == "…" for sample in profile.samples)
        assert profile.seconds == pytest.approx(profile.duration, abs=0.05)


def test_operations_are_bounded() -> None:
    """More than `max_operations` at a time are let through unsampled, and counted."""
    with Sampler(rate=500, max_operations=1) as sampler:

        def inner() -> Profile:
            with sampler.operation("inner") as operation:
                spin(0.03)
            return operation.profile()

        with sampler.operation("outer") as operation:
            assert inner().samples == ()
        assert "inner" in names(operation.profile())
        assert sampler.stats().refused == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": 0}, ValueError, "rate must be from 1 to 1000, not 0"),
        ({"rate": float("nan")}, ValueError, "rate must be from 1 to 1000, not nan"),
        ({"rate": "100"}, TypeError, "rate must be a number, not '100'"),
        ({"max_depth": 2}, ValueError, "max_depth must be 3 or more, not 2"),
        ({"max_stacks": True}, TypeError, "max_stacks must be an integer, not True"),
        ({"max_operations": -1}, ValueError, "max_operations must be 1 or more, not -1"),
        ({"random": 0.5}, TypeError, r"random must be callable, not 0\.5"),
        ({"random": lambda: "0.5"}, TypeError, r"random\(\) must be a number, not '0\.5'"),
        ({"random": lambda: float("nan")}, ValueError, r"random\(\) must be from 0 to 1, not nan"),
        ({"clock": lambda: "now"}, TypeError, r"clock\(\) must be a number, not 'now'"),
        ({"name": 5}, TypeError, "name must be a text, not 5"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """An error names the argument and its value."""
    with pytest.raises(error, match=message):
        Sampler(**options)


def test_bad_uses_are_named(quick: Sampler) -> None:
    """A name that is none and an operation entered twice are errors at once."""
    with pytest.raises(TypeError, match="name must be a text, not 3"):
        quick.operation(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="frame must be a frame, not 'no'"):
        quick.operation("x", frame="no")  # type: ignore[arg-type]
    operation = quick.operation("work")
    assert operation.profile().duration == 0
    with operation, pytest.raises(RuntimeError, match="operation 'work' was entered before"), operation:
        pass
    assert repr(operation).startswith("<Operation 'work': ended after 0.0")
    assert quick.get_stats()["operations"] == 0
