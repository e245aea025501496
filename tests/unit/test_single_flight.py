"""Single-flight: one of equal calls is computed, and what becomes of those who wait for it."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from storescope.core.caching.single_flight import AsyncSingleFlight, SingleFlight

WAIT = 10.0
caller: ContextVar[str] = ContextVar("caller", default="nobody")


class Gate:
    """A computation that says when it has begun, and goes on when it is let."""

    def __init__(self, outcome: Any = "value") -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.outcome = outcome
        self.times = 0

    def __call__(self) -> Any:
        self.times += 1
        self.begun.set()
        assert self.opened.wait(WAIT)
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


# Threads


def test_one_computes_and_the_others_get_its_value(threads: ThreadPoolExecutor) -> None:
    """Of eight at once one computes; each is told whether the value is another's."""
    flights, gate = SingleFlight(), Gate()
    results = [threads.submit(flights.run, "key", gate) for _ in range(8)]
    until(lambda: flights.waiting == 7)
    gate.opened.set()

    assert sorted(result.result(WAIT) for result in results) == [("value", False)] + [("value", True)] * 7
    assert gate.times == 1
    assert len(flights) == 0


def test_other_keys_do_not_wait(threads: ThreadPoolExecutor) -> None:
    """A key is computed while another one is; afterwards it is computed anew."""
    flights, gate = SingleFlight(name="tools"), Gate()
    slow = threads.submit(flights.run, "slow", gate)
    assert gate.begun.wait(WAIT)
    assert repr(flights) == "<SingleFlight 'tools': 1 in flight, 0 waiting>"

    assert [flights.run("fast", lambda: 1), flights.run("fast", lambda: 2)] == [(1, False), (2, False)]
    gate.opened.set()
    assert slow.result(WAIT) == ("value", False)


def test_a_failure_is_that_of_all_who_joined(threads: ThreadPoolExecutor) -> None:
    """Those who wait get the exception; whoever comes later computes anew."""
    flights, gate = SingleFlight(), Gate(LookupError("no such note"))
    results = [threads.submit(flights.run, "key", gate) for _ in range(4)]
    until(lambda: flights.waiting == 3)
    gate.opened.set()

    for result in results:
        with pytest.raises(LookupError, match="no such note"):
            result.result(WAIT)
    assert gate.times == 1
    assert flights.run("key", lambda: "anew") == ("anew", False)


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(3), asyncio.CancelledError()], ids=repr)
def test_the_end_of_one_caller_is_its_own(threads: ThreadPoolExecutor, end: BaseException) -> None:
    """A computation that is interrupted is made again by one of those who wait, and once."""
    flights, killed, second = SingleFlight(), Gate(end), Gate("second")
    ended: Future[BaseException] = Future()

    def lead() -> None:
        try:
            flights.run("key", killed)
        except BaseException as error:
            ended.set_result(error)

    threads.submit(lead)
    assert killed.begun.wait(WAIT)
    results = [threads.submit(flights.run, "key", second) for _ in range(4)]
    until(lambda: flights.waiting == 4)
    killed.opened.set()
    until(lambda: flights.waiting == 3)
    second.opened.set()

    assert ended.result(WAIT) is end
    assert sorted(result.result(WAIT) for result in results) == [("second", False)] + [("second", True)] * 3
    assert (killed.times, second.times) == (1, 1)


def test_a_computation_that_asks_for_itself_computes() -> None:
    """Recursion with the same key ends as it would without."""
    flights = SingleFlight()
    depth = 0

    def compute() -> int:
        nonlocal depth
        depth += 1
        return depth if depth == 3 else flights.run("key", compute)[0]

    assert flights.run("key", compute) == (3, False)


