"""Pools of threads, processes and coroutines: in order, bounded, closable, nothing lost."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from typing import Any

import pytest

from storescope.core import CPUOptimizer
from storescope.core.errors import (
    Closed,
    PoolClosed,
    QueueFull,
    RemoteError,
    TaskErrors,
    UsedAfterFork,
    WouldDeadlock,
)
from storescope.core.memory.containers import cpu_count
from storescope.core.workers.concurrency import AsyncConcurrency
from storescope.core.workers.executors import thread_executor

user = contextvars.ContextVar("user", default="nobody")


def test_pools_are_sized_by_the_cpus_that_are_ours() -> None:
    """3 threads, 1 process and 20 coroutines for each CPU, unless told otherwise."""
    with CPUOptimizer() as optimizer:
        assert optimizer.cpu_count == cpu_count()
        assert optimizer.optimize_thread_pool().workers == 3 * optimizer.cpu_count
        assert optimizer.optimize_process_pool().workers == optimizer.cpu_count
        assert optimizer.optimize_async_concurrency().max_concurrent == 20 * optimizer.cpu_count
        assert optimizer.optimize_thread_pool(5).workers == 5


def test_tasks_return_in_order_and_pools_stay() -> None:
    """Threads and processes give plain values in the order of their tasks, time after time."""
    with CPUOptimizer() as optimizer:
        for _ in range(2):
            assert optimizer.io_intensive_task_optimizer(divmod, [(7, 2), (9, 4)]) == [(3, 1), (2, 1)]
            assert optimizer.cpu_intensive_task_optimizer(math.factorial, [3, 4, 5]) == [6, 24, 120]


def test_arguments_are_taken_as_there_is_room() -> None:
    """An endless iterable is not read beyond what workers and queue hold, until they have room."""
    taken = []
    gate = threading.Event()

    def numbers() -> Any:
        for number in range(20):
            taken.append(number)
            yield (number,)

    with CPUOptimizer(max_queued=2) as optimizer:
        optimizer.optimize_thread_pool(2)
        caller = threading.Thread(
            target=optimizer.io_intensive_task_optimizer, args=(lambda _: gate.wait(10), numbers())
        )
        caller.start()
        deadline = time.monotonic() + 10
        while len(taken) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert len(taken) == 5  # 2 at work, 2 in the queue, 1 that waits to be submitted
        gate.set()
        caller.join(10)
    assert len(taken) == 20


def test_failures_lose_nothing() -> None:
    """One TaskErrors has every result and every error by its index; on request errors stand in their places."""
    with CPUOptimizer() as optimizer:
        with pytest.raises(
            TaskErrors, match=r"1 of 3 tasks failed; the first is task 1: ValueError"
        ) as raised:
            optimizer.cpu_intensive_task_optimizer(math.sqrt, [4, -1, 9])
        assert raised.value.results == [2.0, None, 3.0]
        assert set(raised.value.errors) == {1}

        results = optimizer.io_intensive_task_optimizer(math.sqrt, [(4,), (-1,)], return_errors=True)
        assert results[0] == 2.0
        assert isinstance(results[1], ValueError)


def test_an_interrupt_cancels_what_has_not_begun() -> None:
    """What goes wrong in the caller's own iterable is raised to it, and tasks still queued are not run."""
    ran = []
    gate = threading.Event()

    def arguments() -> Any:
        for number in range(5):
            yield (number,)
        raise KeyboardInterrupt

    def task(number: int) -> None:
        gate.wait(10)
        ran.append(number)

    with CPUOptimizer() as optimizer:
        optimizer.optimize_thread_pool(1)
        with pytest.raises(KeyboardInterrupt):
            optimizer.io_intensive_task_optimizer(task, arguments())
        gate.set()
    assert ran == [0]


def test_threads_see_the_context_of_their_submitter() -> None:
    """Context variables cross into threads, and what a task sets there stays there."""

    def task() -> str:
        seen = user.get()
        user.set("changed")
        return seen

    user.set("alice")
    with CPUOptimizer() as optimizer:
        optimizer.optimize_thread_pool(1)
        assert optimizer.io_intensive_task_optimizer(task, [(), ()]) == ["alice", "alice"]
    assert user.get() == "alice"


