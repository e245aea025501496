"""What profiling adds to a call: the time only, one call in a hundred, and each, against a clock and the guide's."""

from __future__ import annotations

import argparse
import cProfile
import datetime
import fractions
import json
import pprint
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import Any

from storescope.core.profiling.profiler import PerformanceProfiler
from storescope.core.profiling.sampler import Sampler
from tests.benchmarks.row import Row
from tests.guide import naive

ROUNDS = 15
CALLS = 2_000
#: The guide's makes a text at every call.
CALLS_OF_NAIVE = 50
#: Of a bare cProfile's cost, and of the guide's.
TARGET, TARGET_OF_NAIVE = 1.2, 0.6


def rows() -> Iterator[Row]:
    """Measure in thread CPU time, without the function's own."""
    timed = PerformanceProfiler(mode="timing").profile_function("timed")(_work)
    seldom = PerformanceProfiler(every=100).profile_function("seldom")(_work)
    always = PerformanceProfiler().profile_function("always")(_format)
    guides = naive.PerformanceProfiler().profile_function("guide's")(_format)
    yield _compare("time a call, against two reads of a clock", timed, _by_hand(), CALLS)
    yield _compare("profile one call in 100, against the same", seldom, _by_hand(), CALLS)
    yield _compare("profile a call, against a bare cProfile", always, _bare, CALLS_OF_NAIVE, TARGET, _format)
    yield _compare(
        "profile a call, against the guide's", always, guides, CALLS_OF_NAIVE, TARGET_OF_NAIVE, _format
    )
    yield _compare("sample a call, against two reads of a clock", _sampled(), _by_hand(), CALLS)


def _called() -> None:
    pass


def _work() -> None:
    for _ in range(10):
        _called()


def _format() -> None:
    """Call many different functions, a hundred or so, as the client of a store does."""
    textwrap.fill(pprint.pformat({"path": "/srv", "names": [str(number) for number in range(30)]}, width=40))
    json.dumps([{"a": number} for number in range(5)], indent=1)
    datetime.datetime.strptime("2025-01-09", "%Y-%m-%d")  # noqa: DTZ007
    fractions.Fraction("3/7").limit_denominator(3)
    argparse.ArgumentParser(prog="x", add_help=False).parse_args([])


def _bare() -> None:
    profile = cProfile.Profile()
    profile.enable()
    _format()
    profile.disable()


def _by_hand() -> Callable[[], None]:
    durations: list[float] = []

    def call() -> None:
        begin = time.perf_counter()
        _work()
        durations.append(time.perf_counter() - begin)

    return call


def _sampled() -> Callable[[], None]:
    sampler = Sampler()

    def call() -> None:
        with sampler.operation("work"):
            _work()

    return call


def _compare(
    name: str,
    ours: Callable[[], Any],
    floor: Callable[[], Any],
    calls: int,
    target: float | None = None,
    plain: Callable[[], Any] = _work,
) -> Row:
    """Time both and the plain function in turn, and subtract the plain one from both, each at its best."""
    seconds = [[_microseconds(call, calls) for call in (ours, floor, plain)] for _ in range(ROUNDS)]
    best_of_ours, best_of_floor, bare = (min(column) for column in zip(*seconds, strict=True))
    return Row(name, best_of_ours - bare, best_of_floor - bare, target)


def _microseconds(call: Callable[[], Any], calls: int) -> float:
    begin = time.thread_time()
    for _ in range(calls):
        call()
    return (time.thread_time() - begin) / calls * 1e6
