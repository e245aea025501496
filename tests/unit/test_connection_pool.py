"""The pool for threads, over real TCP connections where a server matters."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tcp_server import Line, TCPServer, tcp_server

from storescope.core import OptimizedConnectionPool
from storescope.core.connections.pool_parts import LIMITS, Action
from storescope.core.errors import (
    ConnectFailed,
    NotFromPool,
    PoolClosed,
    PoolError,
    PoolTimeout,
    QueueFull,
    UsedAfterFork,
)

SECONDS = 10.0


class Thing:
    """A connection to nothing."""

    def __init__(self) -> None:
        self.alive = True
        self.users = 0

    def is_alive(self) -> bool:
        return self.alive

    def close(self) -> None:
        self.alive = False


@pytest.fixture
def server() -> Iterator[TCPServer]:
    with tcp_server() as running:
        yield running


def pool_of(server: TCPServer, *sizes: int, **options: Any) -> OptimizedConnectionPool:
    return OptimizedConnectionPool(None, *sizes, factory=lambda: Line(server.port), **options)


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def threads_of(name: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith(f"{name}-")]


def test_min_size_connections_are_opened_in_the_background(server: TCPServer) -> None:
    """Making a pool does not wait for them, `wait` does."""
    with pool_of(server, 3, 5) as pool:
        pool.wait(SECONDS)
        assert pool.stats().idle == 3
        assert server.comes_to(3)
    assert server.comes_to(0)


def test_making_a_pool_neither_fails_nor_blocks_while_the_server_is_away(server: TCPServer) -> None:
    """`wait` says why nothing is open, and the pool fills by itself once the server is back."""
    server.kill()
    with pool_of(server, 2, 4) as pool:
        with pytest.raises(ConnectFailed, match="ConnectionRefusedError") as failed:
            pool.wait(0.1)
        assert isinstance(failed.value.__cause__, ConnectionRefusedError)
        server.start()
        pool.wait(SECONDS)
        assert pool.stats().idle == 2


def test_those_who_wait_are_served_in_order_of_arrival() -> None:
    """The connection is handed to the first who came."""
    served: list[int] = []
    with OptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:

        def use(number: int) -> None:
            with pool.get_connection():
                served.append(number)

        with ThreadPoolExecutor(8) as executor, pool.get_connection():
            for number in range(8):
                executor.submit(use, number)
                until(lambda: pool.stats().waiting == number + 1)  # noqa: B023
    assert served == list(range(8))


def test_nobody_overtakes_those_who_wait() -> None:
    """Whoever gives a connection back and asks again at once gets it after the one who waits."""
    turns: list[str] = []
    with OptimizedConnectionPool(None, 1, 1, factory=Thing) as pool, ThreadPoolExecutor(1) as executor:

        def wait() -> None:
            with pool.get_connection(SECONDS):
                turns.append("waited")

        with pool.get_connection(SECONDS):
            future = executor.submit(wait)
            until(lambda: pool.stats().waiting == 1)
        with pool.get_connection(SECONDS):
            turns.append("came later")
        future.result(SECONDS)
        assert pool.stats().reused == pool.stats().checkouts - 1
    assert turns == ["waited", "came later"]


def test_the_connection_that_was_used_last_is_used_next() -> None:
    """So that those that are not needed can idle away."""
    with OptimizedConnectionPool(None, 3, 3, factory=Thing) as pool:
        pool.wait(SECONDS)
        with pool.get_connection(), pool.get_connection() as second:
            pass
        with pool.get_connection() as first:
            assert first is not second
        with pool.get_connection() as again:
            assert again is first


def test_a_dead_connection_is_replaced_and_never_handed_out() -> None:
    """Its flag is asked at each check-out and each return; the size is kept."""
    with OptimizedConnectionPool(None, 2, 2, factory=Thing) as pool:
        pool.wait(SECONDS)
        with pool.get_connection() as first, pool.get_connection() as second:
            pass
        first.alive = second.alive = False
        for _ in range(5):
            with pool.get_connection(SECONDS) as connection:
                assert connection.alive
                assert connection not in (first, second)
        until(lambda: pool.stats().idle == 2)
        with pool.get_connection() as third:
            third.alive = False
        until(lambda: pool.stats().idle == 2)
        assert pool.stats().invalid == 3


def test_a_connection_that_idled_is_pinged_in_the_background(server: TCPServer) -> None:
    """One that the server has dropped unnoticed is found and replaced before anybody asks for it."""
    with pool_of(server, 2, 2, validate_after=0.05) as pool:
        pool.wait(SECONDS)
        server.kill()
        server.start()
        until(lambda: pool.stats().invalid >= 2)
        until(lambda: pool.stats().idle == 2 and server.comes_to(2, 0))
        with pool.get_connection(SECONDS) as line:
            assert line.echo("hello") == "hello"


def test_a_server_that_freezes_costs_its_connections_and_nothing_else(
    server: TCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings that are not answered are given up; as soon as the server answers again all is well."""
    monkeypatch.setitem(LIMITS, Action.PING, 0.05)
    with pool_of(server, 1, 2, validate_after=0.02) as pool:
        pool.wait(SECONDS)
        server.answering.clear()
        until(lambda: pool.stats().invalid >= 2)
        server.answering.set()
        with pool.get_connection(SECONDS) as line:
            assert line.echo("hello") == "hello"
        assert pool.stats().total <= 2