def test_a_full_queue_makes_submitters_wait_but_never_the_pools_own_workers() -> None:
    """Nested submits on a full pool all go through; from outside a submit waits, and gives up with QueueFull."""
    with CPUOptimizer(max_queued=1, submit_timeout=0.05) as optimizer:
        pool = optimizer.optimize_thread_pool(2)
        gate = threading.Event()

        def nested(depth: int) -> list[Future[Any]]:
            gate.wait(10)
            return [pool.submit(nested, depth - 1) for _ in range(3)] if depth else []

        outer = [pool.submit(nested, 2) for _ in range(3)]
        with pytest.raises(QueueFull, match=r"still full after 0.05 s \(2 active, 1 queued\)"):
            pool.submit(nested, 2)
        assert pool.stats().rejected == 1
        gate.set()
        inner = [future for each in outer for future in each.result(10)]
        innermost = [future for each in inner for future in each.result(10)]
        assert [future.result(10) for future in innermost] == [[]] * 27
    assert (pool.stats().submitted, pool.stats().completed) == (39, 39)


def test_statistics_tell_what_a_pool_does() -> None:
    """Active, queued, completed and failed add up."""
    gate = threading.Event()
    with CPUOptimizer() as optimizer:
        pool = optimizer.optimize_thread_pool(1)
        futures = [pool.submit(gate.wait, 10), pool.submit(math.sqrt, -1), pool.submit(math.sqrt, 4)]
        assert (pool.stats().active, pool.stats().queued, pool.stats().submitted) == (1, 2, 3)
        assert "1 active, 2 queued" in repr(pool)
        assert futures[2].cancel()
        gate.set()
        assert isinstance(futures[1].exception(10), ValueError)
    assert asdict(pool.stats()) == pool.get_stats()
    assert (pool.stats().completed, pool.stats().failed, pool.stats().active) == (1, 1, 0)
    assert optimizer.stats().threads == pool.stats()
    assert optimizer.get_stats()["processes"] is None


def test_a_closed_pool_says_so() -> None:
    """Nothing is taken after the end; closing waits for what was taken, and twice is once."""
    optimizer = CPUOptimizer(name="mine")
    pool = optimizer.optimize_thread_pool(1)
    slow = pool.submit(time.sleep, 0.02)
    optimizer.close()
    optimizer.close()

    assert slow.done()
    with pytest.raises(PoolClosed, match="'mine-worker' is closed"):
        pool.submit(len, "")
    with pytest.raises(Closed, match="'mine' is closed"):
        optimizer.io_intensive_task_optimizer(len, [("",)])
    assert repr(pool).endswith("closed>")


def test_a_waiting_submitter_learns_of_the_end() -> None:
    """Who waits for room when the pool is closed gets PoolClosed, and does not wait for ever."""
    gate = threading.Event()
    optimizer = CPUOptimizer(max_queued=1)
    pool = optimizer.optimize_thread_pool(1)
    pool.submit(gate.wait, 10)
    pool.submit(gate.wait, 10)
    with ThreadPoolExecutor() as others:
        waiting = others.submit(pool.submit, len, "")
        closing = others.submit(optimizer.close)
        assert isinstance(waiting.exception(10), PoolClosed)
        gate.set()
        closing.result(10)


def test_processes_are_fresh_interpreters() -> None:
    """A worker has nothing of what the parent made, so that no store is forked; it is a process of its own."""
    sys.live_store = True  # type: ignore[attr-defined]
    try:
        with CPUOptimizer() as optimizer:
            optimizer.optimize_process_pool(1)
            look = "(__import__('os').getpid(), hasattr(__import__('sys'), 'live_store'))"
            ((process, inherited),) = optimizer.cpu_intensive_task_optimizer(eval, [look])
    finally:
        del sys.live_store  # type: ignore[attr-defined]
    assert process != os.getpid()
    assert not inherited


