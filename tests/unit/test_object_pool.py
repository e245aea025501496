"""Objects that are used again: who has which, what is kept, and what happens to those that nobody returns."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storescope.core.errors import NotFromPool, PoolClosed, PoolError
from storescope.core.memory.object_pool import ObjectPool


class Thing:
    """An object that can be watched by a weak reference, and counts its resets."""

    def __init__(self) -> None:
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


#: One type whose objects can be watched by weak references, and two whose objects cannot.
KINDS = pytest.mark.parametrize(
    "factory", [Thing, dict, lambda: bytearray(10)], ids=["watched", "dict", "bytearray"]
)


def in_use(pool: ObjectPool[Any]) -> int:
    return pool.stats().in_use


@KINDS
def test_the_latest_returned_is_handed_out_next(factory: Callable[[], Any]) -> None:
    """An object goes round: what is warm in the processor's caches first."""
    pool: ObjectPool[Any] = ObjectPool(factory)
    first, second = pool.get(), pool.get()
    pool.put(first)
    pool.put(second)
    assert pool.get() is second
    assert pool.get() is first
    stats = pool.stats()
    assert (stats.idle, stats.in_use, stats.created, stats.reused, stats.reuse_rate) == (0, 2, 2, 2, 0.5)


def test_statistics_before_the_first_use() -> None:
    """A pool that did nothing has a rate of 0."""
    assert ObjectPool(dict).get_stats() == {
        "pool_size": 0,
        "created_count": 0,
        "reused_count": 0,
        "reuse_rate": 0.0,
    }


def test_repr_shows_what_it_holds() -> None:
    """Its name, the idle ones, those in use, and whether it is closed."""
    pool = ObjectPool(Thing, 5, name="things")
    kept = pool.get()
    pool.put(pool.get())
    assert repr(pool) == "<ObjectPool 'things': 1 idle of 5, 1 in use>"
    pool.close()
    assert repr(pool) == "<ObjectPool 'things': closed, 0 idle of 5, 1 in use>"
    assert kept


def test_borrow_returns_also_after_an_error() -> None:
    """However the block ends, the object is reset and back."""
    pool = ObjectPool(Thing)
    with pytest.raises(ZeroDivisionError), pool.borrow() as thing:
        raise ZeroDivisionError
    assert (thing.resets, pool.stats().idle) == (1, 1)


def test_borrows_may_be_nested() -> None:
    """Each block has an object of its own."""
    pool = ObjectPool(Thing)
    with pool.borrow() as outer, pool.borrow() as inner:
        assert outer is not inner
    assert pool.stats().idle == 2


@pytest.mark.parametrize("obj", [Thing(), {}, None, 5], ids=repr)
def test_a_foreign_object_is_refused(obj: object) -> None:
    """What was not borrowed here is no part of the pool, and changes nothing."""
    pool: ObjectPool[Any] = ObjectPool(Thing)
    with pytest.raises(NotFromPool, match="cannot take back an object that is not borrowed from it: <"):
        pool.put(obj)
    assert pool.stats().idle == 0


@KINDS
def test_a_second_return_is_refused(factory: Callable[[], Any]) -> None:
    """Also after the object has been handed to somebody else and come back."""
    pool: ObjectPool[Any] = ObjectPool(factory)
    obj = pool.get()
    pool.put(obj)
    with pytest.raises(NotFromPool, match="was returned before"):
        pool.put(obj)
    assert pool.get() is obj
    pool.put(obj)
    with pytest.raises(NotFromPool):
        pool.put(obj)


def test_a_return_inside_borrow_is_the_first_of_two() -> None:
    """Who gives an object back by hand must not leave the block too."""
    pool = ObjectPool(Thing)
    with pytest.raises(NotFromPool), pool.borrow() as thing:
        pool.put(thing)


def test_an_error_of_a_block_that_returned_its_object_is_the_user_s() -> None:
    """It is not replaced by that of the second return."""
    pool = ObjectPool(Thing)

    def fail(obj: Thing) -> None:
        pool.put(obj)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), pool.borrow() as obj:
        fail(obj)
    assert pool.stats().idle == 1