def test_no_connection_is_lost_when_the_server_dies_under_load(server: TCPServer) -> None:
    """Callers see errors while it is away; then all is as before, on both sides of the wire."""
    answers: list[str] = []
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                with pool.get_connection(0.2) as line:
                    answers.append(line.echo("hello"))
            except (OSError, PoolError):
                stop.wait(0.01)

    with pool_of(server, 2, 4) as pool, ThreadPoolExecutor(8) as executor:
        workers = [executor.submit(work) for _ in range(8)]
        for _ in range(3):
            seen = len(answers)
            until(lambda: len(answers) > seen + 50)  # noqa: B023
            server.kill()
            time.sleep(0.05)
            server.start()
        seen = len(answers)
        until(lambda: len(answers) > seen + 50)
        stop.set()
        for worker in workers:
            worker.result(SECONDS)
        until(lambda: pool.stats().opening == 0)
        stats = pool.stats()
        assert stats.in_use == stats.waiting == 0
        assert 2 <= stats.idle == stats.total <= 4
        assert server.comes_to(stats.total)
    assert server.comes_to(0)
    assert stats.invalid > 0


def test_a_waiter_gets_the_reason_and_then_a_connection(server: TCPServer) -> None:
    """While the server is away, an error that names its cause at the caller's timeout; then the pool recovers."""
    with pool_of(server, 0, 2) as pool, ThreadPoolExecutor(1) as executor:
        server.kill()
        with pytest.raises(ConnectFailed, match=r"after 0\.05 s: \d+ attempts? to open one failed") as failed:
            pool.get_connection(0.05).__enter__()
        assert isinstance(failed.value.__cause__, ConnectionRefusedError)

        def ask() -> str:
            with pool.get_connection(SECONDS) as line:
                return str(line.echo("back"))

        future = executor.submit(ask)
        until(lambda: pool.stats().waiting == 1)
        server.start()
        assert future.result(SECONDS) == "back"
        assert pool.stats().timeouts == 1


def test_callers_wait_no_longer_than_they_would_though_opening_hangs() -> None:
    """A server that accepts and never answers costs a caller its timeout, and `close` its time for closing."""
    hangs = threading.Event()
    pool = OptimizedConnectionPool(None, 0, 1, factory=lambda: [hangs.wait(), Thing()][1])
    with pytest.raises(
        PoolTimeout, match=r"no connection of 'pool' after 0\.02 s \(0 in use, 1 opening, 1 waiting\)"
    ):
        pool.get_connection(0.02).__enter__()
    with pytest.raises(PoolTimeout):
        pool.get_connection(0).__enter__()
    hangs.set()
    with pool, pool.get_connection(SECONDS) as thing:
        assert thing.alive
    assert not thing.alive


