"""The ring of collection pauses: what it records from within the collector, and what readers make of it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storescope.core.memory.gc_pauses import Pause, PauseRing, pause_ring

Spans = list[tuple[int, int]]


@pytest.fixture(autouse=True)
def quiet_collector() -> Iterator[None]:
    """Have collections happen where a test asks for them, and nowhere else."""
    gc.disable()
    yield
    gc.enable()


class Clock:
    """Time that stands still until it is moved."""

    now = 1_000

    def __call__(self) -> int:
        return self.now


def record(
    ring: PauseRing, clock: Clock, start: int, end: int, generation: int = 0, collected: int = 0
) -> None:
    """Have the ring see one collection, as the collector tells of it."""
    info = {"generation": generation, "collected": collected, "uncollectable": 0}
    clock.now = start
    ring._record("start", info)
    clock.now = end
    ring._record("stop", info)


def a_ring(spans: Spans, capacity: int = 8) -> PauseRing:
    clock = Clock()
    ring = PauseRing(capacity, clock=clock)
    for start, end in spans:
        record(ring, clock, start, end)
    return ring


class Node:
    """Garbage that only a collection finds."""

    def __init__(self) -> None:
        self.me = self


def test_real_collections_are_recorded() -> None:
    """Each has its generation, what it freed, and times within those around it; nothing is recorded afterwards."""
    with PauseRing() as ring:
        for _ in range(5):
            Node()
        begin = time.perf_counter_ns()
        gc.collect()
        gc.collect(0)
        end = time.perf_counter_ns()
    gc.collect()
    full, young = ring.read().pauses
    assert (full.generation, young.generation) == (2, 0)
    assert full.collected >= 5
    assert begin <= full.start_ns < full.end_ns <= young.start_ns < young.end_ns <= end
    stats = ring.stats()
    assert (stats.count, ring.stats(2).count, ring.stats(1).count) == (2, 1, 0)
    assert 0 < stats.longest <= stats.total <= (end - begin) / 1e9


def test_pause_statistics() -> None:
    """Seconds, by generation and of all; quantiles are of pauses that happened."""
    clock = Clock()
    ring = PauseRing(clock=clock)
    for milliseconds in range(1, 101):
        record(
            ring, clock, milliseconds * 10**9, milliseconds * 10**9 + milliseconds * 10**6, milliseconds % 2
        )
    stats = ring.stats()
    assert (stats.count, stats.total, stats.longest) == (100, pytest.approx(5.05), 0.1)
    assert (stats.p50, stats.p95, stats.p99) == (0.05, 0.095, 0.099)
    assert (ring.stats(0).count, ring.stats(0).longest, ring.stats(1).longest) == (50, 0.1, 0.099)
    assert (ring.stats(2).count, ring.stats(2).p99) == (0, 0.0)
    shown = ring.get_stats()
    assert (shown["count"], shown["lost"], shown["generations"][0]["count"]) == (100, 0, 50)


def test_what_is_overwritten_is_counted() -> None:
    """The ring keeps the latest; number and sum stay those of all."""
    clock = Clock()
    ring = PauseRing(4, clock=clock)
    for number in range(1, 11):
        record(ring, clock, number * 100, number * 100 + number)
    reading = ring.read()
    assert [pause.start_ns for pause in reading.pauses] == [700, 800, 900, 1000]
    assert reading.lost == 6
    assert (ring.stats().count, ring.stats().total) == (10, pytest.approx(55e-9))
    assert repr(ring) == "<PauseRing 'gc': not recording, 10 pauses, 6 overwritten>"


def test_reading_goes_on_at_its_cursor() -> None:
    """Nothing is read twice, and what came and went between two readings is counted as lost."""
    clock = Clock()
    ring = PauseRing(4, clock=clock)
    record(ring, clock, 10, 11)
    first = ring.read()
    assert (len(first.pauses), first.lost, first.cursor) == (1, 0, ring.written)
    assert ring.read(first.cursor).pauses == ()
    for number in range(6):
        record(ring, clock, 100 + number, 101 + number)
    second = ring.read(first.cursor)
    assert [pause.start_ns for pause in second.pauses] == [102, 103, 104, 105]
    assert (second.lost, second.cursor) == (2, 7)


def test_overlap() -> None:
    """Pauses count with what of them lies between the two times, which end just before they touch."""
    ring = a_ring([(100, 200), (300, 400), (500, 600)])
    for (start, end), expected in {
        (0, 1000): (3, 300),
        (150, 350): (2, 100),
        (200, 300): (0, 0),
        (310, 320): (1, 10),
        (600, 900): (0, 0),
        (0, 50): (0, 0),
        (599, 600): (1, 1),
        (150, 150): (0, 0),
        (350, 150): (0, 0),
    }.items():
        number, seconds = ring.overlap(start, end)
        assert (number, round(seconds * 1e9)) == expected


def test_overlap_with_a_collection_that_runs() -> None:
    """Its part so far counts; once it has ended, it does not count twice."""
    clock = Clock()
    ring = PauseRing(clock=clock)
    clock.now = 100
    ring._record("start", {})
    assert ring.overlap(50, 150) == (1, 50e-9)
    assert ring.overlap(120, 150) == (1, 30e-9)
    assert ring.overlap(50, 90) == (0, 0.0)
    clock.now = 200
    ring._record("stop", {"generation": 2, "collected": 0})
    assert ring.overlap(50, 300) == (1, 100e-9)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20)), max_size=20),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_overlap_against_counting_by_hand(steps: Spans, start: int, length: int) -> None:
    """Whatever the pauses, the latest that the ring holds are added up exactly."""
    ends = count(1)
    now, spans = next(ends), []
    for gap, pause in steps:
        spans.append((now + gap, now + gap + pause))
        now += gap + pause
    parts = [min(end, start + length) - max(begin, start) for begin, end in spans[-8:]]
    number, seconds = a_ring(spans).overlap(start, start + length)
    assert number == sum(part > 0 for part in parts)
    assert seconds == pytest.approx(sum(part for part in parts if part > 0) / 1e9)


def test_the_entry_is_shared_and_taken_out_by_the_last() -> None:
    """However many install the ring there is one entry, and others' entries stay."""
    ring = PauseRing()
    before = gc.callbacks[:]
    for _ in range(3):
        ring.install()
    assert len(gc.callbacks) == len(before) + 1
    assert repr(ring) == "<PauseRing 'gc': recording, 0 pauses, 0 overwritten>"
    ring.uninstall()
    ring.uninstall()
    assert len(gc.callbacks) == len(before) + 1
    for _ in range(3):
        ring.uninstall()
    assert gc.callbacks == before
    ring.install()
    gc.callbacks.remove(ring._record)
    ring.uninstall()
    assert gc.callbacks == before