@pytest.mark.parametrize(("name", "error"), [(5, TypeError), (None, TypeError), ("", ValueError)])
def test_names_that_cannot_be(name: Any, error: type[Exception]) -> None:
    """A name is a text."""
    with pytest.raises(error, match="name must "):
        ObjectPool(dict, name=name)


def test_objects_are_told_apart_by_identity() -> None:
    """Objects that equal each other, or cannot be hashed, are different objects all the same."""
    pool: ObjectPool[Any] = ObjectPool(list)
    first, second = pool.get(), pool.get()
    assert first == second
    pool.put(first)
    with pytest.raises(NotFromPool):
        pool.put([])
    pool.put(second)
    assert pool.stats().idle == 2


def test_no_more_than_max_size_are_kept() -> None:
    """The rest is discarded, and does not stay alive."""
    pool = ObjectPool(Thing, max_size=2)
    things = [pool.get() for _ in range(5)]
    watched = [weakref.ref(each) for each in things]
    while things:
        pool.put(things.pop())
    stats = pool.stats()
    assert (stats.idle, stats.discarded, stats.in_use) == (2, 3, 0)
    assert sum(each() is not None for each in watched) == 2


def test_a_reset_of_the_caller_s_own() -> None:
    """`reset` is called instead of the object's own, and makes a dict fit for the next."""
    pool: ObjectPool[dict[str, int]] = ObjectPool(dict, reset=dict.clear)
    with pool.borrow() as obj:
        obj["left"] = 1
    assert pool.get() == {}
    with_both = ObjectPool(Thing, reset=lambda _: None)
    with with_both.borrow() as thing:
        pass
    assert thing.resets == 0


def test_a_failing_reset_discards(caplog: pytest.LogCaptureFixture) -> None:
    """The borrower hears nothing, the next gets a fresh object, and the log has the first failure."""

    def fail(_: Thing) -> None:
        raise ValueError("still dirty")

    pool = ObjectPool(Thing, reset=fail, name="things")
    with caplog.at_level(logging.WARNING, "storescope.core"):
        for _ in range(3):
            pool.put(pool.get())
    stats = pool.stats()
    assert (stats.idle, stats.in_use, stats.discarded, stats.reset_errors) == (0, 0, 3, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "object pool 'things' discards what it cannot reset"
    ]
    assert "still dirty" in caplog.text


def test_an_interrupted_reset_discards_and_goes_on_as_an_interrupt() -> None:
    """Ctrl-C in a reset reaches the caller, and the object is not handed out again."""

    def interrupt(_: Thing) -> None:
        raise KeyboardInterrupt

    pool = ObjectPool(Thing, reset=interrupt)
    with pytest.raises(KeyboardInterrupt):
        pool.put(pool.get())
    assert (pool.stats().idle, pool.stats().discarded) == (0, 1)


def test_a_failing_factory_leaks_nothing() -> None:
    """Its error is the caller's, and nothing is counted."""
    answers: list[Any] = [ValueError("no room"), Thing()]

    def factory() -> Thing:
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    pool = ObjectPool(factory)
    with pytest.raises(ValueError, match="no room"):
        pool.get()
    assert (pool.stats().created, pool.stats().in_use) == (0, 0)
    assert isinstance(pool.get(), Thing)


def test_a_factory_that_makes_one_object_twice_is_an_error() -> None:
    """One object is never handed to two borrowers, nor handed out while it lies idle."""
    shared = Thing()
    pool = ObjectPool(lambda: shared)
    pool.get()
    with pytest.raises(PoolError, match="made an object that is in the pool already"):
        pool.get()
    assert in_use(pool) == 1


def test_a_factory_that_borrows_from_its_own_pool() -> None:
    """It runs outside of the lock, and what it borrows is counted like everything."""
    parts: list[Thing] = []

    def factory() -> Thing:
        if not parts:
            parts.append(Thing())
            parts.append(pool.get())
        return Thing()

    pool = ObjectPool(factory)
    thing = pool.get()
    assert thing is not parts[1]
    assert (pool.stats().created, in_use(pool)) == (2, 2)