def test_a_failing_attempt_is_made_again_and_pools_may_be_empty() -> None:
    """Whatever the factory raises, the place in the pool comes free."""
    failures: list[type[BaseException]] = [ValueError, SystemExit, KeyboardInterrupt]

    def factory() -> Thing:
        if failures:
            raise failures.pop(0)("not now")
        return Thing()

    with OptimizedConnectionPool(None, 0, 1, factory=factory) as pool:
        with pool.get_connection(SECONDS) as thing:
            assert thing.alive
        assert pool.stats().connect_errors == 3


def test_no_more_wait_than_may() -> None:
    """With `max_waiting` the next is turned away at once."""
    with (
        OptimizedConnectionPool(None, 1, 1, max_waiting=1, factory=Thing) as pool,
        ThreadPoolExecutor(1) as executor,
    ):
        with pool.get_connection(SECONDS):
            waiting = executor.submit(lambda: pool.release(pool.acquire(SECONDS)))
            until(lambda: pool.stats().waiting == 1)
            with pytest.raises(QueueFull):
                pool.acquire()
        waiting.result(SECONDS)
        assert pool.stats().rejected == 1


def test_idle_connections_above_min_size_are_closed(server: TCPServer) -> None:
    """After `max_idle_time`, and only those."""
    with pool_of(server, 1, 3, max_idle_time=0.05) as pool:
        with pool.get_connection(SECONDS), pool.get_connection(SECONDS), pool.get_connection(SECONDS):
            assert server.comes_to(3)
        assert server.comes_to(1)
        assert pool.stats().idle == 1


def test_connections_that_are_too_old_are_replaced(server: TCPServer) -> None:
    """After `max_lifetime`, in the background."""
    with pool_of(server, 1, 1, max_lifetime=0.05) as pool:
        until(lambda: server.accepted >= 3)
        with pool.get_connection(SECONDS) as line:
            assert line.echo("hello") == "hello"
        assert pool.stats().invalid == 0


def test_a_pool_can_be_resized(server: TCPServer) -> None:
    """What is missing is opened, what is too many is closed, in use when it comes back."""
    with pool_of(server, 1, 2) as pool:
        pool.resize(3, 4)
        assert server.comes_to(3)
        until(lambda: pool.stats().idle == 3)
        with pool.get_connection(), pool.get_connection():
            pool.resize(0, 1)
            assert server.comes_to(2)
            assert pool.stats().total == 2
        assert server.comes_to(1)
        until(lambda: pool.stats().total == 1)
        assert (pool.min_size, pool.max_size) == (0, 1)
        with pytest.raises(ValueError, match="min_size must be at most max_size, which is 1, not 2"):
            pool.resize(2, 1)


def test_close_waits_for_connections_in_use(server: TCPServer) -> None:
    """They may be used to their end; who waits is refused, and so is who comes."""
    pool = pool_of(server, 1, 1)
    with ThreadPoolExecutor(2) as executor:
        line = pool.acquire(SECONDS)
        waiting = executor.submit(pool.acquire, SECONDS)
        until(lambda: pool.stats().waiting == 1)
        closing = executor.submit(pool.close, SECONDS)
        until(lambda: pool.closed)
        assert isinstance(waiting.exception(SECONDS), PoolClosed)
        with pytest.raises(PoolClosed, match="'pool' is closed"):
            pool.acquire()
        assert line.echo("still here") == "still here"
        pool.release(line)
        closing.result(SECONDS)
    assert server.comes_to(0)
    pool.close()
    for use in (pool.acquire, pool.wait, pool.__enter__, lambda: pool.resize(1, 1)):
        with pytest.raises(PoolClosed):
            use()
    assert repr(pool) == (
        "<OptimizedConnectionPool 'pool': closed, 0 in use, 0 idle, 0 opening, 1 at most, 0 waiting>"
    )


