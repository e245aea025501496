"""Memory that is watched against the container's limit, and what is done when it runs short."""

from __future__ import annotations

import gc
import inspect
import logging
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.machine import V2, Machine

from storescope.core import MemoryOptimizer, ObjectPool
from storescope.core.errors import Closed, CoreError, NotFromPool, UnknownPool
from storescope.core.memory.gc_pauses import pause_ring
from storescope.core.stats import MemoryPressure

LIMIT = 1000 * 2**20


class Thing:
    """Something that can be referred to weakly."""


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Leave the process as it was."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture
def container(tmp_path: Path) -> Machine:
    """A container of 1000 MiB, whose files a test rewrites to have it use more or less."""
    machine = Machine(tmp_path, "0::/", V2)
    machine.memory_is(limit=LIMIT, used=0)
    return machine


@pytest.fixture
def optimizer(container: Machine) -> Iterator[MemoryOptimizer]:
    with MemoryOptimizer(root=container.root) as made:
        yield made


def use(container: Machine, percent: float) -> None:
    container.memory_is(limit=LIMIT, used=round(LIMIT * percent / 100))


def cleanups(optimizer: MemoryOptimizer, container: Machine, percents: list[float]) -> list[int]:
    """Look at one percentage after the other, and return how many cleanups there were by then."""
    seen = []
    for percent in percents:
        use(container, percent)
        assert optimizer.monitor_memory_usage()["percent"] == pytest.approx(percent)
        seen.append(optimizer.stats().cleanups)
    return seen


def test_one_cleanup_for_each_shortage(optimizer: MemoryOptimizer, container: Machine) -> None:
    """It comes with the rise above 80 %, and again only after usage was below 72 %."""
    percents = [79, 81, 99, 81, 79, 81, 73, 90, 71, 79, 81, 95]
    assert cleanups(optimizer, container, percents) == [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]


@pytest.fixture
def frozen() -> None:
    """Have cleanups pass over what the tests before have left, which is most of their time."""
    gc.freeze()


@pytest.mark.usefixtures("frozen")
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from([0, 29, 30, 60, 61, 100]), max_size=8))
def test_hysteresis_against_a_model(tmp_path_factory: pytest.TempPathFactory, percents: list[float]) -> None:
    """Whatever usage does, a cleanup needs a rise above the upper threshold from below the lower one."""
    machine = Machine(tmp_path_factory.mktemp("machine"), "0::/", V2)
    armed, expected, total = True, [], 0
    for percent in percents:
        if armed and percent > 60:
            armed, total = False, total + 1
        elif percent < 30:
            armed = True
        expected.append(total)
    with MemoryOptimizer(root=machine.root, memory_threshold=0.6, hysteresis=0.5) as optimizer:
        assert cleanups(optimizer, machine, percents) == expected


def test_a_threshold_may_be_changed_at_any_time(optimizer: MemoryOptimizer, container: Machine) -> None:
    """The attribute of the guide counts from the next look."""
    assert cleanups(optimizer, container, [50]) == [0]
    optimizer.memory_threshold = 0.4
    assert cleanups(optimizer, container, [50]) == [1]


def test_usage_of_the_container(optimizer: MemoryOptimizer, container: Machine) -> None:
    """Rss and vms are the process's, limit and percent the container's."""
    use(container, 25)
    stats = optimizer.stats()
    process = psutil.Process().memory_info()
    assert (stats.limit, stats.percent) == (LIMIT, 25.0)
    assert stats.rss == pytest.approx(process.rss, rel=0.2)
    assert stats.vms == pytest.approx(process.vms, rel=0.2)
    shown = optimizer.get_stats()
    assert (shown["limit"], shown["percent"], shown["object_pools"]) == (LIMIT, 25.0, {})


@pytest.mark.parametrize("limit", [None, 2**50])
def test_usage_of_the_host(container: Machine, limit: int | None) -> None:
    """Without a limit below the host's memory, it is the process's share of that."""
    container.write("/sys/fs/cgroup/memory.max", limit or "max")
    with MemoryOptimizer(root=container.root) as optimizer:
        stats = optimizer.stats()
    assert stats.limit == psutil.virtual_memory().total
    assert stats.percent == pytest.approx(100 * stats.rss / stats.limit)