def test_a_reset_that_borrows_from_its_own_pool() -> None:
    """While an object is reset, it is neither borrowed nor idle."""
    seen: list[bool] = []

    def reset(thing: Thing) -> None:
        if seen:
            return
        seen.append(True)
        with pytest.raises(NotFromPool):
            pool.put(thing)
        with pool.borrow() as another:
            seen.append(another is not thing)

    pool = ObjectPool(Thing, reset=reset)
    pool.put(pool.get())
    assert seen == [True, True]
    assert (pool.stats().idle, pool.stats().in_use, pool.stats().reset_errors) == (2, 0, 0)


@KINDS
def test_what_is_dropped_is_forgotten(factory: Callable[[], Any]) -> None:
    """An object that its borrower lost is neither kept alive nor counted as in use."""
    pool: ObjectPool[Any] = ObjectPool(factory)
    kept = pool.get()
    pool.get()
    assert (in_use(pool), pool.stats().lost) == (1, 1)
    pool.put(kept)
    assert (pool.stats().idle, in_use(pool), pool.stats().lost) == (1, 0, 1)


def test_what_is_dropped_in_a_cycle_is_forgotten_when_it_is_collected() -> None:
    """The pool's own note of a borrowed object does not keep it alive."""
    pool = ObjectPool(Thing)
    thing: Any = pool.get()
    thing.self = thing
    del thing
    gc.collect()
    assert (in_use(pool), pool.stats().lost) == (0, 1)


def test_a_program_that_never_returns_its_dicts_does_not_grow() -> None:
    """Objects that cannot be watched are looked for when their number has doubled."""
    pool: ObjectPool[Any] = ObjectPool(dict)
    kept = [pool.get() for _ in range(10)]
    for _ in range(10_000):
        pool.get()
        assert len(pool._held) <= 100
    assert in_use(pool) == len(kept)


def test_a_pool_that_is_dropped_with_borrowed_objects() -> None:
    """Nothing in the objects that are still out keeps the pool alive."""
    pool = ObjectPool(Thing)
    out, watched = pool.get(), weakref.ref(pool)
    del pool
    assert watched() is None
    del out


def test_cleanup_drops_the_idle_ones() -> None:
    """It says how many, and leaves alone what is borrowed."""
    pool = ObjectPool(Thing)
    out, back, another = pool.get(), pool.get(), pool.get()
    pool.put(back)
    pool.put(another)
    assert (pool.cleanup(), pool.cleanup()) == (2, 0)
    pool.put(out)
    assert pool.get() is out


@pytest.mark.parametrize("returned", [True, False])
def test_destructors_run_outside_of_the_lock(returned: bool) -> None:
    """What the end of a dropped object waits for may use the pool, in whatever thread."""
    seen: list[int] = []

    class Asking:
        __slots__ = ()

        def __del__(self) -> None:
            thread = threading.Thread(target=lambda: seen.append(pool.stats().created))
            thread.start()
            thread.join(20)

    pool = ObjectPool(Asking)
    thing = pool.get()
    if returned:
        pool.put(thing)
    del thing
    begin = time.monotonic()
    assert pool.cleanup() == returned
    assert time.monotonic() - begin < 20
    assert seen == [1]


def test_a_closed_pool() -> None:
    """It hands out nothing, takes back what is borrowed without keeping it, and still refuses what is not."""
    with ObjectPool(Thing, name="things") as pool:
        thing = pool.get()
        pool.put(pool.get())
    with pytest.raises(PoolClosed, match="object pool 'things' is closed"):
        pool.get()
    with pytest.raises(PoolClosed):
        pool.borrow().__enter__()
    pool.put(thing)
    assert (pool.stats().idle, pool.stats().discarded) == (0, 1)
    with pytest.raises(NotFromPool):
        pool.put(thing)
    pool.close()