def test_computations_that_wait_for_each_other_compute(threads: ThreadPoolExecutor) -> None:
    """Two threads, each computing what the other asks for, do not wait for ever; nor does a context that is carried."""
    flights, others = SingleFlight(), SingleFlight()
    both = threading.Barrier(2)

    def a() -> str:
        both.wait(WAIT)
        return "a" + others.run("b", lambda: "b directly")[0]

    def b() -> str:
        both.wait(WAIT)
        return "b" + flights.run("a", lambda: "a directly")[0]

    results = [threads.submit(flights.run, "a", a), threads.submit(others.run, "b", b)]
    values = {result.result(WAIT)[0] for result in results}
    assert values in ({"ab directly", "bab directly"}, {"aba directly", "ba directly"})

    def over_a_worker() -> Any:
        return threads.submit(copy_context().run, flights.run, "key", lambda: "directly").result(WAIT)

    assert flights.run("key", over_a_worker) == (("directly", False), False)


def test_a_value_is_stored_before_anybody_has_it(threads: ThreadPoolExecutor) -> None:
    """`store` gets the value once; where the computation fails it gets nothing."""
    flights, kept = SingleFlight(), list[str]()

    assert flights.run("key", lambda: "value", kept.append) == ("value", False)
    with pytest.raises(ZeroDivisionError):
        flights.run("key", lambda: str(1 // 0), kept.append)
    assert kept == ["value"]


@pytest.mark.parametrize("forget", [lambda flights: flights.forget("key"), SingleFlight.forget_all])
def test_what_is_forgotten_is_not_stored(threads: ThreadPoolExecutor, forget: Callable[..., None]) -> None:
    """Who asked before the key was forgotten gets the value, who asks afterwards another one, and that is stored."""
    flights, kept, old = SingleFlight(), list[str](), Gate("old")
    before = [threads.submit(flights.run, "key", old, kept.append) for _ in range(2)]
    until(lambda: flights.waiting == 1)
    forget(flights)

    assert flights.run("key", lambda: "new", kept.append) == ("new", False)
    old.opened.set()
    assert {result.result(WAIT)[0] for result in before} == {"old"}
    assert kept == ["new"]


def test_whoever_forgets_waits_for_the_store(threads: ThreadPoolExecutor) -> None:
    """After `forget` nothing old is stored any more, also where the store had begun."""
    flights, order = SingleFlight(), list[str]()
    storing = Gate()

    def store(value: str) -> None:
        storing()
        order.append("stored")

    running = threads.submit(flights.run, "key", lambda: "value", store)
    assert storing.begun.wait(WAIT)
    forgetting = threads.submit(lambda: (flights.forget("key"), order.append("forgotten")))
    assert not wait([forgetting], 0.05).done
    storing.opened.set()
    forgetting.result(WAIT), running.result(WAIT)
    assert order == ["stored", "forgotten"]


def test_a_flight_that_nobody_waits_for() -> None:
    """`start` computes beside its caller, once at a time, in a copy of its context; failures are reported."""
    flights, gate, failures = SingleFlight(name="notes"), Gate(), list[BaseException]()
    seen: Future[tuple[str, str]] = Future()
    stored = threading.Event()

    def compute() -> Any:
        seen.set_result((caller.get(), threading.current_thread().name))
        return gate()

    token = caller.set("me")
    assert flights.start("key", compute, lambda value: stored.set())
    caller.reset(token)
    assert gate.begun.wait(WAIT)
    assert not flights.start("key", compute)
    gate.opened.set()
    assert stored.wait(WAIT)
    assert seen.result(WAIT) == ("me", "notes")

    until(lambda: not len(flights))
    assert flights.start("key", lambda: 1 // 0, failed=failures.append)
    until(lambda: failures and not len(flights))
    assert isinstance(failures[0], ZeroDivisionError)


def test_nothing_is_left_of_an_error() -> None:
    """No reference cycle keeps what a failed computation had, through its traceback."""

    class Failure(Exception):
        pass

    def fail() -> None:
        raise Failure

    flights, failures = SingleFlight(), weakref.WeakSet[Failure]()
    gc.disable()
    try:
        for _ in range(20):
            try:
                flights.run("key", fail)
            except Failure as failure:
                failures.add(failure)
        assert not failures
    finally:
        gc.enable()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_begins_without_flights(threads: ThreadPoolExecutor) -> None:
    """A child does not wait for a computation whose thread it does not have."""
    flights, gate = SingleFlight(), Gate()
    running = threads.submit(flights.run, "key", gate)
    assert gate.begun.wait(WAIT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads
        child = os.fork()
    if child == 0:
        try:
            os._exit(0 if flights.run("key", lambda: "child's") == ("child's", False) else 1)
        except BaseException:
            traceback.print_exc()
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.opened.set()
    assert running.result(WAIT) == ("value", False)


# Tasks


class AsyncGate:
    """The same for a coroutine; it says as well whether it was cancelled."""

    def __init__(self, outcome: Any = "value") -> None:
        self.begun = asyncio.Event()
        self.opened = asyncio.Event()
        self.outcome = outcome
        self.times = 0
        self.ended = False

    async def __call__(self) -> Any:
        self.times += 1
        self.begun.set()
        try:
            await asyncio.wait_for(self.opened.wait(), WAIT)
        finally:
            await asyncio.sleep(0)
            self.ended = True
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), WAIT)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())


async def join(
    flights: AsyncSingleFlight, number: int, compute: Callable[[], Awaitable[Any]], *store: Any
) -> list[asyncio.Task[tuple[Any, bool]]]:
    tasks = [asyncio.create_task(flights.run("key", compute, *store)) for _ in range(number)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


def test_one_task_computes_for_all() -> None:
    """Of eight tasks at once one computation is made; the next one is another."""

    async def test() -> None:
        flights, gate = AsyncSingleFlight(), AsyncGate()
        tasks = await join(flights, 8, gate)
        gate.opened.set()
        assert await asyncio.gather(*tasks) == [("value", False)] + [("value", True)] * 7
        assert (gate.times, len(flights)) == (1, 0)
        assert await flights.run("key", gate) == ("value", False)

    run(test)


def test_a_failure_is_that_of_all_tasks_who_joined() -> None:
    """Those who wait get the exception, nobody complains of it later, and whoever comes later computes anew."""

    async def test() -> None:
        flights, gate = AsyncSingleFlight(), AsyncGate(LookupError("no such note"))
        tasks = await join(flights, 3, gate)
        gate.opened.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results] == ["no such note"] * 3
        assert gate.times == 1
        gate.outcome = "anew"
        assert await flights.run("key", gate) == ("anew", False)

    run(test)


@pytest.mark.parametrize("cancelled", [[0], [1], [0, 1], [1, 2], [0, 2]])
def test_who_is_cancelled_leaves_the_others_alone(cancelled: list[int]) -> None:
    """Whichever callers are cancelled, the first among them or not, the last one gets the value."""

    async def test() -> None:
        flights, gate = AsyncSingleFlight(), AsyncGate()
        tasks = await join(flights, 3, gate)
        for index in cancelled:
            tasks[index].cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for index, result in enumerate(results):
            assert isinstance(result, asyncio.CancelledError) if index in cancelled else result[0] == "value"
        assert gate.times == 1

    run(test)


def test_the_last_one_out_cancels() -> None:
    """With all callers cancelled the computation is, and has ended when the last one goes on; the next begins anew."""

    async def test() -> None:
        flights, gate = AsyncSingleFlight(), AsyncGate()
        tasks = await join(flights, 3, gate)
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        anew = asyncio.create_task(flights.run("key", AsyncGate("anew")))
        await asyncio.wait(tasks)
        assert gate.ended
        assert all(task.cancelled() for task in tasks)
        anew.cancel()
        await asyncio.wait([anew])
        assert len(flights) == 0

    run(test)


def test_a_timeout_of_a_caller_is_its_own() -> None:
    """A caller who will not wait so long gives up alone."""

    async def test() -> None:
        flights, gate = AsyncSingleFlight(), AsyncGate()
        (patient,) = await join(flights, 1, gate)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(flights.run("key", gate), 0.01)
        gate.opened.set()
        assert await patient == ("value", False)

    run(test)


def test_a_computation_cancelled_by_others_is_made_again() -> None:
    """A CancelledError that comes from within is the first caller's; one of the others computes."""

    async def test() -> None:
        flights, gate, second = AsyncSingleFlight(), AsyncGate(asyncio.CancelledError()), AsyncGate("second")
        (first,) = await join(flights, 1, gate)
        others = await join(flights, 2, second)
        gate.opened.set()
        second.opened.set()
        assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)
        assert sorted(await asyncio.gather(*others)) == [("second", False), ("second", True)]

    run(test)