def test_a_pool_whose_worker_died_works_again() -> None:
    """The tasks of a process that died are errors; the next ones have new processes."""
    with CPUOptimizer() as optimizer:
        optimizer.optimize_process_pool(1)
        with pytest.raises(TaskErrors) as raised:
            optimizer.cpu_intensive_task_optimizer(os._exit, [3])
        assert isinstance(raised.value.errors[0], BrokenProcessPool)
        assert optimizer.cpu_intensive_task_optimizer(math.factorial, [3]) == [6]


def test_a_function_that_processes_cannot_import_is_refused() -> None:
    """A lambda is named in the error, before any task is submitted."""
    with (
        CPUOptimizer() as optimizer,
        pytest.raises(TypeError, match=r"task_func must be a function of a module"),
    ):
        optimizer.cpu_intensive_task_optimizer(lambda chunk: chunk, [1])


def test_anybodys_executor_takes_the_place_of_processes() -> None:
    """Tasks go to the executor that was given, which stays open."""
    with ThreadPoolExecutor(1, thread_name_prefix="theirs") as theirs:
        with CPUOptimizer(executor=theirs) as optimizer:
            names = optimizer.cpu_intensive_task_optimizer(lambda _: threading.current_thread().name, [1, 2])
        assert names == ["theirs_0", "theirs_0"]
        assert theirs.submit(len, "four").result(10) == 4


DASK = """
import math, os
from distributed import Client, LocalCluster
from storescope.core import CPUOptimizer
from storescope.core.errors import TaskErrors

if __name__ == "__main__":
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        with Client(cluster) as client, CPUOptimizer(executor=client.get_executor(pure=False)) as optimizer:
            assert optimizer.cpu_intensive_task_optimizer(math.factorial, [3, 4, 5]) == [6, 24, 120]
            (worker,) = optimizer.cpu_intensive_task_optimizer(eval, ["__import__('os').getpid()"])
            assert worker != os.getpid()
            equal = optimizer.cpu_intensive_task_optimizer(eval, ["__import__('uuid').uuid4().hex"] * 3)
            assert len(set(equal)) == 3, equal
            try:
                optimizer.cpu_intensive_task_optimizer(math.sqrt, [4, -1])
            except TaskErrors as failed:
                print(failed.results, failed.errors)
"""


def test_dask_is_such_an_executor(tmp_path: Any) -> None:
    """Tasks run in the processes of a real cluster, with results in order and errors by index."""
    program = tmp_path / "program.py"
    program.write_text(DASK)
    ran = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert "[2.0, None] {1: ValueError(" in ran.stdout, ran.stderr


def test_coroutines_run_under_the_limit_in_order() -> None:
    """So many at once and no more, results in the order of the items, progress as they end."""
    running, most, seen = 0, 0, []

    async def task(item: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (5 - item))
        running -= 1
        return item * 10

    limit = AsyncConcurrency(2)
    for _ in range(2):  # on one event loop after another
        assert asyncio.run(limit.map(task, range(5), progress=seen.append)) == [0, 10, 20, 30, 40]
    assert most == 2
    assert seen == [1, 2, 3, 4, 5] * 2


def test_two_maps_share_one_limit() -> None:
    """The limit is one for all that use it on a loop, `async with` as well."""
    running, most = 0, 0

    async def task(_: int = 0) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1

    async def scenario() -> None:
        limit = AsyncConcurrency(3)

        async def alone() -> None:
            async with limit:
                await task()

        await asyncio.gather(limit.map(task, range(9)), limit.map(task, range(9)), alone())

    asyncio.run(scenario())
    assert most == 3


def test_failing_coroutines_lose_nothing() -> None:
    """All others end, then one TaskErrors has all; on request errors stand in their places."""

    async def task(item: int) -> float:
        await asyncio.sleep(0)
        return math.sqrt(item)

    limit = AsyncConcurrency(2)
    with pytest.raises(TaskErrors) as raised:
        asyncio.run(limit.map(task, [4, -1, 9]))
    assert raised.value.results == [2.0, None, 3.0]
    results = asyncio.run(limit.map(task, [4, -1], return_errors=True))
    assert results[0] == 2.0
    assert isinstance(results[1], ValueError)