def test_a_pool_that_is_closed_while_an_object_is_made() -> None:
    """The object is not handed out by a pool that is closed by now."""

    def factory() -> Thing:
        pool.close()
        return Thing()

    pool = ObjectPool(factory)
    with pytest.raises(PoolClosed):
        pool.get()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"factory": 5}, TypeError, "factory must be callable, not 5"),
        ({"reset": "clear"}, TypeError, "reset must be callable, not 'clear'"),
        ({"max_size": 0}, ValueError, "max_size must be 1 or more, not 0"),
        ({"max_size": -1}, ValueError, "max_size must be 1 or more, not -1"),
        ({"max_size": True}, TypeError, "max_size must be an integer, not True"),
        ({"max_size": float("nan")}, TypeError, "max_size must be an integer, not nan"),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    """Each error names the argument and its value."""
    with pytest.raises(error, match=message):
        ObjectPool(**{"factory": dict, **options})


@KINDS
def test_threads_never_share_an_object(factory: Callable[[], Any]) -> None:
    """With threads switched as often as possible, each object has one borrower, and the counts are exact."""
    pool: ObjectPool[Any] = ObjectPool(factory, max_size=3)
    borrowed: dict[int, int] = {}
    shared = []

    def work(me: int) -> None:
        for _ in range(300):
            with pool.borrow() as obj:
                shared.append(borrowed.setdefault(id(obj), me) != me)
                del borrowed[id(obj)]

    threads = [threading.Thread(target=work, args=(me,)) for me in range(6)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    stats = pool.stats()
    assert not any(shared)
    assert stats.created + stats.reused == 6 * 300
    assert stats.created - stats.discarded == stats.idle <= 3
    assert (stats.in_use, stats.lost) == (0, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on_with_its_pool() -> None:
    """A lock that another thread held at the moment of the fork does not hang the child."""
    code = """
import os, threading
from storescope.core import ObjectPool
pool = ObjectPool(dict)
pool.put(pool.get())
held, done = threading.Event(), threading.Event()
def hold():
    with pool._lock:
        held.set()
        done.wait()
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if not child:
    with pool.borrow():
        os._exit(pool.stats().reused)
done.set()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"


class Model(RuleBasedStateMachine):
    """The pool against lists of what is idle and what is borrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: ObjectPool[Any] = ObjectPool(self.make, max_size=3)
        self.kind: Callable[[], Any] = dict
        self.idle: list[Any] = []
        self.out: list[Any] = []
        self.lost = 0

    def make(self) -> Any:
        return self.kind()

    @rule(kind=st.sampled_from([Thing, dict]))
    def get(self, kind: Callable[[], Any]) -> None:
        self.kind = kind
        expected = self.idle.pop() if self.idle else None
        obj = self.pool.get()
        assert expected is None or obj is expected
        assert all(obj is not each for each in self.out)
        self.out.append(obj)

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0, 50))
    def put(self, index: int) -> None:
        obj = self.out.pop(index % len(self.out))
        self.pool.put(obj)
        if len(self.idle) < 3:
            self.idle.append(obj)
        with pytest.raises(NotFromPool):
            self.pool.put(obj)

    @precondition(lambda self: self.out)
    @rule(index=st.integers(0, 50))
    def drop(self, index: int) -> None:
        del self.out[index % len(self.out)]
        self.lost += 1

    @rule()
    def clean(self) -> None:
        assert self.pool.cleanup() == len(self.idle)
        self.idle.clear()

    @invariant()
    def agrees(self) -> None:
        stats = self.pool.stats()
        assert (stats.idle, stats.in_use, stats.lost) == (len(self.idle), len(self.out), self.lost)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(0, 10))
def test_idle_ones_are_bounded(max_size: int, borrowed: int) -> None:
    """However many come back, `max_size` are kept."""
    pool = ObjectPool(Thing, max_size)
    for thing in [pool.get() for _ in range(borrowed)]:
        pool.put(thing)
    assert pool.stats().idle == min(max_size, borrowed)