def test_a_limit_without_a_usage(container: Machine, tmp_path: Path) -> None:
    """Where the container's usage cannot be read, the process's own stands for it."""
    (tmp_path / "sys/fs/cgroup/memory.current").unlink()
    with MemoryOptimizer(root=container.root) as optimizer:
        stats = optimizer.stats()
    assert stats.percent == pytest.approx(100 * stats.rss / LIMIT)


def test_this_machine() -> None:
    """On the real files of this machine there is some usage, and it is below the limit."""
    with MemoryOptimizer() as optimizer:
        usage = optimizer.monitor_memory_usage()
    assert 0 < usage["rss"] <= usage["vms"]
    assert 0 < usage["percent"] < 100


def test_cleanup_says_what_it_let_go(optimizer: MemoryOptimizer) -> None:
    """Unreachable objects, idle ones of each pool, and weak references."""
    gc.collect()
    for name, idle in {"a": 2, "b": 0}.items():
        pool = optimizer.create_object_pool(name, dict)
        for obj in [pool.get() for _ in range(idle)]:
            pool.put(obj)
    thing = optimizer.weak_references["thing"] = Thing()
    cycle: list[Any] = []
    cycle.append(cycle)
    del cycle
    cleanup = optimizer.trigger_memory_cleanup()
    assert cleanup.pools == {"a": 2, "b": 0}
    assert cleanup.weak_references == 1
    assert cleanup.collected >= 1
    assert (len(optimizer.weak_references), optimizer.stats().cleanups) == (0, 1)
    assert thing


def test_cycles_of_pool_objects_are_collected(optimizer: MemoryOptimizer) -> None:
    """What the pools let go is gone with the same cleanup."""
    thing: Any = optimizer.create_object_pool("things", Thing).get()
    thing.self = thing
    optimizer.return_to_pool("things", thing)
    watched = weakref.ref(thing)
    del thing
    optimizer.trigger_memory_cleanup()
    assert watched() is None