def test_close_closes_what_does_not_come_back(server: TCPServer) -> None:
    """After its timeout; what ends later does no harm."""
    pool = pool_of(server, 2, 2)
    kept = pool.acquire(SECONDS)
    with pool.get_connection(SECONDS) as line:
        pool.close(0.01)
        assert not line.alive
        assert server.comes_to(0)
    pool.release(kept)
    assert pool.stats().created == pool.stats().closed
    until(lambda: not threads_of("pool"))


def test_only_what_was_handed_out_can_be_given_back() -> None:
    """Nothing foreign, nothing twice, and nothing that a `with` block holds."""
    with OptimizedConnectionPool(None, 1, 2, factory=Thing) as pool:
        thing = pool.acquire(SECONDS)
        pool.release(thing)
        with pytest.raises(NotFromPool, match="is not acquired from 'pool'"):
            pool.release(thing)
        with pytest.raises(NotFromPool):
            pool.release(Thing())
        with pool.get_connection() as held, pytest.raises(NotFromPool):
            pool.release(held)
        broken = pool.acquire()
        pool.release(broken, broken=True)
        until(lambda: not broken.alive)
        assert pool.stats().in_use == 0


def test_a_check_out_cannot_be_entered_inside_itself() -> None:
    """It can be used again afterwards."""
    with OptimizedConnectionPool(None, 1, 2, factory=Thing) as pool:
        checkout = pool.get_connection(SECONDS)
        with checkout:
            with pytest.raises(PoolError, match="this has a connection already"):
                checkout.__enter__()
            assert pool.stats().in_use == 1
        with checkout as thing:
            assert thing.alive
        assert pool.stats().in_use == 0


def test_a_check_out_is_for_one_thread_at_a_time() -> None:
    """While one waits with it another is refused at once; then it can be used again, also after a failure."""
    with OptimizedConnectionPool(None, 1, 1, factory=Thing) as pool, ThreadPoolExecutor(1) as executor:
        thing = pool.acquire(SECONDS)
        checkout = pool.get_connection(0.2)
        first = executor.submit(checkout.__enter__)
        until(lambda: pool.stats().waiting == 1)
        with pytest.raises(PoolError, match="this waits for a connection already"):
            checkout.__enter__()
        with pytest.raises(PoolTimeout):
            first.result(SECONDS)
        pool.release(thing)
        with checkout as again:
            assert again is thing


class Ambush:
    """A clock, which the pool reads in the middle of its work, where something may happen once."""

    def __init__(self) -> None:
        self.happen: Callable[[], Any] | None = None

    def __call__(self) -> float:
        happen = self.happen
        if happen is not None and threading.current_thread() is threading.main_thread():
            self.happen = None
            happen()
        return time.monotonic()


def test_a_signal_handler_may_ask_for_stats_and_is_refused_a_connection() -> None:
    """Wherever in the pool it interrupts: never a deadlock."""
    clock = Ambush()
    told: list[Any] = []
    with OptimizedConnectionPool(None, 1, 1, factory=Thing, clock=clock) as pool:
        pool.wait(SECONDS)

        def handler(*_: object) -> None:
            told.append(pool.stats().max_size)
            with pytest.raises(PoolError, match="signal handler or finalizer"):
                pool.acquire(SECONDS)
            with pytest.raises(PoolError, match="signal handler or finalizer"):
                pool.resize(1, 1)

        before = signal.signal(signal.SIGUSR1, handler)
        try:
            clock.happen = lambda: signal.raise_signal(signal.SIGUSR1)
            with pool.get_connection(SECONDS):
                pass
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert told == [1]


def test_a_signal_handler_may_close_the_pool() -> None:
    """It does not block in the middle of the pool's work; the closing goes on in the background."""
    clock = Ambush()
    pool = OptimizedConnectionPool(None, 1, 1, factory=Thing, clock=clock)
    pool.wait(SECONDS)
    before = signal.signal(signal.SIGUSR1, lambda *_: pool.close())
    try:
        clock.happen = lambda: signal.raise_signal(signal.SIGUSR1)
        with pool.get_connection(SECONDS) as thing:
            until(lambda: pool.closed)
    finally:
        signal.signal(signal.SIGUSR1, before)
    until(lambda: not thing.alive)
    pool.close()


