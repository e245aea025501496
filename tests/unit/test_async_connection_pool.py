"""The pool for asyncio, over real TCP connections where a server matters."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tcp_server import AsyncLine, TCPServer, tcp_server

from storescope.core import AsyncOptimizedConnectionPool
from storescope.core.connections.pool_parts import LIMITS, Action
from storescope.core.errors import (
    ConnectFailed,
    NotFromPool,
    PoolClosed,
    PoolError,
    PoolTimeout,
    QueueFull,
    UsedAfterFork,
    WrongEventLoop,
)

SECONDS = 10.0


class Thing:
    """A connection to nothing, without a coroutine in it."""

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


def pool_of(server: TCPServer, *sizes: int, **options: Any) -> AsyncOptimizedConnectionPool:
    return AsyncOptimizedConnectionPool(
        None, *sizes, factory=lambda: AsyncLine.connect(server.port), **options
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other tasks do."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it never happened"
        await asyncio.sleep(0.002)


async def held(server: TCPServer, number: int) -> bool:
    return await asyncio.get_running_loop().run_in_executor(None, server.comes_to, number)


def test_connections_are_opened_in_the_background_shared_and_closed(server: TCPServer) -> None:
    """`min_size` at once, more when they are needed, none is left at the end."""

    async def main() -> None:
        async with pool_of(server, 2, 4) as pool:
            await pool.wait(SECONDS)
            assert pool.stats().idle == 2

            async def ask(number: int) -> str:
                async with pool.get_connection(SECONDS) as line:
                    return str(await line.echo(str(number)))

            assert await asyncio.gather(*map(ask, range(50))) == [str(number) for number in range(50)]
            assert pool.stats().in_use == 0
            assert 2 <= pool.stats().idle <= 4
            assert pool.get_stats()["reused"] >= 46
        assert await held(server, 0)

    asyncio.run(main())


def test_those_who_wait_are_served_in_order_of_arrival() -> None:
    """And whoever asks again at once is behind them."""
    served: list[int] = []

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:

            async def use(number: int) -> None:
                async with pool.get_connection(SECONDS):
                    served.append(number)

            async with pool.get_connection(SECONDS):
                tasks = [asyncio.create_task(use(number)) for number in range(5)]
                await until(lambda: pool.stats().waiting == 5)
            await use(5)
            await asyncio.gather(*tasks)

    asyncio.run(main())
    assert served == list(range(6))


def test_a_cancelled_waiter_leaves_the_queue() -> None:
    """The connection goes to the next."""

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:
            thing = await pool.acquire(SECONDS)
            first = asyncio.create_task(pool.acquire(SECONDS))
            second = asyncio.create_task(pool.acquire(SECONDS))
            await until(lambda: pool.stats().waiting == 2)
            first.cancel()
            await asyncio.wait([first])
            assert pool.stats().waiting == 1
            pool.release(thing)
            assert await second is thing
            pool.release(thing)

    asyncio.run(main())


def test_a_waiter_that_is_cancelled_as_it_is_handed_a_connection_loses_none() -> None:
    """The connection that was given back in the same step of the loop goes to the next, or idles."""

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:
            thing = await pool.acquire(SECONDS)
            first = asyncio.create_task(pool.acquire(SECONDS))
            second = asyncio.create_task(pool.acquire(SECONDS))
            await until(lambda: pool.stats().waiting == 2)
            pool.release(thing)
            first.cancel()
            await asyncio.wait([first])
            assert first.cancelled()
            assert await second is thing
            third = asyncio.create_task(pool.acquire(SECONDS))
            await until(lambda: pool.stats().waiting == 1)
            pool.release(thing)
            third.cancel()
            await asyncio.wait([third])
            assert pool.stats().idle == 1

    asyncio.run(main())


def test_no_cancellation_at_any_step_loses_a_connection() -> None:
    """Tasks are cancelled after any number of steps, inside their blocks and out of them."""

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 0, 2, factory=Thing) as pool:

            async def use() -> None:
                async with pool.get_connection(SECONDS) as thing:
                    thing.users += 1
                    assert thing.users == 1
                    await asyncio.sleep(0)
                    thing.users -= 1

            for steps in range(12):
                tasks = [asyncio.create_task(use()) for _ in range(6)]
                for _ in range(steps):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                done, _ = await asyncio.wait(tasks)
                assert not [task for task in done if not task.cancelled() and task.exception()]
                await until(lambda: pool.stats().opening == 0)
                stats = pool.stats()
                assert stats.in_use == stats.waiting == 0
                assert stats.total == stats.idle <= 2

    asyncio.run(main())


def test_a_cancelled_block_closes_its_connection(server: TCPServer) -> None:
    """An answer may be under way: the next caller must not read it."""

    async def main() -> None:
        async with pool_of(server, 1, 1) as pool:
            server.answering.clear()

            async def ask() -> None:
                async with pool.get_connection(SECONDS) as line:
                    await line.echo("late")

            task = asyncio.create_task(ask())
            await until(lambda: pool.stats().in_use == 1)
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait([task])
            server.answering.set()
            async with pool.get_connection(SECONDS) as line:
                assert await line.echo("mine") == "mine"
            assert pool.stats().created == 2

    asyncio.run(main())


def test_no_connection_is_lost_when_the_server_dies_under_load(server: TCPServer) -> None:
    """Callers see errors while it is away, those who wait see why; then all is as before."""

    async def main() -> None:
        answers: list[str] = []
        reasons: list[BaseException | None] = []
        stop = asyncio.Event()

        async def work() -> None:
            while not stop.is_set():
                try:
                    async with pool.get_connection(0.1) as line:
                        answers.append(await line.echo("hello"))
                except PoolError as error:
                    reasons.append(error.__cause__)
                except OSError:
                    await asyncio.sleep(0.01)

        async with pool_of(server, 2, 4) as pool:
            workers = [asyncio.create_task(work()) for _ in range(8)]
            for _ in range(2):
                seen = len(answers)
                await until(lambda: len(answers) > seen + 50)  # noqa: B023
                server.kill()
                known = len(reasons)
                await until(lambda: len(reasons) > known)  # noqa: B023
                server.start()
            seen = len(answers)
            await until(lambda: len(answers) > seen + 50)
            stop.set()
            await asyncio.gather(*workers)
            await until(lambda: pool.stats().opening == 0)
            stats = pool.stats()
            assert stats.in_use == stats.waiting == 0
            assert 2 <= stats.idle == stats.total <= 4
            assert await held(server, stats.total)
            assert any(isinstance(reason, ConnectionRefusedError) for reason in reasons)
        assert await held(server, 0)

    asyncio.run(main())


def test_a_server_that_freezes_costs_its_connections_and_nothing_else(
    server: TCPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pings that are not answered are cancelled; as soon as the server answers again all is well."""
    monkeypatch.setitem(LIMITS, Action.PING, 0.05)

    async def main() -> None:
        async with pool_of(server, 1, 2, validate_after=0.02) as pool:
            await pool.wait(SECONDS)
            server.answering.clear()
            await until(lambda: pool.stats().invalid >= 2)
            server.answering.set()
            async with pool.get_connection(SECONDS) as line:
                assert await line.echo("hello") == "hello"
            assert pool.stats().total <= 2
            assert not pool.closed

    asyncio.run(main())