def test_callbacks(optimizer: MemoryOptimizer, container: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """They get usage and cleanup of each shortage; one that fails harms no other; they can be taken off."""
    seen: list[MemoryPressure] = []

    def fail(_: MemoryPressure) -> None:
        raise ValueError("nobody is listening")

    optimizer.on_pressure(fail)
    remove = optimizer.on_pressure(seen.append)
    with caplog.at_level(logging.ERROR, "storescope.core"):
        cleanups(optimizer, container, [90, 95])
    assert [pressure.usage.percent for pressure in seen] == [90.0]
    assert seen[0].cleanup.pools == {}
    assert "nobody is listening" in caplog.text
    remove()
    remove()
    cleanups(optimizer, container, [10, 90])
    assert len(seen) == 1


def test_monitoring(optimizer: MemoryOptimizer, container: Machine) -> None:
    """Each shortage is noticed without anybody looking, once, until monitoring stops."""
    shortages: list[float] = []
    noticed = threading.Event()

    def note(pressure: MemoryPressure) -> None:
        shortages.append(pressure.usage.percent)
        noticed.set()

    optimizer.on_pressure(note)
    optimizer.start_monitoring(interval=0.005)
    assert "every 0.005 s" in repr(optimizer)
    for percent in (90, 95):
        noticed.clear()
        use(container, percent)
        assert noticed.wait(30)
        use(container, 10)
        until(lambda: optimizer._armed)
    optimizer.stop_monitoring()
    assert "not monitoring" in repr(optimizer)
    assert not named_threads(optimizer)
    assert shortages == [90.0, 95.0]


def until(true: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def named_threads(optimizer: MemoryOptimizer) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == f"storescope-{optimizer.name}"]


def test_a_monitor_is_started_once(optimizer: MemoryOptimizer) -> None:
    """A second start is an error, and after a stop it may start again."""
    optimizer.start_monitoring(30)
    (thread,) = named_threads(optimizer)
    assert thread.daemon
    with pytest.raises(CoreError, match="is monitoring already, every 30 s"):
        optimizer.start_monitoring(5)
    optimizer.stop_monitoring()
    optimizer.stop_monitoring()
    optimizer.start_monitoring(5)
    optimizer.close()
    assert not named_threads(optimizer)


def test_a_callback_may_stop_the_monitor(optimizer: MemoryOptimizer, container: Machine) -> None:
    """From within the monitor's own thread, which then ends."""
    closed = threading.Event()
    optimizer.on_pressure(lambda _: (optimizer.close(), closed.set()))
    use(container, 90)
    optimizer.start_monitoring(interval=0.005)
    assert closed.wait(30)
    until(lambda: not named_threads(optimizer))


def test_a_look_that_fails_does_not_end_the_monitor(
    optimizer: MemoryOptimizer, container: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next look is made."""
    noticed = threading.Event()
    optimizer.on_pressure(lambda _: noticed.set())
    optimizer.object_pools["odd"] = None  # type: ignore[assignment]
    use(container, 90)
    with caplog.at_level(logging.ERROR, "storescope.core"):
        optimizer.start_monitoring(interval=0.005)
        until(lambda: "could not look at memory" in caplog.text)
    del optimizer.object_pools["odd"]
    use(container, 10)
    until(lambda: optimizer._armed)
    use(container, 90)
    assert noticed.wait(30)


def test_the_monitor_keeps_no_optimizer_alive(container: Machine) -> None:
    """One that was dropped is gone, and its thread with it."""
    optimizer = MemoryOptimizer(root=container.root, name="dropped")
    callbacks = gc.callbacks[:]
    optimizer.start_monitoring(interval=0.005)
    (thread,) = named_threads(optimizer)
    watched = weakref.ref(optimizer)
    del optimizer
    thread.join(30)
    assert not thread.is_alive()
    assert watched() is None
    assert len(gc.callbacks) == len(callbacks) - 1


def test_pools(optimizer: MemoryOptimizer) -> None:
    """Objects are got and returned by the pool's name, with a reset of the caller's own."""
    optimizer.create_object_pool("results", dict, 1, reset=dict.clear)
    first = optimizer.get_from_pool("results")
    first["dirty"] = True
    optimizer.return_to_pool("results", first)
    assert optimizer.get_from_pool("results") is first
    assert first == {}
    with pytest.raises(NotFromPool):
        optimizer.return_to_pool("results", {})
    assert optimizer.get_stats()["object_pools"]["results"]["reuse_rate"] == 0.5


def test_names_of_pools(optimizer: MemoryOptimizer) -> None:
    """An unknown name is an error that names the known; a known one cannot be given again."""
    with pytest.raises(UnknownPool, match=r"^no object pool 'a' \(there are: none\)$"):
        optimizer.get_from_pool("a")
    pool = optimizer.create_object_pool("a", dict)
    optimizer.create_object_pool("b", dict)
    with pytest.raises(UnknownPool, match=r"^no object pool 'c' \(there are: 'a', 'b'\)$"):
        optimizer.return_to_pool("c", {})
    with pytest.raises(
        ValueError, match="name must be new, not 'a': there is <ObjectPool 'a': 0 idle of 100, 0 in use>"
    ):
        optimizer.create_object_pool("a", list)
    assert optimizer.object_pools["a"] is pool


def test_the_collector_is_tuned_and_given_back(container: Machine) -> None:
    """An assigned threshold or an argument counts, else it is the default; `close()` restores."""
    gc.set_threshold(700, 10, 10)
    with MemoryOptimizer(root=container.root) as optimizer:
        assert optimizer.gc_threshold == (10_000, 10, 10)
        assert optimizer.optimize_garbage_collection() == gc.get_threshold() == (10_000, 10, 10)
        optimizer.gc_threshold = (20_000, 10, 10)
        assert optimizer.optimize_garbage_collection() == (20_000, 10, 10)
        assert optimizer.optimize_garbage_collection((30_000, 10, 10)) == (30_000, 10, 10)
        with optimizer.defer_garbage_collection(200_000):
            assert gc.get_threshold()[0] >= 200_000
    assert gc.get_threshold() == (700, 10, 10)


def test_a_lower_threshold_is_warned_of_where_it_is_asked_for(optimizer: MemoryOptimizer) -> None:
    """The warning points at the caller's line."""
    gc.set_threshold(2000, 10, 10)
    with pytest.warns(RuntimeWarning, match="lowered from") as caught:
        optimizer.optimize_garbage_collection((700, 10, 10))
    assert [warning.filename for warning in caught] == [__file__]


def test_gc_pauses(optimizer: MemoryOptimizer) -> None:
    """They are recorded while an optimizer is open."""
    before = optimizer.gc_pauses(2).count
    gc.collect()
    after = optimizer.gc_pauses(2)
    assert after.count == before + 1
    assert 0 < after.p50 <= after.longest <= after.total


def test_a_closed_optimizer(container: Machine) -> None:
    """It does nothing any more, says so, and left nothing behind."""
    callbacks = gc.callbacks[:]
    optimizer = MemoryOptimizer(root=container.root, name="memory of the test")
    pool = optimizer.create_object_pool("results", dict)
    optimizer.start_monitoring(30)
    optimizer.close()
    optimizer.close()
    acts: list[Callable[[], object]] = [
        optimizer.monitor_memory_usage,
        optimizer.trigger_memory_cleanup,
        optimizer.start_monitoring,
        optimizer.optimize_garbage_collection,
        optimizer.defer_garbage_collection,
        lambda: optimizer.create_object_pool("more", dict),
        lambda: optimizer.get_from_pool("results"),
        pool.get,
    ]
    for act in acts:
        with pytest.raises(Closed, match="is closed"):
            act()
    assert gc.callbacks == callbacks
    assert repr(optimizer) == "<MemoryOptimizer 'memory of the test': closed, 1 pools, 0 cleanups>"
    optimizer.stop_monitoring()


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (
            lambda _: MemoryOptimizer(memory_threshold=0),
            ValueError,
            "memory_threshold must be above 0, not 0",
        ),
        (
            lambda _: MemoryOptimizer(memory_threshold=80),
            ValueError,
            "memory_threshold must be from 0 to 1, not 80",
        ),
        (
            lambda o: setattr(o, "memory_threshold", True),
            TypeError,
            "memory_threshold must be a number, not True",
        ),
        (lambda o: setattr(o, "memory_threshold", float("nan")), ValueError, "memory_threshold .* not nan"),
        (lambda _: MemoryOptimizer(hysteresis=1), ValueError, "hysteresis must be from 0 to 0.99, not 1"),
        (
            lambda _: MemoryOptimizer(hysteresis=-0.1),
            ValueError,
            "hysteresis must be from 0 to 0.99, not -0.1",
        ),
        (
            lambda o: setattr(o, "gc_threshold", [1]),
            TypeError,
            r"gc_threshold must be a tuple of three .*, not \[1\]",
        ),
        (
            lambda o: o.optimize_garbage_collection(()),
            TypeError,
            r"threshold must be a tuple of three .*, not \(\)",
        ),
        (
            lambda o: o.defer_garbage_collection(0).__enter__(),
            ValueError,
            "max_allocations must be 1 or more, not 0",
        ),
        (lambda o: o.start_monitoring(0), ValueError, "interval must be above 0, not 0"),
        (lambda o: o.start_monitoring(-1), ValueError, "interval must be above 0, not -1"),
        (lambda o: o.start_monitoring(float("nan")), ValueError, "interval must be above 0, not nan"),
        (lambda o: o.start_monitoring(float("inf")), ValueError, "interval must be from 0 to .*, not inf"),
        (lambda o: o.start_monitoring("1"), TypeError, "interval must be a number, not '1'"),
        (lambda o: o.on_pressure(5), TypeError, "callback must be callable, not 5"),
        (lambda o: o.create_object_pool("a", 5), TypeError, "factory must be callable, not 5"),
        (lambda o: o.create_object_pool(5, dict), TypeError, "name must be a text, not 5"),
        (lambda o: o.create_object_pool(None, dict), TypeError, "name must be a text, not None"),
        (lambda o: o.create_object_pool([], dict), TypeError, r"name must be a text, not \[\]"),
        (lambda o: o.create_object_pool("", dict), ValueError, "name must not be empty"),
        (lambda o: o.get_from_pool([]), TypeError, r"pool_name must be a text, not \[\]"),
        (lambda _: MemoryOptimizer(name=5), TypeError, "name must be a text, not 5"),  # type: ignore[arg-type]
        (lambda _: MemoryOptimizer(name=""), ValueError, "name must not be empty"),
        (lambda _: MemoryOptimizer(root=5), TypeError, "root must be a path, not 5"),  # type: ignore[arg-type]
        (
            lambda o: o.defer_garbage_collection(2**31),
            ValueError,
            "max_allocations must be 2147483647 or less, not 2147483648",
        ),
        (lambda o: o.create_object_pool("a", dict, 0), ValueError, "max_size must be 1 or more, not 0"),
    ],
)
def test_bad_arguments(
    optimizer: MemoryOptimizer, act: Callable[[MemoryOptimizer], object], error: type[Exception], message: str
) -> None:
    """Each error names the argument and its value, and nothing is changed."""
    users = pause_ring._users
    with pytest.raises(error, match=message):
        act(optimizer)
    assert pause_ring._users == users
    assert "not monitoring, 0 pools" in repr(optimizer)


