"""Borrowing from an ObjectPool against building anew, by the object's size; and what the ring of pauses costs."""

from __future__ import annotations

import gc
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

from storescope.core.memory.gc_pauses import PauseRing
from storescope.core.memory.object_pool import ObjectPool
from tests.benchmarks.row import Row
from tests.guide import naive

ROUNDS = 15
#: From here on pooling a buffer has to pay.
PAYS_FROM = 256 * 1024
#: What recording one collection may cost, in microseconds.
RECORDING = 1.5
COLLECTIONS = 5_000


def rows() -> Iterator[Row]:
    """Measure small objects, buffers around the size from which pooling pays, contexts, and the garbage collector."""
    yield _compare("pool a dict of 2, against building it", lambda: {"data": None, "status": "ready"})
    for size in (16, 64, 256, 1024):
        yield _buffer(size * 1024, filled=False)
    yield _buffer(64 * 1024, filled=True)
    yield _buffer(1024 * 1024, filled=True)
    yield _compare("pool a TLS context", ssl.create_default_context, uses=3, target=0.01)
    yield _against_the_guide()
    yield _recording()


def _buffer(size: int, *, filled: bool) -> Row:
    content = bytes(size)

    def fill(buffer: bytearray) -> None:
        buffer[:] = content

    name = f"pool a bytearray of {size // 1024} KiB" + (", filled" if filled else "")
    target = 1.0 if size >= PAYS_FROM else None
    uses = max(20, 2**26 // size) if filled else 2000
    return _compare(name, lambda: bytearray(size), use=fill if filled else None, uses=uses, target=target)


def _compare(
    name: str,
    build: Callable[[], Any],
    *,
    use: Callable[[Any], None] | None = None,
    uses: int = 5000,
    target: float | None = None,
) -> Row:
    use = use or _nothing
    pool = ObjectPool(build, reset=_nothing)

    def borrow() -> None:
        with pool.borrow() as obj:
            use(obj)

    ours, floor = _best(uses, borrow, lambda: use(build()))
    return Row(name, ours, floor, target)


def _against_the_guide() -> Row:
    """Both with an object that has a `reset()`: what safety costs."""
    ours, theirs = ObjectPool(_Resettable), naive.ObjectPool(_Resettable)
    return Row("get and put, against the guide's pool", *_best(5000, _round(ours), _round(theirs)), None)


def _round(pool: Any) -> Callable[[], None]:
    get, put = pool.get, pool.put
    return lambda: put(get())


def _recording() -> Row:
    """What a collection costs more while its pause is recorded, in units of one microsecond."""
    ring = PauseRing()
    gc.disable()
    bare, recorded = [], []
    for _ in range(ROUNDS):
        bare.append(_microseconds(COLLECTIONS, lambda: gc.collect(0)))
        with ring:
            recorded.append(_microseconds(COLLECTIONS, lambda: gc.collect(0)))
    gc.enable()
    return Row(
        "record a pause of garbage collection, against 1 us", min(recorded) - min(bare), 1.0, RECORDING
    )


class _Resettable:
    def reset(self) -> None:
        pass


def _nothing(_: object) -> None:
    pass


def _best(times: int, ours: Callable[[], object], floor: Callable[[], object]) -> tuple[float, float]:
    """Time both in turn, so that whatever else the machine does falls on both, and return the best of each."""
    pairs = [(_microseconds(times, ours), _microseconds(times, floor)) for _ in range(ROUNDS)]
    return min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)


def _microseconds(times: int, work: Callable[[], object]) -> float:
    """Return the CPU time of this thread for one of many."""
    begin = time.thread_time_ns()
    for _ in range(times):
        work()
    return (time.thread_time_ns() - begin) / times / 1000