class Impatient(AsyncLine):
    """Gives up a ping by cancelling its task, as anyio and asyncio.timeout do."""

    async def ping(self) -> None:
        task: Any = asyncio.current_task()
        timer = asyncio.get_running_loop().call_later(0.05, task.cancel)
        try:
            await super().ping()
        except asyncio.CancelledError:
            raise TimeoutError("no answer") from None
        finally:
            timer.cancel()


class Waited(AsyncLine):
    """Gives up a ping by asyncio's own means."""

    async def ping(self) -> None:
        await asyncio.wait_for(super().ping(), 0.05)


@pytest.mark.parametrize("kind", [Impatient, Waited])
def test_a_ping_that_gives_up_by_itself_does_not_close_the_pool(
    server: TCPServer, kind: type[AsyncLine]
) -> None:
    """A frozen server costs the connections to it; the pool goes on as soon as it answers."""

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(
            None, 1, 2, factory=lambda: kind.connect(server.port), validate_after=0.02
        ) as pool:
            await pool.wait(SECONDS)
            server.answering.clear()
            await until(lambda: pool.closed or pool.stats().invalid >= 2)
            server.answering.set()
            async with pool.get_connection(SECONDS) as line:
                assert await line.echo("hello") == "hello"

    asyncio.run(main())


def test_a_check_out_is_for_one_task_at_a_time() -> None:
    """While one waits with it the others are refused at once; then it can be used again."""

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 1, 1, factory=Thing) as pool:
            thing = await pool.acquire(SECONDS)
            checkout = pool.get_connection(SECONDS)
            first = asyncio.create_task(checkout.__aenter__())
            await until(lambda: pool.stats().waiting == 1)
            with pytest.raises(PoolError, match="this waits for a connection already"):
                await checkout.__aenter__()
            pool.release(thing)
            assert await first is thing
            await checkout.__aexit__(None)
            async with checkout as again:
                assert again is thing

    asyncio.run(main())


def test_outside_of_an_event_loop_the_pool_says_so() -> None:
    """Resizing it there is refused by name."""
    pool = AsyncOptimizedConnectionPool(None, 1, 1, factory=Thing)
    with pytest.raises(WrongEventLoop, match="where no event loop runs"):
        pool.resize(1, 1)


