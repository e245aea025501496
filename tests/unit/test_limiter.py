"""Concurrency limits: how many go at once, in which order, and how an adaptive limit finds its number."""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from typing import Any

import pytest

from storescope.core import AsyncOptimizedStore, OptimizedStore
from storescope.core.batching.aimd import MAX_KEYS
from storescope.core.batching.limiter import AsyncLimiter, Limiter
from storescope.core.errors import Cancelled, DeadlineExceeded, ToolFailed, WrongEventLoop


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def until_waiting(limiter: Limiter, number: int) -> None:
    for _ in range(3000):
        if limiter.stats().waiting == number:
            return
        time.sleep(0.01)
    raise AssertionError(f"{limiter!r} never had {number} waiting")


@contextmanager
def held(limiter: Limiter, number: int) -> Iterator[None]:
    """Hold so many slots, each by a caller of its own."""
    slots = enter(limiter, number)
    yield
    for slot in slots:
        slot.__exit__(None, None, None)


def enter(limiter: Limiter, number: int) -> list[Any]:
    slots = [limiter.slot() for _ in range(number)]
    for slot in slots:
        Context().run(slot.__enter__)
    return slots


def test_no_more_than_the_limit_are_under_way() -> None:
    """Twenty threads share three slots; all get one in the end."""
    limiter = Limiter(3, name="lab")
    inside: list[int] = []
    most = 0

    def work() -> None:
        nonlocal most
        for _ in range(20):
            with limiter.slot():
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stats = limiter.stats()
    assert most <= 3
    assert (stats.acquired, stats.in_flight, stats.waiting) == (400, 0, 0)
    assert repr(limiter) == "<Limiter 'lab' 0 of 3, 0 waiting>"
    assert limiter.get_stats()["acquired"] == 400


def test_who_waits_longest_goes_first() -> None:
    """And a newcomer does not overtake."""
    limiter = Limiter(1)
    order: list[int] = []

    def work(index: int) -> None:
        with limiter.slot():
            order.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(5)]
    with limiter.slot():
        for index, thread in enumerate(threads):
            thread.start()
            until_waiting(limiter, index + 1)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_waiting_ends_at_the_timeout() -> None:
    """With an error that says how it stands; zero does not wait; the place in the queue is given up."""
    limiter = Limiter(1, name="lab")
    with held(limiter, 1):
        with (
            pytest.raises(
                DeadlineExceeded, match=r"no slot of 'lab' after 0\.01 s \(1 in flight, 0 waiting\)"
            ),
            limiter.slot(0.01),
        ):
            pass
        with pytest.raises(DeadlineExceeded, match="after 0 s"), limiter.slot(0):
            pass
    with limiter.slot(0):
        assert limiter.stats().timeouts == 2


