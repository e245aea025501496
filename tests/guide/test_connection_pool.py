"""The guide's pool of connections: its program on a real server, and what its own code gets wrong."""

from __future__ import annotations

import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from guide import naive
from tcp_server import tcp_server

from storescope.core import OptimizedConnectionPool

SECONDS = 10.0


def test_a_hundred_operations_of_ten_threads_go_through_the_pool() -> None:
    """The program of the guide, on a server: every operation is answered, with no more connections than allowed."""
    with tcp_server() as server:
        pool = OptimizedConnectionPool(
            service_config=server.config, min_size=3, max_size=15, max_idle_time=600
        )

        def use_connection(pool: OptimizedConnectionPool, operation_id: int) -> str:
            try:
                with pool.get_connection() as conn:
                    conn.sendall(f"{operation_id}\n".encode())
                    time.sleep(0.01)
                    return f"Operation {conn.recv(100).decode().strip()} completed"
            except Exception as error:
                return f"Operation {operation_id} failed: {error}"

        with ThreadPoolExecutor(max_workers=10) as executor:
            futures = [executor.submit(use_connection, pool, i) for i in range(100)]
            results = [future.result() for future in futures]

        assert results == [f"Operation {number} completed" for number in range(100)]
        pool.wait(SECONDS)
        stats = pool.get_stats()
        assert set(stats) == set(naive.OptimizedConnectionPool({}).get_stats())
        assert stats["active_connections"] == 0
        assert 3 <= stats["total_connections"] <= stats["max_size"] == 15
        assert stats["created"] == server.accepted
        assert stats["reused"] + stats["created"] >= 100
        pool.close()
        assert server.comes_to(0)


#: The classes of naive pools, whose cleaners never end.
_naive_kinds: list[Any] = []


def ours(
    config: Any, *sizes: Any, connection_class: Callable[[], Any] = naive.MockConnection, **_cleaning: float
) -> Any:
    return OptimizedConnectionPool(config, *sizes, factory=connection_class)


def faulty(
    config: Any,
    *sizes: Any,
    connection_class: Callable[[], Any] = naive.MockConnection,
    cleaning: float = 0.01,
) -> Any:
    """Make a pool of a class of its own, which cleans that often: what it does then is to be seen within a minute."""
    members = {"connection_class": staticmethod(lambda _: connection_class()), "cleanup_interval": cleaning}
    kind: Any = type("Pool", (naive.OptimizedConnectionPool,), members)
    _naive_kinds.append(kind)
    return kind(config, *sizes)


def both(reason: str, raises: type[BaseException] = AssertionError) -> Any:
    """Naive, which fails for this reason with this error, and ours; connections are the same for both."""
    mark = pytest.mark.xfail(strict=True, reason=reason, raises=raises)
    naively = pytest.param(faulty, id="naive", marks=mark)
    return pytest.mark.parametrize("make", [naively, pytest.param(ours, id="ours")])


@pytest.fixture(autouse=True)
def seldom_cleaning() -> Iterator[None]:
    """Have the cleaners that a test leaves behind sleep: they would take the CPU from the tests that follow."""
    yield
    for kind in _naive_kinds:
        kind.cleanup_interval = 3600.0
    _naive_kinds.clear()


def until(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.005)
    return condition()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            naive.OptimizedConnectionPool,
            id="naive",
            marks=pytest.mark.xfail(strict=True, reason="its connections are mocks", raises=AttributeError),
        ),
        pytest.param(OptimizedConnectionPool, id="ours"),
    ],
)
def test_a_connection_leads_to_the_server(kind: Any) -> None:
    """What is sent on it arrives, and comes back."""
    with tcp_server() as server:
        server_pool = kind(server.config, 1, 2)
        with server_pool.get_connection(SECONDS) as connection:
            connection.sendall(b"hello\n")
            assert connection.recv(100) == b"hello\n"
        server_pool.close()


@both("an invalid connection is counted for ever", RuntimeError)
def test_connections_that_die_leave_their_places(make: Callable[..., Any]) -> None:
    """However many die while they idle, the pool goes on handing out live ones."""
    pool = make({}, 1, 3)
    for _ in range(10):
        with pool.get_connection(SECONDS) as connection:
            assert connection.alive
        connection.alive = False
    assert pool.get_stats()["total_connections"] <= 3


