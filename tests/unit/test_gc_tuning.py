"""Thresholds of the collector: what is set over what, and what is given back."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storescope.core.errors import CoreError
from storescope.core.memory.gc_tuning import ROOMY, Tuning, deferred_collection


@pytest.fixture(scope="module", autouse=True)
def _garbage_of_others() -> None:
    gc.collect()


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Begin with the thresholds of CPython 3.10 to 3.12, and leave the process as it was."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture
def tuning() -> Iterator[Tuning]:
    made = Tuning()
    yield made
    made.restore()


@pytest.mark.parametrize(
    ("found", "set_to"),
    [
        ((700, 10, 10), (10_000, 10, 10)),
        ((2000, 10, 10), (10_000, 10, 10)),
        ((50_000, 5, 100), (50_000, 10, 100)),
        ((0, 10, 10), (0, 10, 10)),
    ],
)
def test_no_threshold_becomes_lower(
    tuning: Tuning, found: tuple[int, int, int], set_to: tuple[int, int, int]
) -> None:
    """By default each is (10_000, 10, 10) or what it was, whichever is rarer; 0, for never, stays."""
    gc.set_threshold(*found)
    assert tuning.apply() == gc.get_threshold() == set_to
    tuning.restore()
    assert gc.get_threshold() == found


def test_an_explicit_threshold_is_set_as_it_is(tuning: Tuning) -> None:
    """A rarer one is nothing to warn of, a more frequent one is, once."""
    assert tuning.apply((20_000, 20, 20)) == (20_000, 20, 20)
    with pytest.warns(RuntimeWarning, match=r"from \(20000, 20, 20\) to \(20000, 5, 20\)") as caught:
        tuning.apply((20_000, 5, 20))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert tuning.apply((20_000, 5, 20)) == (20_000, 5, 20)


def test_switching_collection_off_lowers_nothing(tuning: Tuning) -> None:
    """0 is rarer than any number, and any number is more frequent than 0."""
    assert tuning.apply((0, 10, 10)) == (0, 10, 10)
    with pytest.warns(RuntimeWarning, match="lowered"):
        tuning.apply((100_000, 10, 10))


def test_survivors_are_frozen_until_the_last_restore() -> None:
    """What lives on is passed over by collections; afterwards everything is as before."""
    first, second = Tuning(), Tuning()
    before = gc.get_freeze_count()
    first.apply()
    assert gc.get_freeze_count() > before + 1000
    second.apply()
    first.restore()
    assert gc.get_freeze_count() > before + 1000
    second.restore()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("frozen_by", ["before", "after"])
def test_what_the_application_froze_stays_frozen(frozen_by: str) -> None:
    """Who freezes himself, before or after, decides himself when to unfreeze."""
    tuning = Tuning()
    if frozen_by == "before":
        gc.freeze()
    tuning.apply()
    kept = [[] for _ in range(2000)]
    if frozen_by == "after":
        gc.freeze()
    tuning.restore()
    assert gc.get_freeze_count() > 1000
    assert len(kept) == 2000


def test_what_the_application_sets_meanwhile_stays(tuning: Tuning) -> None:
    """Thresholds that somebody set after us are not undone."""
    tuning.apply()
    gc.set_threshold(1234, 5, 6)
    tuning.restore()
    assert gc.get_threshold() == (1234, 5, 6)


def test_a_later_tuning_is_laid_over_what_the_application_set(tuning: Tuning) -> None:
    """And gives it back."""
    tuning.apply()
    gc.set_threshold(1234, 5, 6)
    assert tuning.apply() == (10_000, 10, 10)
    tuning.restore()
    assert gc.get_threshold() == (1234, 5, 6)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_tunings_may_be_restored_in_any_order(order: tuple[int, ...]) -> None:
    """The latest that is left is in force, and after the last one what was there at first."""
    wishes = [(5_000, 10, 10), (6_000, 10, 10), (7_000, 10, 10)]
    tunings = [Tuning() for _ in wishes]
    for tuning, wish in zip(tunings, wishes, strict=True):
        tuning.apply(wish)
    left = dict(enumerate(wishes))
    for index in order:
        tunings[index].restore()
        tunings[index].restore()
        del left[index]
        assert gc.get_threshold() == (max(left.values()) if left else (700, 10, 10))


def automatic_collections(make: Callable[[], object]) -> int:
    """Return how many collections began while `make` ran."""
    seen = []

    def note(phase: str, info: dict[str, int]) -> None:
        seen.append(phase)

    gc.callbacks.append(note)
    try:
        make()
    finally:
        gc.callbacks.remove(note)
    return seen.count("start")


def allocate(number: int) -> list[list[int]]:
    return [[each] for each in range(number)]


def test_collection_is_deferred_and_comes_afterwards() -> None:
    """Within the block nothing is collected; right behind it the collector makes up for that."""
    gc.collect()
    assert automatic_collections(lambda: allocate(5000)) >= 5
    block = deferred_collection()
    block.__enter__()
    kept: list[list[int]] = []
    assert automatic_collections(lambda: kept.extend(allocate(20_000))) == 0

    def leave() -> None:
        block.__exit__(None, None, None)
        kept.extend(allocate(10))

    assert automatic_collections(leave) == 1
    assert gc.get_threshold() == (700, 10, 10)


def test_deferral_is_bounded() -> None:
    """After so many allocations the collector runs all the same, in the block."""
    gc.collect()
    with deferred_collection(max_allocations=5000):
        kept: Any = []
        assert automatic_collections(lambda: kept.extend(allocate(4000))) == 0
        assert automatic_collections(lambda: kept.extend(allocate(2000))) >= 1


def test_nested_and_overlapping_blocks() -> None:
    """The largest bound counts until the last block has ended, in whatever order they end."""
    gc.collect()
    outer, inner, other = (deferred_collection(bound) for bound in (50_000, 1_000, 80_000))
    outer.__enter__()
    inner.__enter__()
    assert 50_000 <= gc.get_threshold()[0] < 60_000
    other.__enter__()
    outer.__exit__(None, None, None)
    assert 80_000 <= gc.get_threshold()[0] < 90_000
    other.__exit__(None, None, None)
    assert 1_000 <= gc.get_threshold()[0] < 10_000
    inner.__exit__(None, None, None)
    assert gc.get_threshold() == (700, 10, 10)


def test_a_block_ends_with_an_error() -> None:
    """Thresholds are given back all the same."""
    with pytest.raises(ZeroDivisionError), deferred_collection():
        raise ZeroDivisionError
    assert gc.get_threshold() == (700, 10, 10)


def test_tuning_inside_of_a_block(tuning: Tuning) -> None:
    """The block goes on to defer, and the tuning is in force after it; likewise the other way round."""
    with deferred_collection():
        tuning.apply((5_000, 10, 10))
        assert gc.get_threshold()[0] >= 100_000
    assert gc.get_threshold() == (5_000, 10, 10)
    with deferred_collection():
        tuning.restore()
        assert gc.get_threshold()[0] >= 100_000
    assert gc.get_threshold() == (700, 10, 10)


def test_the_application_s_word_counts_inside_of_a_block() -> None:
    """What it sets there stays, also when the block ends."""
    with deferred_collection():
        gc.set_threshold(1234, 5, 6)
        with deferred_collection():
            assert gc.get_threshold()[0] >= 100_000
        assert gc.get_threshold() == (1234, 5, 6)
    assert gc.get_threshold() == (1234, 5, 6)


def test_a_disabled_collector_stays_disabled() -> None:
    """Whether by `gc.disable()` or by a threshold of 0, and also if that happens inside of the block."""
    try:
        gc.disable()
        with deferred_collection():
            assert not gc.isenabled()
        assert not gc.isenabled()
        gc.enable()
        with deferred_collection():
            gc.disable()
        assert not gc.isenabled()
    finally:
        gc.enable()
    gc.set_threshold(0, 10, 10)
    with deferred_collection():
        assert gc.get_threshold() == (0, 10, 10)
    assert gc.get_threshold() == (0, 10, 10)


def test_a_rarer_threshold_of_the_application_is_not_lowered() -> None:
    """A block never makes collection more frequent."""
    gc.set_threshold(200_000, 10, 10)
    with deferred_collection(100):
        assert gc.get_threshold() == (200_000, 10, 10)


def test_many_threads_defer() -> None:
    """Whatever their order, what was there before is there afterwards."""
    started = threading.Barrier(8)

    def work(me: int) -> None:
        started.wait(30)
        for _ in range(200):
            with deferred_collection(1000 * (me + 1)), deferred_collection():
                pass

    threads = [threading.Thread(target=work, args=(me,)) for me in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert gc.get_threshold() == (700, 10, 10)


@pytest.fixture
def frozen() -> None:
    """Have collections pass over what the tests before have left, which is most of their time."""
    gc.freeze()


@pytest.mark.usefixtures("frozen")
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 5), max_size=20))
def test_wishes_come_and_go_in_any_order(steps: list[int]) -> None:
    """The thresholds are always those of the application with what is laid over them; in the end its own."""
    gc.set_threshold(700, 10, 10)
    own, tuned, blocks = 700, False, 0
    tuning = Tuning()
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        open_blocks: list[ExitStack] = []
        for step in steps:
            if step == 0:
                own, tuned, blocks = 700 + own % 7 + 1, False, 0
                gc.set_threshold(own, 10, 10)
            elif step == 1:
                tuning.apply()
                tuned = True
            elif step == 2:
                tuning.restore()
                tuned = False
            elif step < 5 or not open_blocks:
                open_blocks.append(stack.enter_context(ExitStack()))
                open_blocks[-1].enter_context(deferred_collection(10_000_000))
                blocks += 1
            else:
                open_blocks.pop().close()
                blocks = max(blocks - 1, 0)
            if blocks == 0:
                assert gc.get_threshold()[0] == (ROOMY[0] if tuned else own)
            else:
                assert gc.get_threshold()[0] >= 10_000_000
        tuning.restore()
    assert gc.get_threshold() == (own, 10, 10)


@pytest.mark.parametrize(
    ("threshold", "error", "message"),
    [
        ([700, 10, 10], TypeError, r"threshold must be a tuple of three integers, not \[700, 10, 10\]"),
        ((700, 10), TypeError, r"threshold must be a tuple of three integers, not \(700, 10\)"),
        (700, TypeError, "threshold must be a tuple of three integers, not 700"),
        ((700, True, 10), TypeError, r"threshold\[1\] must be an integer, not True"),
        ((700, 10, float("nan")), TypeError, r"threshold\[2\] must be an integer, not nan"),
        ((-1, 10, 10), ValueError, r"threshold\[0\] must be 0 or more, not -1"),
        ((2**31, 10, 10), ValueError, r"threshold\[0\] must be 2147483647 or less, not 2147483648"),
        ((10, 2**40, 10), ValueError, r"threshold\[1\] must be 2147483647 or less, not 1099511627776"),
    ],
)
def test_bad_thresholds(tuning: Tuning, threshold: Any, error: type[Exception], message: str) -> None:
    """Each error names the argument and its value, and nothing is changed."""
    with pytest.raises(error, match=message):
        tuning.apply(threshold)
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize(
    ("bound", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), (2**31, ValueError)],
)
def test_bad_bounds(bound: Any, error: type[Exception]) -> None:
    """A block that defers nothing is a mistake."""
    with pytest.raises(error, match=f"max_allocations must be .*, not {bound}"), deferred_collection(bound):
        pass


def test_the_largest_bound_is_one_of_the_collector() -> None:
    """It may be asked for, although something was allocated before; and nothing stays behind."""
    with deferred_collection(2**31 - 1):
        assert gc.get_threshold() == (2**31 - 1, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)
    with deferred_collection():
        assert gc.get_threshold()[0] >= 100_000


def test_a_refused_tuning_leaves_the_others_alone(tuning: Tuning) -> None:
    """What cannot be set is not remembered either."""
    with pytest.raises(ValueError, match="max_allocations"):
        deferred_collection(2**31)
    with pytest.raises(ValueError, match="threshold"):
        tuning.apply((2**31, 10, 10))
    assert tuning.apply() == (10_000, 10, 10)


def test_a_deferral_is_for_one_block() -> None:
    """A second use is an error that says so, within the first or after it."""
    block = deferred_collection()
    with block, pytest.raises(CoreError, match="for one block"), block:
        pass
    with pytest.raises(CoreError, match="for one block"), block:
        pass
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_ends_what_nobody_will_end_there() -> None:
    """Blocks of threads that the child does not have are over; its own goes on and ends as usual."""
    code = """
import gc, os, threading
from storescope.core.memory.gc_tuning import deferred_collection
gc.set_threshold(700, 10, 10)
inside, done = threading.Event(), threading.Event()
def other():
    with deferred_collection(5_000_000):
        inside.set()
        done.wait()
threading.Thread(target=other, daemon=True).start()
inside.wait()
with deferred_collection(200_000):
    child = os.fork()
    if not child:
        assert 200_000 <= gc.get_threshold()[0] < 300_000, gc.get_threshold()
if not child:
    os._exit(7 if gc.get_threshold() == (700, 10, 10) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), gc.get_threshold()[0] >= 5_000_000)
done.set()
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "7 True\n"