def test_a_failing_block_gives_its_slot_back() -> None:
    """Whatever it raises, which is passed on."""
    limiter = Limiter(1)
    for error in (ValueError("bad"), KeyboardInterrupt()):
        with pytest.raises(type(error)), limiter.slot():
            raise error
    assert limiter.stats().in_flight == 0


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no timers here")
def test_an_interrupted_waiter_leaks_nothing() -> None:
    """Ctrl-C while it waits: it leaves the queue, and the slot is there for others."""
    limiter = Limiter(1)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with held(limiter, 1):
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(KeyboardInterrupt), limiter.slot():
                pass
            assert limiter.stats().waiting == 0
    finally:
        signal.signal(signal.SIGALRM, before)
    with limiter.slot(0):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_with_all_slots_free() -> None:
    """The threads that held them are not in the child, and what the parent took is not given back there."""
    limiter = Limiter(1)
    with limiter.slot():
        child = os.fork()
        if child == 0:
            try:
                with limiter.slot(0):
                    good = limiter.stats().in_flight == 1
            except BaseException:
                os._exit(1)
    if child == 0:
        os._exit(0 if good and limiter.stats().in_flight == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert limiter.stats().in_flight == 0


def test_an_adaptive_limit_rises_while_all_slots_are_in_use() -> None:
    """Step by step; not where less is asked for than there is, and not above its bound."""
    limiter = Limiter("adaptive", initial=2, max_limit=4, clock=Clock())
    for _ in range(50):
        with limiter.slot():
            pass
    assert limiter.limit == 2
    for _ in range(3):
        with held(limiter, 2):  # the first to leave leaves a full house
            pass
    assert limiter.limit == 3
    for _ in range(20):
        with held(limiter, limiter.limit):
            pass
    assert (limiter.limit, limiter.stats().increases) == (4, 2)


def test_an_adaptive_limit_falls_by_a_factor_on_overload() -> None:
    """Once for all that began before it fell, and not below its bound."""
    limiter = Limiter("adaptive", initial=20, min_limit=8, backoff_ratio=0.5)
    for slot in enter(limiter, 10):
        slot.__exit__(TimeoutError, TimeoutError("too much"), None)
    assert (limiter.limit, limiter.stats().decreases) == (10, 1)
    for _ in range(5):
        with pytest.raises(ConnectionError), limiter.slot():
            raise ConnectionError("refused")
    assert (limiter.limit, limiter.stats().decreases) == (8, 2)


@pytest.mark.parametrize(
    "error", [ToolFailed("no file"), Cancelled("by us"), ValueError("bad"), KeyError("x")]
)
def test_errors_that_say_nothing_of_load_leave_the_limit(error: Exception) -> None:
    """A tool's own error, bad arguments, and what we cancel; what else counts can be said."""
    limiter = Limiter("adaptive", initial=20)
    with pytest.raises(type(error)), limiter.slot():
        raise error
    assert limiter.limit == 20
    strict = Limiter("adaptive", initial=20, overload=lambda _: True)
    with pytest.raises(type(error)), strict.slot():
        raise error
    assert strict.limit == 18


def call(limiter: Limiter, clock: Clock, seconds: float, key: str = "") -> None:
    with limiter.slot(key=key):
        clock.now += seconds


def test_an_adaptive_limit_falls_when_calls_get_slow() -> None:
    """When the median of ten is more than `tolerance` times the best median; single slow calls do not matter."""
    clock = Clock()
    limiter = Limiter("adaptive", initial=20, tolerance=2.0, clock=clock)
    for _ in range(10):
        call(limiter, clock, 0.010)
    for seconds in [5.0, 5.0, 5.0, *[0.019] * 7]:
        call(limiter, clock, seconds)
    assert limiter.limit == 20
    for _ in range(10):
        call(limiter, clock, 0.021)
    assert limiter.limit == 18


def test_what_the_scheduler_causes_is_no_sign_of_load() -> None:
    """Calls of microseconds that become calls of a millisecond or two have waited for a thread, not for a server."""
    clock = Clock()
    limiter = Limiter("adaptive", initial=20, clock=clock)
    for seconds in (0.0001, 0.0019):
        for _ in range(20):
            call(limiter, clock, seconds)
    assert limiter.limit == 20


def test_a_slow_tool_is_no_sign_of_load() -> None:
    """Latencies are compared within a key; beyond a bound of keys they are not kept."""
    clock = Clock()
    limiter = Limiter("adaptive", initial=20, clock=clock)
    for key, seconds in (("read", 0.001), ("search", 3.0)):
        for _ in range(30):
            call(limiter, clock, seconds, key)
    for index in range(3 * MAX_KEYS):
        call(limiter, clock, 1.0, str(index))
    for seconds in (0.001, 9.0):
        for _ in range(30):
            call(limiter, clock, seconds, "one too many")
    assert limiter.limit == 20


def test_the_best_latency_is_found_anew_in_time() -> None:
    """A server that has become slower for good does not press the limit down for ever."""
    clock = Clock()
    limiter = Limiter("adaptive", initial=20, min_limit=5, clock=clock)
    for seconds, calls in ((0.004, 10), (0.010, 2500)):
        for _ in range(calls):
            call(limiter, clock, seconds)
    fallen = limiter.stats().decreases
    assert fallen > 5
    for _ in range(500):
        call(limiter, clock, 0.010)
    assert limiter.stats().decreases == fallen


class VirtualTime(asyncio.SelectorEventLoop):
    """An event loop on which time passes only while everybody waits, and then at once."""

    def __init__(self) -> None:
        self._now = 0.0
        selector = selectors.SelectSelector()
        ready = selector.select

        def select(timeout: float | None = None) -> Any:
            self._now += timeout or 0.0
            return ready(0)

        selector.select = select  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self._now


@pytest.mark.parametrize("backlog", [0, 8, 1000])
def test_an_adaptive_limit_finds_what_a_server_takes(backlog: int) -> None:
    """A server of 8 slots, 64 callers: its full throughput, and few refusals where 64 at once get thousands."""
    loop = VirtualTime()
    service = 8 / 1200

    async def load(limiter: AsyncLimiter, seconds: float = 2.0) -> tuple[float, float]:
        slots, rng = asyncio.Semaphore(8), random.Random(1)
        inside = done = refused = 0
        end = loop.time() + seconds

        async def serve() -> None:
            nonlocal inside
            if inside >= 8 + backlog:
                await asyncio.sleep(service / 10)
                raise ConnectionError("too many requests")
            inside += 1
            try:
                async with slots:
                    await asyncio.sleep(rng.uniform(0.7, 1.3) * service)
            finally:
                inside -= 1

        async def caller() -> None:
            nonlocal done, refused
            while loop.time() < end:
                try:
                    async with limiter.slot():
                        await serve()
                    done += 1
                except ConnectionError:
                    refused += 1

        await asyncio.gather(*[caller() for _ in range(64)])
        return done / seconds, refused / seconds

    ideal, _ = loop.run_until_complete(load(AsyncLimiter(8)))
    limiter = AsyncLimiter("adaptive", clock=loop.time)
    done, refused = loop.run_until_complete(load(limiter))
    _, unlimited = loop.run_until_complete(load(AsyncLimiter(64), 0.1))
    loop.close()
    assert done > 0.97 * ideal
    assert refused < 0.02 * done
    assert refused <= 0.01 * unlimited
    assert 8 <= limiter.limit < 40


def test_tasks_go_first_come_first_served() -> None:
    """At most the limit at once; a timeout ends the waiting."""
    order: list[int] = []

    async def main() -> None:
        limiter = AsyncLimiter(1, name="lab")

        async def work(index: int) -> None:
            async with limiter.slot():
                order.append(index)
                await asyncio.sleep(0)

        async def hurry(timeout: float) -> None:
            async with limiter.slot(timeout):
                pass

        tasks = [asyncio.ensure_future(work(index)) for index in range(5)]
        late, later = asyncio.ensure_future(hurry(0.01)), asyncio.ensure_future(hurry(0))
        async with limiter.slot():
            await asyncio.wait([late, later])
            with pytest.raises(DeadlineExceeded, match=r"after 0\.01 s \(1 in flight, 5 waiting\)"):
                await late
            with pytest.raises(DeadlineExceeded, match="after 0 s"):
                await later
        await asyncio.gather(*tasks)
        assert limiter.stats().in_flight == 0

    asyncio.run(main())
    assert order == [0, 1, 2, 3, 4]


def test_a_cancelled_task_leaks_no_slot() -> None:
    """Neither while it waits, nor in the very moment in which a slot is handed to it, nor inside."""

    async def main() -> None:
        limiter = AsyncLimiter(1)

        async def work() -> None:
            async with limiter.slot():
                await asyncio.sleep(60)

        first = asyncio.ensure_future(work())
        waiting, handed, last = (asyncio.ensure_future(work()) for _ in range(3))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.sleep(0)
        first.cancel()
        for _ in range(50):
            if limiter.stats().waiting == 1:  # `handed` has the slot, and does not know yet
                break
            await asyncio.sleep(0)
        handed.cancel()
        await asyncio.gather(first, waiting, handed, return_exceptions=True)
        await asyncio.sleep(0)
        assert (limiter.stats().in_flight, limiter.stats().waiting) == (1, 0)
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        assert limiter.stats().in_flight == 0

    asyncio.run(main())


def test_a_limiter_serves_one_event_loop_after_another() -> None:
    """It is bound to none that nothing is held on."""
    limiter = AsyncLimiter(1)

    async def contend() -> None:
        async def work() -> None:
            async with limiter.slot():
                await asyncio.sleep(0)

        await asyncio.gather(work(), work(), work())

    asyncio.run(contend())
    asyncio.run(contend())
    assert limiter.stats().acquired == 6


def test_a_limiter_in_use_on_one_event_loop_is_refused_to_another() -> None:
    """Nobody waits for a loop that cannot wake it; afterwards it can be used there."""
    limiter = AsyncLimiter(1, name="lab")

    async def use() -> int:
        async with limiter.slot(30):
            return limiter.stats().in_flight

    async def main() -> None:
        async with limiter.slot():
            with pytest.raises(
                WrongEventLoop, match=r"'lab' 1 of 1, 0 waiting> is in use on .*make one here"
            ):
                await asyncio.to_thread(lambda: Context().run(asyncio.run, use()))
        assert await asyncio.to_thread(lambda: Context().run(asyncio.run, use())) == 1

    asyncio.run(main())
    assert limiter.stats().in_flight == 0


def test_a_slot_on_a_closed_event_loop_is_free() -> None:
    """Its task will never go on, and gives nothing back when it is collected."""
    limiter = AsyncLimiter(1)

    async def hold() -> None:
        async with limiter.slot():
            await asyncio.Event().wait()

    loop = asyncio.new_event_loop()
    coroutine = hold()
    loop.call_soon(coroutine.send, None)
    loop.call_soon(loop.stop)
    loop.run_forever()
    loop.close()

    async def use() -> None:
        async with limiter.slot(0):
            coroutine.close()
            assert limiter.stats().in_flight == 1

    asyncio.run(use())
    assert limiter.stats().in_flight == 0


def test_a_call_within_a_call_needs_no_slot_of_its_own() -> None:
    """In the same thread and in threads with a copy of its context, as long as the outer one holds its slot."""
    limiter = Limiter(1)

    def ask() -> int:
        with limiter.slot(0):
            return limiter.stats().in_flight

    with limiter.slot():
        inside = copy_context()
        assert ask() == 1
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(inside.run(ask)))
        thread.start()
        thread.join()
        assert seen == [1]
        with pytest.raises(DeadlineExceeded):
            Context().run(ask)
    with held(limiter, 1), pytest.raises(DeadlineExceeded):
        inside.run(ask)  # the outer call has ended
    assert limiter.stats().in_flight == 0