def test_the_ring_of_the_process() -> None:
    """There is one that all share."""
    assert isinstance(pause_ring, PauseRing)
    assert pause_ring.capacity == 4096


def test_installed_in_the_middle_of_a_collection() -> None:
    """An end without a beginning is no pause."""
    ring = PauseRing()

    def install(phase: str, info: dict[str, int]) -> None:
        if phase == "stop":
            ring.install()

    gc.callbacks.append(install)
    try:
        gc.collect()
    finally:
        gc.callbacks.remove(install)
    assert ring.written == 0
    gc.collect()
    assert ring.written == 1
    ring.uninstall()


def test_collections_inside_of_callbacks_and_finalizers() -> None:
    """Others' callbacks and finalizers that collect, too, disturb nothing: the collector runs once at a time."""

    def collects(phase: str, info: dict[str, int]) -> None:
        gc.collect()

    class Collecting(Node):
        def __del__(self) -> None:
            gc.collect()

    gc.callbacks.append(collects)
    try:
        with PauseRing() as ring:
            Collecting()
            gc.collect()
    finally:
        gc.callbacks.remove(collects)
    (pause,) = ring.read().pauses
    assert pause.start_ns < pause.end_ns


def test_the_entry_makes_nothing_that_the_collector_tracks() -> None:
    """It is called from inside of allocations, so it must not allocate containers itself."""
    ring = PauseRing(16)
    info = {"generation": 0, "collected": 3, "uncollectable": 0}
    phases = ["start", "stop"] * 500
    before = gc.get_count()[0]
    for phase in phases:
        ring._record(phase, info)
    assert gc.get_count()[0] - before < 5
    assert ring.written == 500


