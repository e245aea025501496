"""The guide's program of pools, and what its own code gets wrong."""

from __future__ import annotations

import asyncio
import contextvars
import math
import multiprocessing
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from guide import naive
from unit.machine import V2, Machine

from storescope.core import CPUOptimizer
from storescope.core.errors import TaskErrors
from storescope.core.memory.containers import cpu_count
from storescope.core.workers import cpu


def faulty(reason: str, raises: Any = AssertionError) -> Any:
    expected = pytest.mark.xfail(strict=True, reason=reason, raises=raises)
    return pytest.param(naive.CPUOptimizer, marks=expected, id="naive")


ours = pytest.param(CPUOptimizer, id="ours")


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """Leave this thread one CPU of several."""
    if not hasattr(os, "sched_setaffinity") or multiprocessing.cpu_count() < 2:
        pytest.skip("there is no affinity here, or one CPU only")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def test_the_program() -> None:
    """Both pools are made with their default sizes, and run tasks in order."""
    cpu_optimizer = CPUOptimizer()
    thread_pool = cpu_optimizer.optimize_thread_pool()
    process_pool = cpu_optimizer.optimize_process_pool()

    assert thread_pool.submit(pow, 2, 10).result(30) == 1024
    assert process_pool.submit(math.factorial, 5).result(30) == 120
    assert cpu_optimizer.io_intensive_task_optimizer(pow, [(2, n) for n in range(5)]) == [1, 2, 4, 8, 16]
    assert cpu_optimizer.cpu_intensive_task_optimizer(math.factorial, range(5)) == [1, 1, 2, 6, 24]
    cpu_optimizer.close()


@pytest.mark.parametrize("make", [faulty("ends its pool", RuntimeError), ours])
def test_a_pool_serves_more_than_once(make: Any) -> None:
    """The second use of a pool works as the first."""
    optimizer = make()
    optimizer.optimize_thread_pool(1)
    for _ in range(2):
        assert optimizer.io_intensive_task_optimizer(abs, [(-1,)]) == [1]


@pytest.mark.parametrize("make", [faulty("has no pool yet", (AttributeError, TypeError)), ours])
def test_a_task_makes_the_pool_that_it_needs(make: Any) -> None:
    """Nothing has to be made before."""
    assert make().io_intensive_task_optimizer(abs, [(-1,)]) == [1]


@pytest.mark.usefixtures("one_cpu")
@pytest.mark.parametrize("make", [faulty("counts the CPUs of others"), ours])
def test_only_cpus_that_are_ours_are_counted(make: Any) -> None:
    """Affinity bounds the count."""
    assert make().cpu_count == 1


@pytest.mark.skipif(multiprocessing.cpu_count() < 2, reason="there is one CPU only")
@pytest.mark.parametrize("make", [faulty("counts what nobody pays for"), ours])
def test_the_quota_of_the_container_is_counted(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is given the time of one CPU has one, however many the machine has."""
    machine = Machine(tmp_path, "0::/", V2).write("/sys/fs/cgroup/cpu.max", "100000 100000")
    monkeypatch.setattr(cpu, "cpu_count", partial(cpu_count, root=machine.root))
    assert make().cpu_count == 1


@pytest.mark.parametrize("make", [faulty("loses what succeeded"), ours])
def test_one_failure_loses_no_other_result(make: Any) -> None:
    """The error has the results of the tasks that succeeded."""
    optimizer = make()
    optimizer.optimize_thread_pool(1)
    with pytest.raises((ValueError, TaskErrors)) as raised:
        optimizer.io_intensive_task_optimizer(math.sqrt, [(4,), (-1,), (9,)])
    assert getattr(raised.value, "results", None) == [2.0, None, 3.0]


@pytest.mark.parametrize("make", [faulty("leaves the context behind"), ours])
def test_the_context_goes_with_a_task(make: Any) -> None:
    """A context variable, such as the current span, is seen by the worker."""
    span = contextvars.ContextVar("span", default="none")
    optimizer = make()
    optimizer.optimize_thread_pool(1)
    span.set("parent")
    assert optimizer.io_intensive_task_optimizer(span.get, [()]) == ["parent"]


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="fork is not the default here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("make", [faulty("forks the store"), ours])
def test_no_store_is_forked(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker process has nothing of what lives in its parent."""
    monkeypatch.setattr(sys, "live_store", object(), raising=False)
    optimizer = make()
    optimizer.optimize_process_pool(1)
    assert optimizer.cpu_intensive_task_optimizer(eval, ["hasattr(__import__('sys'), 'live_store')"]) == [
        False
    ]
    optimizer.process_pool.shutdown()


async def _as_the_guide_does(_semaphore: object, calls: Any) -> list[Any]:
    """A semaphore is made, and nothing goes through it."""
    return await asyncio.gather(*calls)


async def _through_the_limit(limit: Any, calls: Any) -> list[Any]:
    async def take(call: Any) -> Any:
        return await call

    return await limit.map(take, calls)


@pytest.mark.parametrize(
    ("make", "run"),
    [
        pytest.param(
            naive.CPUOptimizer,
            _as_the_guide_does,
            marks=pytest.mark.xfail(strict=True, reason="limits nothing", raises=AssertionError),
            id="naive",
        ),
        pytest.param(CPUOptimizer, _through_the_limit, id="ours"),
    ],
)
def test_many_coroutines_run_under_the_limit(make: Any, run: Any) -> None:
    """All of them, in order, no more at once than the limit, on whichever event loop."""
    running, most = 0, 0

    async def call(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return number

    limit = make().optimize_async_concurrency(2)
    for _ in range(2):
        assert asyncio.run(run(limit, map(call, range(6)))) == list(range(6))
    assert most == 2


def test_progress_is_told() -> None:
    """After each coroutine, how many are done."""
    seen: list[int] = []
    asyncio.run(
        CPUOptimizer().optimize_async_concurrency(2).map(asyncio.sleep, [0] * 3, progress=seen.append)
    )
    assert seen == [1, 2, 3]