def test_what_the_garbage_collector_gives_back_in_the_middle_of_something_comes_back() -> None:
    """A generator inside a block may be collected by any thread, also by one that is at work in the pool."""
    clock = Ambush()
    with OptimizedConnectionPool(None, 2, 2, factory=Thing, clock=clock) as pool:
        pool.wait(SECONDS)

        def rows() -> Iterator[Any]:
            with pool.get_connection(SECONDS):
                yield None

        generator = rows()
        next(generator)
        clock.happen = generator.close
        with pool.get_connection(SECONDS):
            assert clock.happen is None
        until(lambda: pool.stats().in_use == 0 and pool.stats().idle == 2)


def test_an_interrupt_at_the_end_of_a_block_loses_no_place() -> None:
    """Ctrl-C as a connection is given back reaches the caller, and the pool goes on."""
    clock = Ambush()
    with OptimizedConnectionPool(None, 1, 1, factory=Thing, clock=clock) as pool:

        def interrupt() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), pool.get_connection(SECONDS):
            clock.happen = interrupt
        with pool.get_connection(SECONDS) as thing:
            assert thing.alive


@pytest.mark.parametrize("error", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_flag_that_raises_anything_is_that_of_a_dead_connection(error: type[BaseException]) -> None:
    """Also where the pool itself asks: its thread goes on."""

    class Odd(Thing):
        odd = False

        def is_alive(self) -> bool:
            if self.odd:
                raise error
            return True

    with OptimizedConnectionPool(None, 1, 1, factory=Odd, validate_after=0.02) as pool:
        with pool.get_connection(SECONDS) as thing:
            pass
        thing.odd = True
        until(lambda: pool.stats().invalid == 1)
        with pool.get_connection(SECONDS) as another:
            assert another is not thing


@pytest.mark.parametrize("error", [ValueError, FileNotFoundError, PoolTimeout, ConnectFailed])
def test_a_connection_outlives_errors_that_are_not_its_own(error: type[Exception]) -> None:
    """It goes back, if its flag says that it is alive; the error goes on to the caller."""
    with OptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:
        with pytest.raises(error), pool.get_connection(SECONDS) as thing:
            raise error
        assert thing.alive
        assert pool.stats().idle == 1


@pytest.mark.parametrize(
    "error", [ConnectionResetError, EOFError, TimeoutError, KeyboardInterrupt, GeneratorExit]
)
def test_a_connection_on_which_something_may_be_under_way_is_closed(error: type[BaseException]) -> None:
    """After errors of the connection, timeouts and interruptions the next caller gets another."""
    with OptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:
        with pytest.raises(error), pool.get_connection(SECONDS) as thing:
            raise error
        until(lambda: not thing.alive)
        with pool.get_connection(SECONDS) as another:
            assert another is not thing


def test_an_interrupt_while_waiting_loses_no_connection() -> None:
    """Ctrl-C ends the waiting, leaves nobody in the queue, and the connection goes on to others."""
    with OptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:
        thing = pool.acquire(SECONDS)

        def interrupt() -> None:
            until(lambda: pool.stats().waiting == 1)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            pool.acquire(SECONDS)
        thread.join()
        assert pool.stats().waiting == 0
        pool.release(thing)
        with pool.get_connection(SECONDS) as again:
            assert again is thing


def test_many_threads_never_share_a_connection() -> None:
    """With threads switched all the time: exact counts, no two users of one, never more than `max_size`."""
    opened: list[Thing] = []

    def factory() -> Thing:
        opened.append(Thing())
        return opened[-1]

    def work() -> None:
        for number in range(150):
            with pool.get_connection(SECONDS) as thing:
                thing.users += 1
                assert thing.users == 1
                if number % 50 == 49:
                    thing.alive = False
                thing.users -= 1

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with OptimizedConnectionPool(None, 1, 3, factory=factory) as pool, ThreadPoolExecutor(6) as executor:
            for future in [executor.submit(work) for _ in range(6)]:
                future.result(60)
            until(lambda: pool.stats().opening == 0)
            stats = pool.stats()
    finally:
        sys.setswitchinterval(interval)
    assert stats.checkouts == 900
    assert stats.invalid == 18
    assert stats.in_use == 0
    assert stats.total <= 3
    assert stats.created == len(opened)
    assert not any(thing.alive for thing in opened)


def test_a_pool_that_is_dropped_ends(server: TCPServer) -> None:
    """Its thread ends and its connections are closed, though nobody closed it."""
    pool = pool_of(server, 2, 2, name="dropped")
    pool.wait(SECONDS)
    assert threads_of("dropped") == ["dropped-worker"]
    del pool
    gc.collect()
    assert server.comes_to(0)
    until(lambda: not threads_of("dropped"))


def test_an_idle_pool_costs_nothing(server: TCPServer) -> None:
    """Nothing turns round in the background, with the server there or away."""
    with pool_of(server, 2, 4) as pool:
        pool.wait(SECONDS)
        before = time.process_time()
        time.sleep(0.2)
        assert time.process_time() - before < 0.1
        server.kill()
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1


EXIT = """
import threading, time
from storescope.core import OptimizedConnectionPool
class Thing:
    def close(self): time.sleep(100)
busy = OptimizedConnectionPool(None, 1, 1, factory=Thing, name="busy")
busy.acquire(10)
threading.Thread(target=busy.acquire, args=(100,), daemon=True).start()
hangs = OptimizedConnectionPool(None, 1, 1, factory=lambda: time.sleep(100), name="hangs")
idle = OptimizedConnectionPool(None, 1, 1, factory=Thing, name="idle")
idle.wait(10)
print("end")
"""


def test_a_program_ends_with_open_pools() -> None:
    """Nothing waits at exit: not for connections in use or being opened, nor for closing them."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXIT], capture_output=True, check=False, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_cannot_use_the_pool_and_leaves_the_parents_connections_alone(
    server: TCPServer,
) -> None:
    """Each use raises UsedAfterFork; blocks that end in the child, and `close`, do nothing."""
    pool = pool_of(server, 2, 2)
    pool.wait(SECONDS)
    with pool.get_connection() as line, pool._lock:  # as another thread may have it at that moment
        child = os.fork()
        if child == 0:
            os._exit(_in_the_child(pool, line))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pool, pool.get_connection() as first, pool.get_connection() as second:
        assert [first.echo("a"), second.echo("b")] == ["a", "b"]
    assert pool.stats().created == 2


def _in_the_child(pool: OptimizedConnectionPool, line: Line) -> int:
    refused = 0
    for use in (pool.acquire, pool.wait, pool.stats, pool.__enter__, lambda: pool.release(line)):
        try:
            use()
        except UsedAfterFork:
            refused += 1
    pool.close()
    return 0 if refused == 5 and line.alive else 1


def test_a_block_that_a_child_leaves_is_not_given_back() -> None:
    """The parent goes on holding its connection, and the child's block ends without an error."""
    program = """
import os, warnings
warnings.simplefilter("ignore")
from storescope.core import OptimizedConnectionPool
with OptimizedConnectionPool(None, 1, 1, factory=type("Thing", (), {})) as pool:
    with pool.get_connection(10):
        child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        print(pool.stats().idle)
"""
    if hasattr(os, "fork"):
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=False, text=True, timeout=30
        )
        assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_size": -1}, ValueError, "min_size must be 0 or more, not -1"),
        ({"min_size": True}, TypeError, "min_size must be an integer, not True"),
        ({"min_size": 11}, ValueError, "min_size must be at most max_size, which is 10, not 11"),
        ({"max_size": 0}, ValueError, "max_size must be 1 or more, not 0"),
        ({"max_size": 2.0}, TypeError, "max_size must be an integer, not 2.0"),
        ({"max_idle_time": 0}, ValueError, "max_idle_time must be above 0, not 0"),
        ({"timeout": math.nan}, ValueError, "timeout must be 0 or more, not nan"),
        ({"max_lifetime": -1}, ValueError, "max_lifetime must be above 0, not -1"),
        ({"max_waiting": -1}, ValueError, "max_waiting must be 0 or more, not -1"),
        ({"validate_after": "1"}, TypeError, "validate_after must be a number, not '1'"),
        ({"name": 3}, TypeError, "name must be a text, not 3"),
        ({"factory": 3}, TypeError, "factory must be callable, not 3"),
        (
            {"factory": None},
            ValueError,
            "service_config must name a service where there is no factory, not None",
        ),
        ({"service_config": "localhost"}, TypeError, "service_config must be a dict, not str"),
        ({"clock": 1}, TypeError, "clock must be callable, not 1"),
    ],
)
def test_bad_options_are_refused_by_name_and_value(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Before any thread is started."""
    with pytest.raises(error, match=message.replace("(", r"\(")):
        OptimizedConnectionPool(**({"factory": Thing, "name": "bad"} | arguments))
    assert not threads_of("bad")


@pytest.mark.parametrize("timeout", [-1, math.nan, "1", True])
def test_bad_timeouts_are_refused(timeout: Any) -> None:
    """By `get_connection` itself, not when its block begins."""
    with OptimizedConnectionPool(None, 0, 1, factory=Thing) as pool:
        for use in (pool.get_connection, pool.acquire, pool.wait, pool.close):
            with pytest.raises((TypeError, ValueError), match="timeout must be"):
                use(timeout)
        assert pool.stats().created == 0


def test_coroutine_functions_are_refused() -> None:
    """They are for the asyncio pool, and so is a factory that turns out to give a coroutine."""

    async def connect() -> Thing:
        return Thing()

    with pytest.raises(TypeError, match="AsyncOptimizedConnectionPool takes those"):
        OptimizedConnectionPool(None, 0, 1, factory=connect)
    with (
        OptimizedConnectionPool(None, 0, 1, factory=lambda: asyncio.sleep(0)) as pool,
        pytest.raises(ConnectFailed, match="open gave a coroutine"),
    ):
        pool.acquire(0.1)


def test_connections_may_be_anything() -> None:
    """`is_alive`, `ping` and `close` are asked for where they are; one that fails to tell is dead."""
    with OptimizedConnectionPool(None, 1, 1, factory=object, validate_after=0.001) as pool:
        pool.wait(SECONDS)
        time.sleep(0.01)
        with pool.get_connection(SECONDS) as first:
            pass
        with pool.get_connection(SECONDS) as again:
            assert again is first

    class Broken(Thing):
        def is_alive(self) -> bool:
            raise OSError("no idea")

        def close(self) -> None:
            raise OSError("not even that")

    with (
        OptimizedConnectionPool(None, 0, 1, factory=Broken) as pool,
        pytest.raises(ConnectFailed, match="was dead as soon as it was open"),
    ):
        pool.acquire(0.1)
    assert pool.stats().created == pool.stats().closed > 0


def test_statistics_say_what_is_and_what_was() -> None:
    """The dict has the usual keys, `stats` all of it, and `repr` what is now."""
    with OptimizedConnectionPool({"some": "service"}, 1, 4, 60, factory=Thing, name="tools") as pool:
        pool.wait(SECONDS)
        assert (pool.name, pool.max_idle_time, pool.service_config) == ("tools", 60, {"some": "service"})
        with pool.get_connection(), pool.get_connection(SECONDS):
            assert repr(pool) == (
                "<OptimizedConnectionPool 'tools': 2 in use, 0 idle, 0 opening, 4 at most, 0 waiting>"
            )
            assert pool.get_stats() == {
                "active_connections": 2,
                "idle_connections": 0,
                "total_connections": 2,
                "max_size": 4,
                "min_size": 1,
                "usage_rate": 0.5,
                "created": 2,
                "reused": 0,
                "closed": 0,
                "timeouts": 0,
            }
        with pool.get_connection():
            time.sleep(0.01)
        stats = pool.stats()
        assert (stats.checkouts, stats.reused, stats.waited) == (3, 1, 1)
        assert stats.use_time >= 0.01
        assert stats.wait_time > 0
        assert stats.create_time >= 0