def interleaved(ring: PauseRing, read: Callable[[], None]) -> None:
    """Collect in one thread and read in another, switching as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ring:
            writer = threading.Thread(target=lambda: [gc.collect(0) for _ in range(3000)])
            writer.start()
            while writer.is_alive():
                read()
            writer.join()
    finally:
        sys.setswitchinterval(before)


def test_readers_never_see_a_pause_that_is_being_written() -> None:
    """Each pause that is read ends after it began and before the next, and none is read twice or missed untold."""
    ring = PauseRing(4)
    read: list[Pause] = []
    lost = cursor = 0

    def go_on() -> None:
        nonlocal lost, cursor
        reading = ring.read(cursor)
        cursor, lost = reading.cursor, lost + reading.lost
        read.extend(reading.pauses)

    interleaved(ring, go_on)
    go_on()
    assert len(read) + lost == ring.written == 3000
    assert all(pause.start_ns <= pause.end_ns for pause in read)
    assert all(before.end_ns <= after.start_ns for before, after in pairwise(read))


def test_totals_are_consistent_while_pauses_are_written() -> None:
    """A number of pauses always comes with the sum of just these, each one nanosecond of this clock."""
    ticks = count(1)
    ring = PauseRing(4, clock=lambda: next(ticks))
    torn = []

    def check() -> None:
        stats = ring.stats(0)
        if stats.count != round(stats.total * 1e9):
            torn.append(stats)

    interleaved(ring, check)
    assert not torn
    assert ring.stats(0).count == 3000


def test_overlap_beside_collections() -> None:
    """No span has more seconds of pauses than it has seconds."""
    ring = PauseRing(4)
    wrong = []

    def check() -> None:
        now = time.perf_counter_ns()
        _, seconds = ring.overlap(now - 10_000, now)
        if not 0 <= seconds <= 10e-6:
            wrong.append(seconds)

    interleaved(ring, check)
    assert not wrong


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: PauseRing(1), ValueError, "capacity must be 2 or more, not 1"),
        (lambda: PauseRing(True), TypeError, "capacity must be an integer, not True"),
        (lambda: PauseRing(clock=5), TypeError, "clock must be callable, not 5"),  # type: ignore[arg-type]
        (lambda: PauseRing().stats(3), ValueError, "generation must be 0, 1 or 2, not 3"),
        (lambda: PauseRing().stats(-1), ValueError, "generation must be 0 or more, not -1"),
        (lambda: PauseRing().read(-1), ValueError, "cursor must be 0 or more, not -1"),
    ],
)
def test_bad_arguments(act: Callable[[], object], error: type[Exception], message: str) -> None:
    """Each error names the argument and its value."""
    with pytest.raises(error, match=message):
        act()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_counts_its_own_pauses() -> None:
    """What the parent paused is not counted again; recording and cursors go on."""
    code = """
import gc, os
from storescope.core.memory.gc_pauses import pause_ring as ring
gc.disable()
ring.install()
gc.collect(); gc.collect(0)
cursor = ring.written
child = os.fork()
if not child:
    before = (ring.stats().count, len(ring.read().pauses), ring.overlap(0, 2**62)[0])
    gc.collect(1)
    reading = ring.read(cursor)
    assert [pause.generation for pause in reading.pauses] == [1], reading
    assert (ring.stats().count, ring.read(0).lost) == (1, 0)
    assert before == (0, 0, 0), before
    os._exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), ring.stats().count)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "7 2\n"