def test_a_callback_may_be_registered_twice(optimizer: MemoryOptimizer, container: Machine) -> None:
    """Each registration has a remover of its own, which may be called again."""
    seen: list[MemoryPressure] = []
    first, second = optimizer.on_pressure(seen.append), optimizer.on_pressure(seen.append)
    cleanups(optimizer, container, [90])
    assert len(seen) == 2
    first()
    first()
    cleanups(optimizer, container, [0, 90])
    assert len(seen) == 3
    second()
    cleanups(optimizer, container, [0, 90])
    assert len(seen) == 3


def test_what_a_closed_optimizer_refuses(container: Machine) -> None:
    """It hands out nothing and registers nothing, and says that it is closed."""
    optimizer = MemoryOptimizer(root=container.root, name="done")
    optimizer.close()
    for act in (lambda: optimizer.on_pressure(print), lambda: optimizer.get_from_pool("any")):
        with pytest.raises(Closed, match="memory optimizer 'done' is closed"):
            act()


def test_closing_does_all_that_it_can(container: Machine) -> None:
    """A pool that cannot be closed is an error, after the rest has been given back."""

    class Broken(ObjectPool[Any]):
        def close(self) -> None:
            raise OSError("stuck")

    before, users = gc.get_threshold(), pause_ring._users
    optimizer = MemoryOptimizer(root=container.root)
    optimizer.object_pools["broken"] = Broken(dict)
    other = optimizer.create_object_pool("other", dict)
    optimizer.optimize_garbage_collection((50_000, 20, 20))
    with pytest.raises(OSError, match="stuck"):
        optimizer.close()
    assert other.closed
    assert (gc.get_threshold(), pause_ring._users) == (before, users)