def test_a_task_within_a_call_needs_no_slot_of_its_own() -> None:
    """Nor does a task that it starts, as long as the outer one holds its slot."""

    async def main() -> None:
        limiter = AsyncLimiter(1)

        async def ask() -> int:
            async with limiter.slot(0):
                return limiter.stats().in_flight

        async def ask_later(go: asyncio.Event) -> int:
            await go.wait()
            return await ask()

        go, other = asyncio.Event(), asyncio.ensure_future(ask_later(asyncio.Event()))
        async with limiter.slot():
            assert await ask() == await asyncio.ensure_future(ask()) == 1
            later = asyncio.ensure_future(ask_later(go))
            await asyncio.sleep(0)
        slot = limiter.slot()
        await asyncio.ensure_future(slot.__aenter__())  # by another task
        go.set()
        with pytest.raises(DeadlineExceeded):
            await later
        await slot.__aexit__(None, None, None)
        assert limiter.stats().in_flight == 0
        other.cancel()

    asyncio.run(main())


@pytest.mark.parametrize("limit", [1, "adaptive"])
def test_a_tool_may_call_another_one_through_the_same_store(limit: Any) -> None:
    """With one slot, a deadline, and a batch inside: nothing waits for itself."""

    class Tools:
        store: Any

        def call_tool(self, tool_name: str, arguments: Any) -> Any:
            if tool_name == "leaf":
                return "leaf"
            return [
                self.store.call_tool("leaf", {}),
                *[result.unwrap() for result in self.store.batch_call([{"tool_name": "leaf"}] * 2)],
            ]

        batch_call = list_tools = call_tool

    class AsyncTools(Tools):
        async def call_tool(self, tool_name: str, arguments: Any) -> Any:
            if tool_name == "leaf":
                return "leaf"
            results = await self.store.batch_call([{"tool_name": "leaf"}] * 2)
            return [await self.store.call_tool("leaf", {}), *[result.unwrap() for result in results]]

    tools, async_tools = Tools(), AsyncTools()
    tools.store = OptimizedStore(tools, max_concurrent=limit, timeout=20)
    async_tools.store = AsyncOptimizedStore(async_tools, max_concurrent=limit, timeout=20)
    assert tools.store.call_tool("root", {}) == ["leaf"] * 3
    assert asyncio.run(async_tools.store.call_tool("root", {})) == ["leaf"] * 3