@both("the count is looked at outside the lock", RuntimeError)
def test_who_comes_while_the_last_connection_is_opened_waits_for_it(make: Callable[..., Any]) -> None:
    """Nobody is refused because another was quicker."""
    opening = threading.Event()

    def connect() -> naive.MockConnection:
        opening.set()
        time.sleep(0.2)
        return naive.MockConnection()

    pool = make({}, 0, 1, connection_class=connect)

    def use() -> None:
        with pool.get_connection(SECONDS):
            pass

    with ThreadPoolExecutor(2) as executor:
        first = executor.submit(use)
        assert opening.wait(SECONDS)
        second = executor.submit(use)
        first.result(SECONDS)
        second.result(SECONDS)


@both("cleaning heeds no min_size")
def test_min_size_connections_stay_open(make: Callable[..., Any]) -> None:
    """They may idle for as long as they like."""
    pool = make({}, 2, 4, 0.02)
    assert until(lambda: pool.get_stats()["idle_connections"] == 2, SECONDS)
    assert not until(lambda: pool.get_stats()["total_connections"] < 2, 0.2)


@both("cleaning is done once a minute")
def test_connections_that_idled_are_closed_in_time(make: Callable[..., Any]) -> None:
    """Within seconds, where `max_idle_time` is a fraction of one."""
    pool = make({}, 0, 3, 0.05, cleaning=60.0)
    with pool.get_connection(SECONDS), pool.get_connection(SECONDS):
        pass
    assert until(lambda: pool.get_stats()["total_connections"] == 0, 2.0)


@both("cleaning takes everything out of the queue", RuntimeError)
def test_an_idle_connection_can_be_had_at_any_time(make: Callable[..., Any]) -> None:
    """Cleaning hides none, not for a moment: whoever wants them all gets them without waiting."""
    pool = make({}, 50, 50, cleaning=0.0)
    assert until(lambda: pool.get_stats()["idle_connections"] == 50, SECONDS)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            with ExitStack() as stack:
                for _number in range(50):
                    stack.enter_context(pool.get_connection(0.0))
    finally:
        sys.setswitchinterval(interval)


@both("whoever asks again is quicker than those who wait")
def test_nobody_overtakes_those_who_wait(make: Callable[..., Any]) -> None:
    """A worker that asks again at once takes turns with the others."""
    pool = make({}, 1, 1)
    uses = [0, 0, 0, 0]
    together = threading.Barrier(4)

    def work(worker: int) -> None:
        together.wait(SECONDS)
        stop = time.monotonic() + 0.3
        while time.monotonic() < stop:
            with pool.get_connection(SECONDS):
                uses[worker] += 1
                time.sleep(0.001)

    with ThreadPoolExecutor(4) as executor:
        for future in [executor.submit(work, worker) for worker in range(4)]:
            future.result(SECONDS)
    assert max(uses) - min(uses) <= 4


@both("there is no close, and the cleaner never ends", AttributeError)
def test_a_pool_can_be_closed(make: Callable[..., Any]) -> None:
    """Its connections are closed, and no thread is left."""
    before = set(threading.enumerate())
    pool = make({}, 1, 1)
    with pool.get_connection(SECONDS) as connection:
        pass
    pool.close()
    assert not connection.alive
    assert until(lambda: set(threading.enumerate()) <= before, 2.0)


@both("the cleaner holds the pool for ever")
def test_a_pool_that_is_dropped_is_gone(make: Callable[..., Any]) -> None:
    """Its thread ends, and its connections are closed."""
    before = set(threading.enumerate())
    pool = make({}, 1, 1)
    with pool.get_connection(SECONDS) as connection:
        pass
    del pool
    gc.collect()
    assert until(lambda: set(threading.enumerate()) <= before, 1.0)
    assert not connection.alive


@both("a bare except swallows whatever comes", RuntimeError)
def test_an_interrupt_is_never_swallowed(make: Callable[..., Any]) -> None:
    """Ctrl-C while a connection is looked at reaches the caller, and loses nothing."""
    interrupted: list[int] = []

    class Interrupted(naive.MockConnection):
        def is_alive(self) -> bool:
            if len(interrupted) == 1:
                interrupted.append(2)
                raise KeyboardInterrupt
            return True

    pool = make({}, 1, 1, connection_class=Interrupted)
    with pool.get_connection(SECONDS):
        pass
    interrupted.append(1)
    with pytest.raises(KeyboardInterrupt), pool.get_connection(SECONDS):
        pass
    with pool.get_connection(SECONDS) as connection:
        assert connection.alive
