"""What the sampler costs the process: parked, and at 100 Hz beside one busy thread and eight.

Beside it A/A runs, and a thread that wakes up as often and does nothing: what any sampler of this kind costs here.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator

from storescope.core.profiling.interpreter import SWITCH_INTERVAL
from storescope.core.profiling.sampler import Sampler
from tests.benchmarks.row import Row

ROUNDS = 15
#: Calls of the work in one run, by all threads together: about a second of CPU time.
CALLS = 400
TARGETS = {1: 1.03, 8: 1.10}
#: What two runs without a sampler may differ by; a parked one has to be within their spread.
PARKED_TARGET = 1.01

Run = Callable[[], float]


def rows() -> Iterator[Row]:
    """Measure the process's CPU time for a fixed amount of work, in interleaved runs."""
    for threads, target in TARGETS.items():
        yield from _compare(threads, target)


def _compare(threads: int, target: float) -> Iterator[Row]:
    with Sampler() as sampler:
        with sampler.operation("first"):
            time.sleep(0.02)  # so that its thread is there, to park
        runs: dict[str, Run] = {
            "": lambda: _cpu_seconds(threads, None),
            "A/A": lambda: _cpu_seconds(threads, None),
            "a thread that only wakes up": lambda: _beside_a_waker(sampler.period, threads),
            "parked": lambda: _parked(sampler, threads),
            "armed": lambda: _cpu_seconds(threads, sampler),
        }
        _cpu_seconds(threads, None)
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for number in range(ROUNDS):
            for name in list(runs) if number % 2 else reversed(runs):
                seconds[name].append(runs[name]())
    floor = seconds.pop("")
    several = f"{threads} busy thread{'s' if threads > 1 else ''}"
    bounds = {"parked": PARKED_TARGET, "armed": target}
    for name, taken in seconds.items():
        # Of runs side by side, since the machine is not the same from one minute to the next.
        ratio = statistics.median(ours / bare for ours, bare in zip(taken, floor, strict=True))
        bare = statistics.median(floor) * 1000
        yield Row(f"sampler, {several}: {name}", ratio * bare, bare, bounds.get(name), "ms")


def _beside_a_waker(period: float, threads: int) -> float:
    over = threading.Event()

    def wake() -> None:
        while not over.wait(period):
            pass

    waker = threading.Thread(target=wake)
    SWITCH_INTERVAL.shorten()
    waker.start()
    try:
        return _cpu_seconds(threads, None)
    finally:
        SWITCH_INTERVAL.restore()
        over.set()
        waker.join()


def _parked(sampler: Sampler, threads: int) -> float:
    while not sampler.stats().parked:
        time.sleep(0.01)
    return _cpu_seconds(threads, None)


def _cpu_seconds(threads: int, sampler: Sampler | None) -> float:
    """Return the CPU time of the process for the work, each thread's in an operation where there is a sampler."""

    def work() -> None:
        with sampler.operation("work") if sampler else contextlib.nullcontext():
            for _ in range(CALLS // threads):
                _step(12)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    begin = time.process_time()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.process_time() - begin


def _step(depth: int) -> int:
    """Do some Python below a stack of a usual depth."""
    if depth:
        return _step(depth - 1)
    total = 0
    for number in range(40_000):
        total += number % 7
    return total
