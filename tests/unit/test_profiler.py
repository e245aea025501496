"""PerformanceProfiler: what is known of functions, safely, in bounded memory, beside other threads and tools."""

from __future__ import annotations

import cProfile
import gc
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from unit.profiled import Clock, busy, names

from storescope.core.profiling.profile import Exclusivity
from storescope.core.profiling.profiler import OTHER_FUNCTIONS, PerformanceProfiler
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


def test_a_report_has_the_guides_keys(timing: PerformanceProfiler, clock: Clock) -> None:
    """Count, sum, mean and extremes of the durations are exact; quantiles are within one percent."""

    @timing.profile_function("read")
    def read(seconds: float) -> float:
        clock.advance(seconds)
        return seconds

    assert [read(seconds / 100) for seconds in range(1, 101)][-1] == 1.0
    report = timing.get_profile_report("read")
    assert report is not None
    assert report["function_name"] == "read"
    assert report["call_count"] == 100
    assert report["total_time"] == pytest.approx(50.5)
    assert report["average_time"] == pytest.approx(0.505)
    assert report["min_time"] == pytest.approx(0.01)
    assert report["max_time"] == pytest.approx(1.0)
    assert report["p50_time"] == pytest.approx(0.5, rel=0.02)
    assert report["p99_time"] == pytest.approx(0.99, rel=0.02)
    assert report["profile_details"] == "no call was profiled\n"
    assert timing.get_profile_report("write") is None
    summary = timing.get_summary_report()
    assert set(summary) == {"read"}
    assert timing.get_stats() == summary
    assert {key: report[key] for key in summary["read"]} == summary["read"]
    assert timing.stats().functions["read"].average == pytest.approx(0.505)


def test_details_are_the_top_functions_by_cumulative_time(profiler: PerformanceProfiler) -> None:
    """The text names the function, what it calls, and nothing of the profiler; at most 20 lines of them."""

    @profiler.profile_function()
    def outer() -> int:
        return sum(eval(f"lambda: {n}")() for n in range(30)) + busy()

    outer()
    report = profiler.get_profile_report("outer")
    assert report is not None
    head, *lines = report["profile_details"].splitlines()
    assert head.startswith("outer: ")
    assert len(lines) == 21
    assert "outer (test_profiler.py:" in lines[1]
    assert not names(profiler.get_profile("outer")) & {
        "start",
        "stop",
        "add",
        "finish",
        "acquire",
        "release",
        "disable",
    }
    assert {"outer", "busy", "sorted>"} <= names(profiler.get_profile("outer"))


def test_a_block_is_a_call(profiler: PerformanceProfiler) -> None:
    """A `with` block is timed and profiled like a function of that name; its exception passes."""
    for _ in range(2):
        with profiler.profile("block"):
            busy()
    with pytest.raises(KeyError, match="gone"), profiler.profile("block"):
        raise KeyError("gone")
    stats = profiler.stats().functions["block"]
    assert (stats.count, stats.errors, stats.profiled) == (3, 1, 3)
    assert "busy" in names(profiler.get_profile("block"))


def test_threads_at_once_all_have_their_results(profiler: PerformanceProfiler) -> None:
    """Eight threads in a profiled function all succeed: each call is timed, one at a time is profiled."""
    results: list[int] = []

    @profiler.profile_function("work")
    def work(number: int) -> int:
        busy()
        return number

    threads = [
        threading.Thread(target=lambda n=number: results.extend(work(n) for _ in range(25)))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(8)) * 25)
    stats = profiler.stats().functions["work"]
    assert (stats.count, stats.errors) == (200, 0)
    assert 1 <= stats.profiled <= 200


def test_nested_and_recursive_calls_are_counted(profiler: PerformanceProfiler) -> None:
    """The outer call's profile goes on through inner ones, which are timed."""

    @profiler.profile_function("inner")
    def inner(depth: int) -> int:
        return inner(depth - 1) if depth else busy()

    @profiler.profile_function("outer")
    def outer() -> int:
        inner(3)
        return after()

    def after() -> int:
        return busy()

    outer()
    assert {name: stats.count for name, stats in profiler.stats().functions.items()} == {
        "outer": 1,
        "inner": 4,
    }
    assert {"after", "inner", "busy"} <= names(profiler.get_profile("outer"))
    assert profiler.stats().functions["inner"].profiled == 0
    inner(2)
    assert profiler.stats().functions["inner"].profiled == 1


