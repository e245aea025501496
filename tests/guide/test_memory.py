"""The guide's program of memory and object pools, and what its own code gets wrong."""

from __future__ import annotations

import gc
import threading
import warnings
import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from guide import naive
from unit.machine import V2, Machine

from storescope.core import MemoryOptimizer, ObjectPool

#: Below what any process uses, so that every look finds too much.
NEXT_TO_NOTHING = 0.000001


def faulty(make: Any, reason: str, raises: type[BaseException] = AssertionError) -> Any:
    return pytest.param(make, marks=pytest.mark.xfail(strict=True, reason=reason, raises=raises), id="naive")


def optimizers(reason: str, raises: type[BaseException] = AssertionError) -> Any:
    ours = pytest.param(MemoryOptimizer, id="ours")
    return pytest.mark.parametrize("make", [faulty(naive.MemoryOptimizer, reason, raises), ours])


def pools(reason: str, raises: type[BaseException] = AssertionError) -> Any:
    ours = pytest.param(ObjectPool, id="ours")
    return pytest.mark.parametrize("make", [faulty(naive.ObjectPool, reason, raises), ours])


class Thing:
    """Something that can be referred to weakly."""


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Give every test the thresholds that CPython 3.13 starts with, and the process its own back."""
    before = gc.get_threshold()
    gc.set_threshold(2000, 10, 10)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture
def optimizer(request: pytest.FixtureRequest) -> Iterator[Any]:
    """An optimizer of either kind, closed at the end if it can be."""
    with ExitStack() as stack:
        made = request.getfixturevalue("make")()
        stack.callback(getattr(made, "close", int))
        yield made


def test_tuning_collects_and_freezes() -> None:
    """What is garbage by then is gone, and later collections pass over the rest."""
    thing: Any = Thing()
    thing.itself, gone = thing, weakref.ref(thing)
    frozen = gc.get_freeze_count()
    with MemoryOptimizer() as optimizer:
        gc.disable()
        try:
            del thing
            assert gone() is not None
            optimizer.optimize_garbage_collection()
        finally:
            gc.enable()
        assert gone() is None
        assert gc.get_freeze_count() > frozen + 1000


def test_the_program() -> None:
    """A pool of results is made and used, the collector is tuned, memory is looked at, and all is cleaned up."""
    memory_optimizer = MemoryOptimizer()
    memory_optimizer.optimize_garbage_collection()

    def create_result_object() -> dict[str, Any]:
        return {"data": None, "status": "ready"}

    memory_optimizer.create_object_pool("results", create_result_object, max_size=50)

    result = memory_optimizer.get_from_pool("results")
    assert result == {"data": None, "status": "ready"}
    memory_optimizer.return_to_pool("results", result)
    assert memory_optimizer.get_from_pool("results") is result
    memory_optimizer.return_to_pool("results", result)
    assert memory_optimizer.object_pools["results"].get_stats() == {
        "pool_size": 1,
        "created_count": 1,
        "reused_count": 1,
        "reuse_rate": 0.5,
    }

    usage = memory_optimizer.monitor_memory_usage()
    assert usage.keys() == {"rss", "vms", "percent"}
    assert 0 < usage["rss"] <= usage["vms"]
    assert 0 < usage["percent"] <= 100

    assert gc.get_threshold() == (10_000, 10, 10)
    assert memory_optimizer.memory_threshold == 0.8
    thing = memory_optimizer.weak_references["thing"] = Thing()
    memory_optimizer.trigger_memory_cleanup()
    assert memory_optimizer.object_pools["results"].get_stats()["pool_size"] == 0
    assert not memory_optimizer.weak_references
    assert thing
    memory_optimizer.close()


@pytest.mark.parametrize(
    "make",
    [
        faulty(lambda _: naive.MemoryOptimizer(), "looks at the host"),
        pytest.param(lambda root: MemoryOptimizer(root=root), id="ours"),
    ],
)
def test_percent_is_of_the_container(make: Any, tmp_path: Path) -> None:
    """What counts is how near the container is to its limit."""
    Machine(tmp_path, "0::/", V2).memory_is(limit=2**30, used=2**29)
    optimizer = make(tmp_path)
    percent = optimizer.monitor_memory_usage()["percent"]
    getattr(optimizer, "close", int)()
    assert percent == 50.0


@optimizers("looks only when asked", AttributeError)
def test_memory_is_watched_without_anybody_asking(make: Any, optimizer: Any) -> None:
    """Once monitoring has been started, a shortage is noticed and cleaned up by itself."""
    optimizer.memory_threshold = NEXT_TO_NOTHING
    forgotten = threading.Event()
    thing = optimizer.weak_references["thing"] = Thing()
    optimizer.start_monitoring(interval=0.01)
    optimizer.on_pressure(lambda _: forgotten.set())
    assert forgotten.wait(30)
    assert not optimizer.weak_references
    assert thing


@optimizers("cleans up at every look")
def test_one_shortage_is_one_cleanup(make: Any, optimizer: Any) -> None:
    """A second look at memory that is still short does not throw away again what was built up meanwhile."""
    optimizer.memory_threshold = NEXT_TO_NOTHING
    first, second = Thing(), Thing()
    optimizer.weak_references["first"] = first
    optimizer.monitor_memory_usage()
    optimizer.weak_references["second"] = second
    optimizer.monitor_memory_usage()
    assert dict(optimizer.weak_references) == {"second": second}


@optimizers("gives None", pytest.fail.Exception)
def test_an_unknown_pool_is_an_error(make: Any, optimizer: Any) -> None:
    """The error names the pools that there are."""
    optimizer.create_object_pool("results", dict)
    with pytest.raises(KeyError, match=r"no object pool 'result' \(there are: 'results'\)"):
        optimizer.get_from_pool("result")
    with pytest.raises(KeyError, match="results"):
        optimizer.return_to_pool("result", {})


@optimizers("never restores them")
def test_thresholds_are_restored(make: Any) -> None:
    """The collector works as before once the optimizer has been closed."""
    optimizer = make()
    optimizer.optimize_garbage_collection()
    getattr(optimizer, "close", int)()
    assert gc.get_threshold() == (2000, 10, 10)


@optimizers("goes back to (700, 10, 10)")
def test_collection_does_not_become_more_frequent(make: Any, optimizer: Any) -> None:
    """No threshold is lower than it was."""
    optimizer.optimize_garbage_collection()
    assert gc.get_threshold() >= (2000, 10, 10)


@optimizers("says nothing")
def test_a_threshold_that_is_asked_for_is_set_and_told_about(make: Any, optimizer: Any) -> None:
    """The user's own number counts, with one warning where it makes collection more frequent."""
    optimizer.gc_threshold = (700, 10, 10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.optimize_garbage_collection()
        optimizer.optimize_garbage_collection()
    assert gc.get_threshold() == (700, 10, 10)
    assert [str(each.message) for each in caught] == [
        "thresholds of garbage collection are lowered from (2000, 10, 10) to (700, 10, 10): it will run more often"
    ]


@pools("checks its size outside of any lock")
def test_two_threads_do_not_overfill_it(make: Any) -> None:
    """Two returns at one time leave no more idle objects than there may be."""
    both = threading.Barrier(2)

    class Slow:
        def reset(self) -> None:
            both.wait(30)

    pool = make(Slow, max_size=1)
    threads = [threading.Thread(target=pool.put, args=(each,)) for each in [pool.get(), pool.get()]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pool.get_stats()["pool_size"] == 1


@pools("takes it twice", pytest.fail.Exception)
def test_an_object_put_twice_is_not_handed_to_two(make: Any) -> None:
    """The second return is an error, and whoever comes next has the object for himself."""
    pool = make(dict)
    obj = pool.get()
    pool.put(obj)
    with pytest.raises(Exception, match="was returned before"):
        pool.put(obj)
    assert pool.get() is not pool.get()


@pools("lets the failure through")
def test_an_object_that_cannot_be_reset_is_discarded(make: Any) -> None:
    """The borrower is not troubled, and nobody is handed what may be dirty."""

    class Stuck:
        def reset(self) -> None:
            raise ValueError("still dirty")

    pool = make(Stuck)
    dirty = pool.get()
    troubled = False
    try:
        pool.put(dirty)
    except ValueError:
        troubled = True
    assert not troubled
    assert pool.get() is not dirty


@pools("takes anything", pytest.fail.Exception)
def test_objects_of_others_are_refused(make: Any) -> None:
    """What the pool did not make it does not hand out."""
    pool = make(lambda: {"from": "the pool"})
    with pytest.raises(Exception, match="not borrowed"):
        pool.put({"from": "elsewhere"})
    assert pool.get() == {"from": "the pool"}