def test_tasks_that_would_wait_for_themselves_compute() -> None:
    """Recursion with the same key, in a task of the computation or not, and two that ask for each other, end."""

    async def test() -> None:
        flights = AsyncSingleFlight()

        async def directly() -> str:
            return "directly"

        async def nested() -> Any:
            return await asyncio.gather(
                flights.run("key", directly), asyncio.create_task(flights.run("key", directly))
            )

        assert await flights.run("key", nested) == ([("directly", False)] * 2, False)

        async def ask(other: str) -> Any:
            await asyncio.sleep(0)
            return await flights.run(other, directly)

        values = await asyncio.gather(flights.run("a", lambda: ask("b")), flights.run("b", lambda: ask("a")))
        assert "directly" in str(values)

    run(test)


def test_event_loops_share_nothing() -> None:
    """Two loops in two threads compute each for itself, at the same time."""
    flights = AsyncSingleFlight()
    both = threading.Barrier(2)

    async def compute() -> int:
        await asyncio.to_thread(both.wait, WAIT)
        return threading.get_ident()

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(lambda: asyncio.run(flights.run("key", compute))) for _ in range(2)]
        values = [result.result(WAIT) for result in results]
    assert values[0] != values[1]
    assert [joined for _, joined in values] == [False, False]


@pytest.mark.parametrize("blocking_store", [False, True])
def test_what_is_forgotten_is_not_stored_by_tasks(blocking_store: bool) -> None:
    """After `forget`, from any thread, the old value goes to who asked for it, and not into the store."""

    async def test() -> None:
        flights, gate = AsyncSingleFlight(blocking_store=blocking_store), AsyncGate("old")
        kept: list[tuple[str, bool]] = []

        def store(value: str) -> None:
            kept.append((value, threading.current_thread() is threading.main_thread()))

        before = await join(flights, 2, gate, store)
        await asyncio.to_thread(flights.forget, "key")
        new = AsyncGate("new")
        new.opened.set()
        assert await flights.run("key", new, store) == ("new", False)
        gate.opened.set()
        assert [value for value, _ in await asyncio.gather(*before)] == ["old", "old"]
        assert kept == [("new", not blocking_store)]

    run(test)


def test_a_task_that_nobody_waits_for() -> None:
    """`start` computes once at a time, also if who joins is cancelled, with its caller's context; failures are told."""

    async def test() -> None:
        flights, gate = AsyncSingleFlight(), AsyncGate()
        assert flights.start("key", gate)
        assert not flights.start("key", gate)
        (joining,) = await join(flights, 1, gate)
        joining.cancel()
        await asyncio.wait([joining])
        gc.collect()
        gate.opened.set()
        assert await flights.run("key", gate) == ("value", True)
        assert gate.times == 1

        caller.set("me")

        async def fail() -> None:
            raise LookupError(caller.get())

        failed = asyncio.get_running_loop().create_future()
        assert flights.start("key", fail, failed=failed.set_result)
        assert str(await failed) == "me"

    run(test)