@pytest.mark.parametrize("nested", ["block", "recursion", "others"])
def test_no_function_has_more_than_all_the_time(profiler: PerformanceProfiler, nested: str) -> None:
    """With profiled calls inside, shares are 100 % at most, the sum is the call's time, and nothing of ours is seen."""

    @profiler.profile_function()
    def recursion(n: int) -> int:
        return n if n < 2 else recursion(n - 1) + recursion(n - 2)

    @profiler.profile_function()
    def inner() -> int:
        return sum(range(20))

    @profiler.profile_function()
    def others() -> int:
        return sum(inner() for _ in range(500))

    @profiler.profile_function()
    def block() -> None:
        for number in range(500):
            with profiler.profile(f"block {number % 50}"):
                inner()

    gc.disable()  # callbacks of the collector, such as hypothesis has, are the profiled call's
    try:
        {"block": block, "recursion": lambda: recursion(14), "others": others}[nested]()
    finally:
        gc.enable()
    profile = profiler.get_profile(nested)
    assert profile is not None
    all_time = profile.seconds
    assert all(0 <= f.self_time <= f.cumulative <= all_time * 1.000001 for f in profile.functions)
    assert sum(f.self_time for f in profile.functions) == pytest.approx(all_time, rel=0.001)
    assert (
        profiler.stats().functions[nested].maximum * 0.5
        < all_time
        < profiler.stats().functions[nested].maximum * 1.5
    )
    assert names(profile) <= {nested, "inner", "recursion", "<genexpr>", "sum>"}


def test_one_call_in_n_is_profiled() -> None:
    """With `every=10` the first call and each tenth after it are profiled, and all are timed."""
    profiler = PerformanceProfiler(every=10)
    work = profiler.profile_function("work")(busy)
    for _ in range(25):
        work()
    stats = profiler.stats().functions["work"]
    assert (stats.count, stats.profiled) == (25, 3)


def test_a_foreign_profiler_is_left_alone(profiler: PerformanceProfiler) -> None:
    """Where the application profiles itself, calls are only timed, and its own profile has them."""
    work = profiler.profile_function("work")(busy)
    theirs = cProfile.Profile()
    theirs.enable()
    try:
        work()
    finally:
        theirs.disable()
    assert profiler.stats().functions["work"].profiled == 0
    assert any(getattr(entry.code, "co_name", "") == "busy" for entry in theirs.getstats())
    seen: list[str] = []
    sys.setprofile(lambda frame, event, argument: seen.append(frame.f_code.co_name))
    try:
        work()
    finally:
        sys.setprofile(None)
    assert "busy" in seen
    assert profiler.stats().functions["work"].profiled == 0
    work()
    assert profiler.stats().functions["work"].profiled == 1


def test_what_a_dead_thread_held_is_recovered(profiler: PerformanceProfiler) -> None:
    """A thread that dies in a block that it never leaves does not keep others from being profiled."""
    entered: list[Any] = []

    def die() -> None:
        block = profiler.profile("left open")
        block.__enter__()
        entered.append(block)

    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    work = profiler.profile_function("work")(busy)
    work()
    assert profiler.stats().functions["work"].profiled == 1
    assert "busy" in names(profiler.get_profile("work"))
    entered.pop().__exit__(None, None, None)  # somebody else ends it, when the slot is no longer its own
    work()
    assert profiler.stats().functions["work"].profiled == 2


def test_a_profile_says_whether_it_is_of_its_call_alone(profiler: PerformanceProfiler) -> None:
    """On 3.12 and newer calls of a busy bystander land in a profile: it is marked; before, they cannot."""

    @profiler.profile_function("alone")
    def alone() -> None:
        for _ in range(20):
            busy()

    alone()
    done = threading.Event()

    def bystander() -> None:
        while not done.is_set():
            busy()

    @profiler.profile_function("beside")
    def beside() -> None:
        for _ in range(50):
            busy()
            time.sleep(0.001)

    thread = threading.Thread(target=bystander)
    thread.start()
    try:
        beside()
    finally:
        done.set()
        thread.join()
    expected = Exclusivity.CONTAMINATED if PROCESS_WIDE else Exclusivity.EXCLUSIVE
    first, second = profiler.get_profile("alone"), profiler.get_profile("beside")
    assert first is not None
    assert second is not None
    assert first.exclusivity is Exclusivity.EXCLUSIVE
    assert second.exclusivity is expected
    report = profiler.get_profile_report("beside")
    assert report is not None
    assert report["exclusivity"] == expected.value


