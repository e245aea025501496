"""What a connection out of the pool costs, and how the pool serves more threads than it has connections."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from typing import Any

from generic_connection_pool.threading import BaseConnectionManager
from generic_connection_pool.threading import ConnectionPool as GenericConnectionPool
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool as PsycopgPool
from sqlalchemy.pool import QueuePool

from storescope.core import OptimizedConnectionPool
from tests.benchmarks.row import Row
from tests.guide import naive

CONNECTIONS = 3
THREADS = 10
OPERATIONS = 200
OPERATION = 0.001
SECONDS = 0.6
CALLS = 2000
ROUNDS = 25

Borrow = Callable[[], AbstractContextManager[Any]]


class Connection:
    """The least that a pool of ours checks: a flag."""

    alive = True

    def is_alive(self) -> bool:
        return self.alive

    def close(self) -> None:
        """Nothing is open."""


class PsycopgConnection:
    """The least that psycopg_pool asks of a connection: a state to look at, and a block that does nothing."""

    class pgconn:  # noqa: N801
        transaction_status = TransactionStatus.IDLE

    _pool: Any = None

    @classmethod
    def connect(cls, *_: Any, **__: Any) -> PsycopgConnection:
        return cls()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


class Manager(BaseConnectionManager[str, Connection]):
    """How generic-connection-pool makes and looks at connections."""

    def create(self, endpoint: str, timeout: float | None = None) -> Connection:
        return Connection()

    def dispose(self, endpoint: str, conn: Connection, timeout: float | None = None) -> None: ...

    def check_aliveness(self, endpoint: str, conn: Connection, timeout: float | None = None) -> bool:
        return conn.is_alive()


def rows() -> Iterator[Row]:
    """Measure all pools in turn, each with three connections to nothing."""
    with ExitStack() as stack:
        pools = {name: make(stack) for name, make in POOLS.items()}
        uncontended = _medians(pools, _microseconds, ROUNDS)
        for peer, target in (("psycopg_pool", 0.45), ("the guide's", None)):
            name = f"with pool.get_connection(), against {peer}"
            yield Row(name, uncontended["ours"], uncontended[peer], target)
        makespans = _medians(pools, _makespan, 9)
        best = min(makespans[peer] for peer in PEERS)
        name = "10 threads on 3 connections, 200 x 1 ms, against the best peer"
        yield Row(name, makespans["ours"], best, 1.05, "ms")
        evenness = _medians({name: pools[name] for name in ("ours", *PEERS, "the guide's")}, _evenness, 5)
        for pool, ratio in evenness.items():
            name = f"most operations of a worker by fewest, {pool}"
            yield Row(name, ratio, 1.0, 1.05 if pool == "ours" else None, "x")


def _ours(stack: ExitStack) -> Borrow:
    pool = stack.enter_context(OptimizedConnectionPool(None, CONNECTIONS, CONNECTIONS, factory=Connection))
    pool.wait()
    return pool.get_connection


def _psycopg(stack: ExitStack) -> Borrow:
    pool = PsycopgPool(
        "",
        connection_class=PsycopgConnection,  # type: ignore[type-var]
        min_size=CONNECTIONS,
        max_size=CONNECTIONS,
        open=True,
    )
    stack.enter_context(closing(pool))
    pool.wait()
    return pool.connection


def _sqlalchemy(stack: ExitStack) -> Borrow:
    pool = QueuePool(Connection, pool_size=CONNECTIONS, max_overflow=0, reset_on_return=None)  # type: ignore[arg-type]
    stack.callback(pool.dispose)
    return lambda: closing(pool.connect())


def _generic(stack: ExitStack) -> Borrow:
    pool = GenericConnectionPool(Manager(), min_idle=CONNECTIONS, max_size=CONNECTIONS)
    stack.callback(pool.close)
    return lambda: pool.connection("here", 30)


def _guides(_: ExitStack) -> Borrow:
    return naive.OptimizedConnectionPool({}, CONNECTIONS, CONNECTIONS).get_connection


PEERS = ("psycopg_pool", "SQLAlchemy", "generic-connection-pool")
POOLS: dict[str, Callable[[ExitStack], Borrow]] = {
    "ours": _ours,
    "psycopg_pool": _psycopg,
    "SQLAlchemy": _sqlalchemy,
    "generic-connection-pool": _generic,
    "the guide's": _guides,
}


def _medians(pools: dict[str, Borrow], measure: Callable[[Borrow], float], rounds: int) -> dict[str, float]:
    """Measure each pool in turn, so that whatever else the machine does falls on all."""
    measured: dict[str, list[float]] = {name: [] for name in pools}
    for _ in range(rounds):
        for name, borrow in pools.items():
            measured[name].append(measure(borrow))
    return {name: statistics.median(values) for name, values in measured.items()}


def _microseconds(borrow: Borrow) -> float:
    begin = time.thread_time()
    for _ in range(CALLS):
        with borrow():
            pass
    return (time.thread_time() - begin) / CALLS * 1e6


def _makespan(borrow: Borrow) -> float:
    """Milliseconds that ten threads take for all operations; the least that is possible is 67."""
    left = iter(range(OPERATIONS))

    def work(_: int) -> None:
        for _number in left:
            with borrow():
                time.sleep(OPERATION)

    return _together(work) * 1e3


def _evenness(borrow: Borrow) -> float:
    """How many times as many operations the busiest worker does as the idlest."""
    done = [0] * THREADS

    def work(number: int) -> None:
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end:
            with borrow():
                done[number] += 1
                time.sleep(OPERATION)

    _together(work)
    return max(done) / max(min(done), 1)


def _together(work: Callable[[int], None]) -> float:
    """Seconds from the moment at which all threads are there to the end of the last."""
    begun: list[float] = []
    start = threading.Barrier(THREADS, action=lambda: begun.append(time.perf_counter()))

    def run(number: int) -> None:
        start.wait()
        work(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun[0]