def test_cancelling_a_map_cancels_all_of_it() -> None:
    """Nothing goes on after the map was cancelled, and the limit is free again."""
    ended: list[int] = []

    async def task(item: int) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(item)

    async def scenario() -> None:
        limit = AsyncConcurrency(2)
        running = asyncio.ensure_future(limit.map(task, range(4)))
        await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert sorted(ended) == [0, 1]
        assert await asyncio.wait_for(limit.map(asyncio.sleep, [0]), 10) == [None]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda optimizer: optimizer.optimize_thread_pool(0), "max_workers must be 1 or more, not 0"),
        (lambda optimizer: optimizer.optimize_process_pool(-1), "max_workers must be 1 or more, not -1"),
        (
            lambda optimizer: optimizer.optimize_async_concurrency(True),
            "max_concurrent must be an integer, not True",
        ),
        (lambda optimizer: optimizer.io_intensive_task_optimizer(3, []), "task_func must be callable, not 3"),
        (lambda _: CPUOptimizer(max_queued=0), "max_queued must be 1 or more, not 0"),
        (
            lambda _: CPUOptimizer(submit_timeout=math.nan),
            "submit_timeout must be above 0, not nan",
        ),
        (lambda _: CPUOptimizer(name=5), "name must be a text, not 5"),  # type: ignore[arg-type]
        (
            lambda optimizer: optimizer.io_intensive_task_optimizer(abs, [(1,), 2]),
            r"task_args_list\[1\] must be an iterable, not 2",
        ),
        (
            lambda optimizer: optimizer.io_intensive_task_optimizer(abs, None),
            "task_args_list must be an iterable, not None",
        ),
        (
            lambda optimizer: optimizer.cpu_intensive_task_optimizer(abs, None),
            "data_chunks must be an iterable, not None",
        ),
        (
            lambda _: asyncio.run(AsyncConcurrency(1).map(asyncio.sleep, [], progress=5)),  # type: ignore[arg-type]
            "progress must be callable, not 5",
        ),
        (
            lambda _: asyncio.run(AsyncConcurrency(1).map(asyncio.sleep, None)),  # type: ignore[arg-type]
            "items must be an iterable, not None",
        ),
        (lambda _: CPUOptimizer(executor=4), r"executor must be a concurrent.futures.Executor, not 4"),
        (lambda _: asyncio.run(AsyncConcurrency(1).map(None, [])), "func must be callable, not None"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_named(make: Callable[[CPUOptimizer], object], error: str) -> None:
    """The error names the argument and its value."""
    with CPUOptimizer() as optimizer, pytest.raises((TypeError, ValueError), match=error):
        make(optimizer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_is_told_to_make_its_own() -> None:
    """The workers are not in the child: a submit there says so, and does not wait for ever."""
    with CPUOptimizer() as optimizer:
        pool = optimizer.optimize_thread_pool(1)
        pool.submit(len, "").result(10)
        child = os.fork()
        if child == 0:
            try:
                pool.submit(len, "")
            except UsedAfterFork:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


class OneWay(Exception):
    """An error whose pickle cannot be undone: it is made of more than it keeps."""

    def __init__(self, first: object, second: object) -> None:
        super().__init__(f"only {first}, {second}")


class Poison:
    """A value whose pickle cannot be undone."""

    def __reduce__(self) -> Any:
        return OneWay, ("too few",)


def awkward(number: int) -> object:
    """Fail, or return something, that cannot cross."""
    if number == 1:
        raise OneWay(1, 2)
    return {2: Poison(), 3: threading.Lock()}.get(number, number)


def test_what_cannot_be_unpickled_costs_no_other_task_its_result() -> None:
    """An error or a value that cannot cross is that task's error, with its text; the pool goes on."""
    with CPUOptimizer() as optimizer:
        optimizer.optimize_process_pool(1)
        results = optimizer.cpu_intensive_task_optimizer(awkward, [0, 1, 2, 3, 4], return_errors=True)
        (poisoned,) = optimizer.cpu_intensive_task_optimizer(str, [Poison()], return_errors=True)
        (unpicklable,) = optimizer.cpu_intensive_task_optimizer(str, [threading.Lock()], return_errors=True)
    assert (results[0], results[4]) == (0, 4)
    assert isinstance(results[1], RemoteError)
    assert "OneWay: only 1, 2" in str(results[1])
    assert "raise OneWay(1, 2)" in str(results[1].__cause__)
    assert isinstance(results[2], RemoteError)
    assert isinstance(results[3], TypeError)
    assert isinstance(poisoned, TypeError)
    assert isinstance(unpicklable, TypeError)


def test_callbacks_of_a_full_pool_never_wait_for_room() -> None:
    """What a done-callback submits to its own pool goes through, with one worker and a full queue."""
    pool = thread_executor(1, max_queued=1, submit_timeout=5, name="own")
    gate = threading.Event()
    more: list[Future[Any]] = []
    first = pool.submit(gate.wait, 10)
    first.add_done_callback(lambda _: more.extend(pool.submit(len, "four") for _ in range(3)))
    second = pool.submit(len, "")
    gate.set()
    assert second.result(10) == 0
    pool.shutdown()
    assert [each.result(10) for each in more] == [4, 4, 4]


def test_tasks_on_anybodys_threads_never_wait_for_room_either() -> None:
    """A task on a given executor submits to its own pool, and sees its submitter's context."""
    with (
        ThreadPoolExecutor(1) as theirs,
        CPUOptimizer(executor=theirs, max_queued=1, submit_timeout=5) as own,
    ):
        pool = own.optimize_process_pool(1)
        user.set("bob")
        inner = pool.submit(lambda: [pool.submit(user.get) for _ in range(3)]).result(10)
        assert [each.result(10) for each in inner] == ["bob"] * 3


def test_an_item_that_is_cancelled_is_an_error_of_its_own() -> None:
    """Others' results are kept when an item awaits something that was cancelled."""

    async def task(item: int) -> int:
        if item == 1:
            inner = asyncio.ensure_future(asyncio.sleep(60))
            inner.cancel()
            await inner
        return item

    results = asyncio.run(AsyncConcurrency(2).map(task, range(4), return_errors=True))
    assert isinstance(results.pop(1), asyncio.CancelledError)
    assert results == [0, 2, 3]


def test_a_progress_that_fails_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """All results are returned all the same."""

    def progress(_: int) -> None:
        raise ValueError("no terminal")

    async def task(item: int) -> int:
        return item

    with caplog.at_level(logging.WARNING):
        assert asyncio.run(AsyncConcurrency(2).map(task, range(4), progress=progress)) == [0, 1, 2, 3]
    assert [record.getMessage() for record in caplog.records] == [
        "the progress callback of a map failed; it is not called again"
    ]


def test_a_high_limit_costs_nothing() -> None:
    """There are as many tasks as items, however many there might be."""

    async def task(_: int) -> int:
        return len(asyncio.all_tasks())

    assert max(asyncio.run(AsyncConcurrency(200_000).map(task, range(3)))) <= 4


def test_a_map_inside_itself_is_refused() -> None:
    """It would wait for a place that its own item holds."""
    limit = AsyncConcurrency(1)

    async def task(item: int) -> Any:
        return await limit.map(task, [item])

    async def scenario() -> list[Any]:
        return await asyncio.wait_for(limit.map(task, [1], return_errors=True), 10)

    (error,) = asyncio.run(scenario())
    assert isinstance(error, WouldDeadlock)


def test_what_a_pool_refuses_is_that_tasks_error() -> None:
    """QueueFull and a wrong argument stand by their index; the rest have their results."""
    gate = threading.Event()

    def arguments() -> Any:
        yield (10,)
        yield (10,)
        yield (10,)  # the queue is full
        gate.set()
        deadline = time.monotonic() + 10
        while optimizer.stats().threads.completed < 2 and time.monotonic() < deadline:  # type: ignore[union-attr]
            time.sleep(0.001)
        yield 3

    with CPUOptimizer(max_queued=1, submit_timeout=0.01) as optimizer:
        optimizer.optimize_thread_pool(1)
        results = optimizer.io_intensive_task_optimizer(gate.wait, arguments(), return_errors=True)
    assert results[:2] == [True, True]
    assert isinstance(results[2], QueueFull)
    assert isinstance(results[3], TypeError)


def test_a_pool_made_anew_takes_the_rest_of_a_run() -> None:
    """No task is lost to a pool that was replaced; one that comes after `close` has that as its error."""
    optimizer = CPUOptimizer()

    def arguments(change: Callable[[], object]) -> Any:
        yield (-1,)
        change()
        yield (-2,)

    optimizer.optimize_thread_pool(1)
    again = arguments(lambda: optimizer.optimize_thread_pool(2))
    assert optimizer.io_intensive_task_optimizer(abs, again) == [1, 2]
    results = optimizer.io_intensive_task_optimizer(abs, arguments(optimizer.close), return_errors=True)
    assert results[0] == 1
    assert isinstance(results[1], Closed)


def test_a_task_that_waits_for_room_goes_to_the_new_pool() -> None:
    """A run that waits before a full pool goes on when that pool is replaced, and has all its results."""
    gate = threading.Event()
    with CPUOptimizer(max_queued=1) as optimizer, ThreadPoolExecutor() as others:
        old = optimizer.optimize_thread_pool(1)
        running = others.submit(optimizer.io_intensive_task_optimizer, gate.wait, [(10,)] * 4)
        deadline = time.monotonic() + 10
        while old.stats().submitted < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)  # the third waits now
        optimizer.optimize_thread_pool(4)
        gate.set()
        assert running.result(10) == [True] * 4


def test_a_cancelled_task_loses_no_other_result() -> None:
    """A pool that is shut down and drops its queue leaves what was begun, and an error for each task dropped."""
    begun = threading.Event()
    gate = threading.Event()

    def task(_: int) -> bool:
        begun.set()
        return gate.wait(10)

    with CPUOptimizer() as optimizer, ThreadPoolExecutor() as others:
        pool = optimizer.optimize_thread_pool(1)
        running = others.submit(optimizer.io_intensive_task_optimizer, task, [(1,), (2,)], return_errors=True)
        assert begun.wait(10)
        deadline = time.monotonic() + 10
        while pool.stats().submitted < 2 and time.monotonic() < deadline:
            time.sleep(0.001)
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        results = running.result(10)
    assert results[0] is True
    assert isinstance(results[1], (CancelledError, PoolClosed))


def test_many_first_uses_make_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that need the pool at the same time share one."""
    optimizer = CPUOptimizer()
    made = []
    make = optimizer.optimize_thread_pool

    def slowly() -> Any:
        made.append(1)
        time.sleep(0.01)
        return make(1)

    monkeypatch.setattr(optimizer, "optimize_thread_pool", slowly)
    with optimizer, ThreadPoolExecutor(4) as others:
        calls = [others.submit(optimizer.io_intensive_task_optimizer, abs, [(-1,)]) for _ in range(4)]
        assert [call.result(10) for call in calls] == [[1]] * 4
    assert made == [1]


def test_closing_waits_for_tasks_on_anybodys_executor() -> None:
    """What was given to the executor is done when `close` returns, or cancelled on request."""
    with ThreadPoolExecutor(1) as theirs:
        optimizer = CPUOptimizer(executor=theirs)
        slow = optimizer.optimize_process_pool(1).submit(time.sleep, 0.02)
        optimizer.close()
        assert slow.done()

        gate = threading.Event()
        pool = CPUOptimizer(executor=theirs).optimize_process_pool(1)
        tasks = [pool.submit(gate.wait, 10) for _ in range(3)]
        pool.shutdown(wait=False, cancel_futures=True)
        gate.set()
        assert [task.cancelled() for task in tasks][1:] == [True, True]


def test_a_worker_may_close_its_own_pool() -> None:
    """It does not wait for itself, neither in a task nor in a callback of a worker process."""
    optimizer = CPUOptimizer()
    optimizer.optimize_thread_pool(1)
    assert optimizer.io_intensive_task_optimizer(optimizer.close, [()]) == [None]

    other = CPUOptimizer()
    closed: Future[None] = Future()

    def close(_: object) -> None:
        try:
            other.close()
            closed.set_result(None)
        except RuntimeError as error:
            closed.set_exception(error)

    other.optimize_process_pool(1).submit(time.sleep, 0.05).add_done_callback(close)
    assert closed.result(10) is None
    other.close()
