"""The guide's program of profiling, and what its own code gets wrong."""

from __future__ import annotations

import asyncio
import cProfile
import gc
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from guide import naive

from storescope.core import PerformanceProfiler
from storescope.core.profiling.profile import Exclusivity

#: From here on cProfile is one for the whole process.
PROCESS_WIDE = sys.version_info >= (3, 12)


def faulty(reason: str, condition: bool = True, raises: type[Exception] = AssertionError) -> Any:
    fails = pytest.mark.xfail(condition, strict=True, reason=reason, raises=raises)
    return pytest.param(naive.PerformanceProfiler, marks=fails, id="naive")


ours = pytest.param(PerformanceProfiler, id="ours")


def busy() -> int:
    return sum(sorted(range(2000)))


@pytest.mark.anystore
def test_the_program(store: Any, tmp_path: Path) -> None:
    """Ten calls of a tool are counted and timed, and the report shows where their time goes; failing ones count."""
    (tmp_path / "notes.txt").write_text("hello")
    profiler = PerformanceProfiler()

    @profiler.profile_function("tool_call_operation")
    def profiled_tool_call(store: Any, tool_name: str, arguments: dict[str, Any]) -> Any:
        return store.call_tool(tool_name, arguments)

    results = [profiled_tool_call(store, "list_directory", {"path": str(tmp_path)}) for _ in range(10)]
    assert all("notes.txt" in str(result) for result in results)

    report = profiler.get_profile_report("tool_call_operation")
    assert report is not None
    assert report["function_name"] == "tool_call_operation"
    assert report["call_count"] == 10
    assert 0 < report["min_time"] <= report["average_time"] <= report["max_time"] < 30
    assert report["total_time"] == pytest.approx(10 * report["average_time"])
    profile = profiler.get_profile("tool_call_operation")
    assert profile is not None
    assert f", {profile.exclusivity.value}\n" in report["profile_details"]
    if (
        profile.exclusivity is Exclusivity.EXCLUSIVE
    ):  # else calls of the store's own threads may have displaced it
        assert "profiled_tool_call" in report["profile_details"]
        assert "call_tool" in report["profile_details"]
    else:
        assert PROCESS_WIDE
    summary = profiler.get_summary_report()
    assert summary["tool_call_operation"]["call_count"] == 10
    assert profiler.get_profile_report("another") is None


@pytest.mark.parametrize(
    "profiler_class", [faulty("the second one raises into its caller", PROCESS_WIDE, ValueError), ours]
)
def test_two_threads_can_be_in_profiled_functions(profiler_class: Any) -> None:
    """A call succeeds while another thread is in a profiled call."""
    profiler = profiler_class()
    inside, leave = threading.Event(), threading.Event()

    @profiler.profile_function("slow")
    def slow() -> None:
        inside.set()
        leave.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        assert inside.wait(10)
        assert profiler.profile_function("quick")(busy)() == busy()
    finally:
        leave.set()
        thread.join()
    assert {name: times["call_count"] for name, times in profiler.get_summary_report().items()} == {
        "quick": 1,
        "slow": 1,
    }


@pytest.mark.parametrize(
    "profiler_class",
    [
        faulty(
            "before 3.12 the inner call ends the outer one's profile; from then on it raises",
            raises=ValueError if PROCESS_WIDE else AssertionError,
        ),
        ours,
    ],
)
def test_a_profiled_call_may_be_inside_another(profiler_class: Any) -> None:
    """What the outer function calls after the inner one is in its profile."""
    profiler = profiler_class()

    @profiler.profile_function("inner")
    def inner() -> int:
        return busy()

    def after() -> int:
        return busy()

    @profiler.profile_function("outer")
    def outer() -> int:
        inner()
        return after()

    assert outer() == busy()
    assert "after" in profiler.get_profile_report("outer")["profile_details"]


@pytest.mark.parametrize("profiler_class", [faulty("every duration is kept for ever"), ours])
def test_its_memory_does_not_grow_with_the_calls(profiler_class: Any) -> None:
    """Four hundred calls more leave fewer than two hundred objects more."""
    profiler = profiler_class()
    work = profiler.profile_function("work")(busy)
    for _ in range(200):
        work()
    before = objects_of(profiler)
    for _ in range(400):
        work()
    assert objects_of(profiler) - before < 200


def objects_of(root: object) -> int:
    """Count what an object holds, directly or not, without code and types."""
    seen = {id(root): root}
    look = [root]
    while look:
        for inner in gc.get_referents(look.pop()):
            if id(inner) not in seen and not isinstance(inner, (type, types.ModuleType, types.FunctionType)):
                seen[id(inner)] = inner
                look.append(inner)
    return len(seen)


@pytest.mark.parametrize("profiler_class", [faulty("a coroutine function only makes its coroutine"), ours])
def test_a_coroutine_is_profiled(profiler_class: Any) -> None:
    """An async function's duration has its waits in it, and its profile what it calls."""
    profiler = profiler_class()

    @profiler.profile_function("wait")
    async def wait() -> int:
        await asyncio.sleep(0.02)
        return busy()

    assert asyncio.run(wait()) == busy()
    report = profiler.get_profile_report("wait")
    assert report["average_time"] >= 0.02
    assert "busy" in report["profile_details"]


@pytest.mark.parametrize("profiler_class", [faulty("a generator function only makes its generator"), ours])
def test_a_generator_is_profiled(profiler_class: Any) -> None:
    """A generator's duration and profile are of its body."""
    profiler = profiler_class()

    @profiler.profile_function("items")
    def items() -> Iterator[int]:
        for _ in range(3):
            time.sleep(0.005)
            yield busy()

    assert list(items()) == [busy()] * 3
    report = profiler.get_profile_report("items")
    assert report["total_time"] >= 0.015
    assert "busy" in report["profile_details"]


@pytest.mark.parametrize("profiler_class", [faulty("the text is made at every call"), ours])
def test_a_call_pays_for_no_report(profiler_class: Any) -> None:
    """A profiled call costs less than four times what it costs under a bare cProfile."""
    namespace: dict[str, Any] = {}
    for number in range(100):
        exec(f"def function_{number}(): pass", namespace)
    functions = [namespace[f"function_{number}"] for number in range(100)]

    def call_all() -> None:
        for function in functions:
            function()

    def bare() -> None:
        profile = cProfile.Profile()
        profile.enable()
        call_all()
        profile.disable()

    profiled = profiler_class().profile_function("call_all")(call_all)
    assert cpu_seconds(profiled) < 4 * cpu_seconds(bare)


def cpu_seconds(function: Any) -> float:
    """Return what a call takes of this thread's CPU time, at its best."""

    def once() -> float:
        begin = time.thread_time()
        function()
        return time.thread_time() - begin

    return min(once() for _ in range(100))