def test_what_idles_is_pinged_closed_and_replaced(server: TCPServer) -> None:
    """The timer does what the threads' worker does."""

    async def main() -> None:
        async with pool_of(server, 1, 3, validate_after=0.05, max_idle_time=0.1) as pool:
            async with pool.get_connection(SECONDS), pool.get_connection(SECONDS):
                assert await held(server, 2)
            assert await held(server, 1)
            server.kill()
            server.start()
            await until(lambda: pool.stats().invalid >= 1 and len(server.open) == pool.stats().idle == 1)
            async with pool.get_connection(SECONDS) as line:
                assert await line.echo("hello") == "hello"

    asyncio.run(main())


def test_opening_that_hangs_is_cancelled_at_the_end() -> None:
    """Callers wait no longer than they would; `close` cancels what is under way."""
    cancelled: list[bool] = []

    async def connect() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 0, 1, factory=connect) as pool:
            with pytest.raises(PoolTimeout, match=r"after 0\.01 s \(0 in use, 1 opening, 1 waiting\)"):
                await pool.acquire(0.01)
            with pytest.raises(PoolTimeout):
                await pool.acquire(0)
        assert cancelled == [True]
        assert pool.stats().connect_errors == 0

    asyncio.run(main())


def test_a_pool_may_be_closed_as_soon_as_it_is_made(server: TCPServer) -> None:
    """Before its first connections are open, or have so much as begun to open."""

    async def main() -> None:
        for steps in range(8):
            async with pool_of(server, 2, 2) as pool:
                for _ in range(steps):
                    await asyncio.sleep(0)
            assert pool.stats().total == 0
        assert await held(server, 0)

    begun = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - begun < 4


def test_what_opens_too_late_is_closed(server: TCPServer) -> None:
    """A connection that is open only after the pool was made smaller is closed, and not forgotten half-way."""
    closed: list[Thing] = []

    class Slow(Thing):
        async def close(self) -> None:  # type: ignore[override]
            await asyncio.sleep(0.02)
            closed.append(self)

    async def main() -> None:
        opening = asyncio.Event()

        async def connect() -> Slow:
            await opening.wait()
            return Slow()

        async with AsyncOptimizedConnectionPool(None, 2, 2, factory=connect) as pool:
            await until(lambda: pool.stats().opening == 2)
            await asyncio.sleep(0)
            pool.resize(0, 1)
            opening.set()
            await until(lambda: len(closed) == 1)
            assert pool.stats().total == 1
        assert len(closed) == 2

    asyncio.run(main())


def test_close_waits_closes_the_rest_and_refuses_whoever_waits(server: TCPServer) -> None:
    """As the pool for threads does."""

    async def main() -> None:
        pool = pool_of(server, 1, 1)
        line = await pool.acquire(SECONDS)
        waiting = asyncio.create_task(pool.acquire(SECONDS))
        await until(lambda: pool.stats().waiting == 1)
        closing = asyncio.create_task(pool.close(SECONDS))
        with pytest.raises(PoolClosed, match="'pool' was closed"):
            await waiting
        assert await line.echo("still here") == "still here"
        pool.release(line)
        await closing
        assert await held(server, 0)
        await pool.close()
        with pytest.raises(PoolClosed, match="'pool' is closed"):
            await pool.acquire()

        other = pool_of(server, 1, 1)
        async with other.get_connection(SECONDS) as line:
            await other.close(0.01)
            assert not line.alive
        assert other.stats().created == other.stats().closed == 1

    asyncio.run(main())


def test_close_that_is_cancelled_closes_all_the_same(server: TCPServer) -> None:
    """It only waits no longer."""

    async def main() -> None:
        pool = pool_of(server, 1, 1)
        line = await pool.acquire(SECONDS)
        closing = asyncio.create_task(pool.close(SECONDS))
        await until(lambda: pool.closed)
        closing.cancel()
        await asyncio.wait([closing])
        assert await held(server, 0)
        assert not line.alive

    asyncio.run(main())


def test_sizes_and_queues_are_kept() -> None:
    """`resize`, `max_waiting`, ownership and re-entrancy are as with threads."""

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 0, 1, max_waiting=1, factory=Thing) as pool:
            thing = await pool.acquire(SECONDS)
            waiting = asyncio.create_task(pool.acquire(SECONDS))
            await until(lambda: pool.stats().waiting == 1)
            with pytest.raises(QueueFull):
                await pool.acquire()
            pool.resize(0, 2)
            other = await waiting
            assert other is not thing
            for connection in (thing, other):
                pool.release(connection)
            with pytest.raises(NotFromPool):
                pool.release(thing)
            checkout = pool.get_connection(SECONDS)
            async with checkout:
                with pytest.raises(PoolError, match="this has a connection already"):
                    await checkout.__aenter__()
            pool.resize(0, 1)
            assert pool.stats().total == 1

    asyncio.run(main())