def test_a_broken_clock_does_not_reach_the_call() -> None:
    """A call has its result where the clock raises, and where what it gives is no time."""
    broken: list[Any] = [ZeroDivisionError("no clock"), math.nan]

    def clock() -> float:
        if isinstance(broken[0], Exception):
            raise broken[0]
        return float(broken[0])

    profiler = PerformanceProfiler(clock=clock)
    work = profiler.profile_function("work")(busy)
    assert work() == busy()
    broken.pop(0)
    assert work() == busy()
    assert profiler.stats().functions["work"].count == 1


def test_memory_is_bounded_by_names() -> None:
    """Names beyond `max_functions` are counted together; code made at run time does not pile up."""
    profiler = PerformanceProfiler(max_functions=3)
    for number in range(10):
        with profiler.profile(f"block {number}"):
            pass
    assert {name: stats.count for name, stats in profiler.stats().functions.items()} == {
        "block 0": 1,
        "block 1": 1,
        "block 2": 1,
        OTHER_FUNCTIONS: 7,
    }
    profiler.reset()
    assert profiler.stats().functions == {}


def test_code_made_at_run_time_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that has met too many functions begins anew."""
    monkeypatch.setattr("storescope.core.profiling.measurement._MAX_CODES", 500)
    profiler = PerformanceProfiler()

    @profiler.profile_function("work")
    def work() -> None:
        for number in range(10):
            eval(f"lambda: {number}")()

    for _ in range(300):
        work()
    profile = profiler.get_profile("work")
    assert profile is not None
    assert len(profile.functions) < 1000


def test_counts_are_exact_under_threads() -> None:
    """No call of many threads is lost, with the shortest switch interval."""
    profiler = PerformanceProfiler(mode="timing")
    work = profiler.profile_function("work")(lambda: None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [work() for _ in range(1000)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert profiler.stats().functions["work"].count == 6000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on(profiler: PerformanceProfiler) -> None:
    """A child measures and profiles, although a thread of the parent was being profiled when it forked."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with profiler.profile("held"):
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    entered.wait(10)
    child = os.fork()
    if not child:
        signal.alarm(10)
        work = profiler.profile_function("work")(busy)
        work()
        os._exit(0 if profiler.stats().functions["work"].profiled == 1 else 1)
    leave.set()
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    assert profiler.stats().functions["held"].profiled == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "every must be 1 or more, not 0"),
        ({"every": True}, TypeError, "every must be an integer, not True"),
        ({"max_functions": -1}, ValueError, "max_functions must be 1 or more, not -1"),
        ({"mode": "fast"}, ValueError, "mode must be one of 'cprofile', 'timing', not 'fast'"),
        ({"clock": 3}, TypeError, "clock must be callable, not 3"),
        ({"name": 3}, TypeError, "name must be a text, not 3"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """An error names the argument and its value."""
    with pytest.raises(error, match=message):
        PerformanceProfiler(**options)


def test_bad_uses_are_named(profiler: PerformanceProfiler) -> None:
    """Forgotten parentheses, names that are none, and a block entered twice are errors at once."""
    with pytest.raises(TypeError, match="func_name must be a text, not <function"):
        profiler.profile_function(busy)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="the decorated object must be callable, not 5"):
        profiler.profile_function("x")(5)  # type: ignore[type-var]
    with pytest.raises(TypeError, match="name must be a text, not None"):
        profiler.profile(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="func_name must be a text, not 1"):
        profiler.get_profile_report(1)  # type: ignore[arg-type]
    block = profiler.profile("block")
    with block, pytest.raises(RuntimeError, match="the block 'block' has begun already"), block:
        pass
    with block:
        pass
    assert profiler.stats().functions["block"].count == 2


def test_repr_shows_live_state(profiler: PerformanceProfiler, timing: PerformanceProfiler) -> None:
    """The repr says how many functions are known and what is profiled."""
    with profiler.profile("block"):
        assert repr(profiler) == "<PerformanceProfiler 'profiler': 1 functions, profiles 1 call in 1>"
    assert repr(timing) == "<PerformanceProfiler 'profiler': 0 functions, timing only>"