def test_a_slot_is_entered_once() -> None:
    """A second time is an error, and harms nobody."""
    limiter = Limiter(2)
    slot = limiter.slot()
    with slot, pytest.raises(RuntimeError, match="entered twice"), slot:
        pass
    with pytest.raises(RuntimeError, match="entered twice"), slot:
        pass
    assert limiter.stats().in_flight == 0


@pytest.mark.parametrize("kind", [Limiter, AsyncLimiter])
@pytest.mark.parametrize(
    ("limit", "options", "message"),
    [
        (0, {}, "limit must be 1 or more, not 0"),
        (-3, {}, "limit must be 1 or more, not -3"),
        (True, {}, "limit must be an integer or 'adaptive', not True"),
        (2.5, {}, "limit must be an integer or 'adaptive', not 2.5"),
        ("auto", {}, "limit must be an integer or 'adaptive', not 'auto'"),
        ("adaptive", {"initial": 0}, "initial must be 1 or more, not 0"),
        ("adaptive", {"initial": 65}, "initial must be at most max_limit, 64, not 65"),
        ("adaptive", {"min_limit": 0}, "min_limit must be 1 or more, not 0"),
        ("adaptive", {"max_limit": 3, "min_limit": 4}, "max_limit must be 4 or more, not 3"),
        ("adaptive", {"tolerance": 1}, "tolerance must be above 1, not 1"),
        ("adaptive", {"tolerance": float("nan")}, "tolerance must be 0 or more, not nan"),
        ("adaptive", {"backoff_ratio": 1}, "backoff_ratio must be between 0 and 1, not 1"),
        ("adaptive", {"overload": "all"}, "overload must be callable, not 'all'"),
        (1, {"clock": 5}, "clock must be callable, not 5"),
        (1, {"name": 5}, "name must be a text, not 5"),
    ],
)
def test_bad_options_are_refused(kind: Any, limit: Any, options: dict[str, Any], message: str) -> None:
    """The error names the argument and its value."""
    with pytest.raises((TypeError, ValueError), match=f"^{message}$"):
        kind(limit, **options)


@pytest.mark.parametrize("timeout", [-1, float("nan"), True, "1"])
def test_bad_timeouts_are_refused(timeout: Any) -> None:
    """When the slot is asked for, not when it is entered."""
    with pytest.raises((TypeError, ValueError), match=f"timeout must be .*{timeout!r}"):
        Limiter(1).slot(timeout)