def test_an_optimizer_that_is_dropped_gives_thresholds_back(container: Machine) -> None:
    """Whoever forgets to close it has the collector as it was, all the same."""
    before = gc.get_threshold()
    optimizer = MemoryOptimizer(root=container.root)
    optimizer.optimize_garbage_collection((50_000, 20, 20))
    del optimizer
    gc.collect()
    assert gc.get_threshold() == before


def test_a_closed_pool_is_created_again(optimizer: MemoryOptimizer) -> None:
    """Its name is free as soon as it is closed."""
    optimizer.create_object_pool("results", dict).close()
    again = optimizer.create_object_pool("results", dict)
    assert optimizer.object_pools == {"results": again}
    assert optimizer.get_from_pool("results") == {}


def test_the_examples_of_the_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/memory.md shows what works, and names every option."""
    page = (Path(__file__).parents[2] / "docs" / "memory.md").read_text("utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(example, {})
    assert float(capsys.readouterr().out) > 0
    for made in (MemoryOptimizer, ObjectPool):
        for option in inspect.signature(made).parameters:
            assert f"| `{option}` |" in page


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on_without_the_monitor() -> None:
    """It looks at itself, cleans up, starts a monitor of its own, and closes."""
    code = """
import os, threading
from storescope.core import MemoryOptimizer, ObjectPool
optimizer = MemoryOptimizer()
optimizer.create_object_pool("results", dict)
optimizer.return_to_pool("results", optimizer.get_from_pool("results"))
optimizer.start_monitoring(30)
held, done = threading.Event(), threading.Event()
def hold():
    with optimizer._lock:
        held.set()
        done.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    assert "not monitoring" in repr(optimizer)
    assert optimizer._process.pid == os.getpid()
    optimizer.monitor_memory_usage()
    optimizer.start_monitoring(30)
    cleaned = optimizer.trigger_memory_cleanup().pools["results"]
    optimizer.close()
    os._exit(cleaned + 6)
done.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), "every 30 s" in repr(optimizer))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7 True\n"