def test_another_event_loop_is_refused() -> None:
    """A pool belongs to the loop that it was made or first used on; statistics can be read from anywhere."""
    pool = AsyncOptimizedConnectionPool(None, 1, 1, factory=Thing)

    async def use() -> None:
        pool.release(await pool.acquire(SECONDS))

    asyncio.run(use())
    with pytest.raises(WrongEventLoop, match="make one here"):
        asyncio.run(use())
    with pytest.raises(WrongEventLoop):
        asyncio.run(pool.close())
    with pytest.raises(WrongEventLoop, match="where no event loop runs"):
        pool.resize(1, 1)
    numbers: list[int] = []
    thread = threading.Thread(target=lambda: numbers.append(pool.stats().created))
    thread.start()
    thread.join()
    assert numbers == [1]


def test_a_loop_that_ends_leaves_no_task_behind(caplog: pytest.LogCaptureFixture) -> None:
    """Work that its end cancels is not begun again, and nothing is logged about it."""

    class Slow(Thing):
        async def ping(self) -> None:
            await asyncio.sleep(100)

        async def close(self) -> None:  # type: ignore[override]
            await asyncio.sleep(100)

    async def connect() -> None:
        await asyncio.sleep(100)

    async def main() -> None:
        opening = AsyncOptimizedConnectionPool(None, 2, 2, factory=connect)
        pinging = AsyncOptimizedConnectionPool(None, 2, 2, factory=Slow, validate_after=0.001)
        await pinging.wait(SECONDS)
        await until(lambda: pinging.stats().opening == 1 and opening.stats().opening == 2)
        pools.extend([opening, pinging])

    pools: list[AsyncOptimizedConnectionPool] = []
    asyncio.run(main())
    assert all(pool.closed for pool in pools)
    pools.clear()
    gc.collect()
    assert not caplog.records


def test_close_closes_all_though_every_task_was_cancelled(server: TCPServer) -> None:
    """As programs do that are told to stop: the pool begins nothing new, and `close` still ends it in order."""

    async def main() -> None:
        pool = pool_of(server, 2, 2, validate_after=0.01)
        await pool.wait(SECONDS)
        server.answering.clear()
        await until(lambda: pool.stats().opening == 1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)
        assert pool.closed
        await pool.close()
        assert pool.stats().created == pool.stats().closed == 2
        server.answering.set()
        assert await held(server, 0)

    asyncio.run(main())


def test_a_cancellation_inside_a_ping_or_a_factory_is_a_failure_like_others() -> None:
    """What a library lets out when its own task was cancelled does not end the pool."""
    things: list[Thing] = []

    class Cancelled(Thing):
        async def ping(self) -> None:
            raise asyncio.CancelledError

    async def connect() -> Cancelled:
        things.append(Cancelled())
        if len(things) == 1:
            raise asyncio.CancelledError
        return things[-1]  # type: ignore[return-value]

    async def main() -> None:
        async with AsyncOptimizedConnectionPool(None, 1, 1, factory=connect, validate_after=0.01) as pool:
            await until(lambda: pool.stats().invalid == 2)
            assert not pool.closed
            assert pool.stats().connect_errors == 1

    asyncio.run(main())


def test_a_pool_that_is_dropped_ends(server: TCPServer) -> None:
    """Its connections are closed and its timer stops, though nobody closed it."""

    async def main() -> None:
        pool = pool_of(server, 2, 2)
        await pool.wait(SECONDS)
        del pool
        gc.collect()
        assert await held(server, 0)
        await until(lambda: not [task for task in asyncio.all_tasks() if task.get_name().startswith("pool-")])

    asyncio.run(main())


def test_while_the_server_is_away_nothing_turns_round(server: TCPServer) -> None:
    """A handful of attempts is made, and the cause is told."""

    async def main() -> None:
        server.kill()
        async with pool_of(server, 2, 2) as pool:
            with pytest.raises(ConnectFailed) as failed:
                await pool.wait(0.3)
            assert isinstance(failed.value.__cause__, ConnectionRefusedError)
            assert pool.stats().connect_errors <= 8
            server.start()
            await pool.wait(SECONDS)

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_cannot_use_the_pool() -> None:
    """Each use raises UsedAfterFork."""
    pool = AsyncOptimizedConnectionPool(None, 0, 1, factory=Thing)
    child = os.fork()
    if child == 0:
        try:
            asyncio.run(pool.acquire())
        except UsedAfterFork:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
