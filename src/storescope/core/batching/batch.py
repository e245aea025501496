"""`BatchOptimizer` and its asyncio twin: many calls of tools, a few at a time, each with a result of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

from storescope.core.batching.batch_plan import Chunk, Group, Operation
from storescope.core.batching.batch_queue import BatchQueue, Tools
from storescope.core.batching.batch_run import Attempts, Run
from storescope.core.batching.deadline import await_within, call_within
from storescope.core.batching.limiter import AsyncLimiter, Limiter
from storescope.core.store import ToolResult

_NO_LIMIT: nullcontext[None] = nullcontext()


class BatchOptimizer(BatchQueue[Limiter]):
    """Collect calls of tools and execute them `max_concurrent` at a time, in an order that is sure.

    `store` is anything with `call_tool(tool_name, arguments)` that threads may call.

    `order="type"`: types run one after another in `type_order`, then others as they came; no operation begins before
    all of the earlier types have ended, so every read precedes every write. `order="added"`: an operation begins when
    every earlier one of another type has ended. Operations of one type that follow one another run concurrently: each
    worker takes up to `batch_size` of them and calls one after the other. `max_concurrent="adaptive"` finds the number
    from latency and errors (see `AimdLimit`). Identical reads of one type's turn are executed once; each gets a copy
    of the result, or is executed itself where the result cannot be copied.

    `timeout` is for a whole run, from its begin: what has not begun by then gets DeadlineExceeded and 0 attempts.
    `operation_timeout` is for one operation with all its attempts. A call cannot be stopped: past a deadline it goes
    on in a thread of its own, holds no place among the `max_concurrent`, and may still change what it was to change.
    `retries` more attempts are made at idempotent operations after errors of which `retry_on` is true, with
    exponential backoff and full jitter, from `backoff` up to `max_backoff` seconds. `progress(done, total)` is called
    after each operation, by one thread at a time.
    """

    _limiter_type = Limiter
    _default_sleep = staticmethod(time.sleep)

    def _check_store(self, store: Tools) -> None:
        if inspect.iscoroutinefunction(store.call_tool):
            raise TypeError(
                f"store must have a call_tool that blocks, not {store!r}: use AsyncBatchOptimizer"
            )

    def optimize_batch_execution(self) -> list[ToolResult]:
        """Execute what was queued when it begins and return the results, in order of addition.

        Blocks until every operation has its result. What fails is told by its result, never raised. While another
        thread runs, waits for that run to end and then runs what was added since. KeyboardInterrupt cancels what has
        not begun and is raised at once; the handles tell what became of each operation. Raises RuntimeError if called
        from within its own run, by a tool or a callback.
        """
        self._check_entry()
        with self._turn.slot():
            run = self._begin()
            try:
                self._execute_all(run)
            finally:
                self._end(run)
        return [operation.result() for operation in run.operations]

    def _execute_all(self, run: Run) -> None:
        todo: SimpleQueue[Chunk | None] = SimpleQueue()
        done: SimpleQueue[BaseException | None] = SimpleQueue()
        threads: list[threading.Thread] = []
        try:
            stages, wanted = self._plan(run)
            self._start(wanted, threads, run, todo, done)
            for stage in stages:
                for chunk in stage:
                    todo.put(chunk)
                for _ in stage:
                    if (error := done.get()) is not None:
                        raise error
        except BaseException:
            run.stop()
            raise
        finally:
            for _ in threads:
                todo.put(None)
        for thread in threads:
            thread.join()

    def _start(self, wanted: int, threads: list[threading.Thread], *args: Any) -> None:
        """Start as many workers as can be had, each with a copy of the caller's context variables."""
        for index in range(wanted):
            target = partial(copy_context().run, self._work, *args)
            thread = threading.Thread(target=target, name=f"{self.name}-{index}", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more
                if not threads:
                    raise
                return
            threads.append(thread)

    def _work(
        self, run: Run, todo: SimpleQueue[Chunk | None], done: SimpleQueue[BaseException | None]
    ) -> None:
        while (chunk := todo.get()) is not None:
            try:
                for group in chunk:
                    self._execute(run, group)
            except BaseException as error:  # of a clock, a sleep, a `retry_on`: tools' errors are in results
                done.put(error)
            else:
                done.put(None)

    def _execute(self, run: Run, group: Group, *, claimed: bool = False) -> None:
        attempts = Attempts(run, group, claimed=claimed)
        operation = attempts.operation
        try:
            pause: float | None = 0.0
            while pause is not None:
                try:
                    with self._slot(run, operation):
                        attempts.begin()
                        call = self.store.call_tool, operation.tool_name, operation.arguments
                        attempts.keep(call_within(attempts.seconds(), *call))
                except BaseException as error:
                    attempts.failed(error)
                pause = attempts.pause()
                if pause:
                    self._sleep(pause)
        except BaseException as error:
            attempts.failed(error)
            raise
        finally:
            alone = attempts.settle()
        for each in alone:
            self._execute(run, [each], claimed=True)

    def _slot(self, run: Run, operation: Operation) -> AbstractContextManager[None]:
        if self._limiter is None:
            return _NO_LIMIT
        return self._limiter.slot(run.deadline.remaining(), key=operation.tool_name)


class AsyncBatchOptimizer(BatchQueue[AsyncLimiter]):
    """A `BatchOptimizer` for asyncio: `call_tool` returns an awaitable, and workers are tasks of one event loop.

    Options and order are the same. A call past its deadline is cancelled, and waited for until it has ended. While it
    runs on one event loop, another one gets WrongEventLoop.
    """

    _limiter_type = AsyncLimiter
    _default_sleep = staticmethod(asyncio.sleep)

    def _check_store(self, store: Tools) -> None:
        # Calling is the only way to find out what another kind of callable returns.
        if inspect.isroutine(store.call_tool) and not inspect.iscoroutinefunction(store.call_tool):
            raise TypeError(f"store must have a call_tool that is async, not {store!r}: use BatchOptimizer")

    async def optimize_batch_execution(self) -> list[ToolResult]:
        """Execute what was queued when it begins and return the results, in order of addition.

        As `BatchOptimizer.optimize_batch_execution`, but for cancellation: where the task that awaits this is
        cancelled, so are the calls under way, and what has not begun; every handle tells.
        """
        self._check_entry()
        async with self._turn.slot():
            run = self._begin()
            try:
                await self._execute_all(run)
            finally:
                self._end(run)
        return [operation.result() for operation in run.operations]

    async def _execute_all(self, run: Run) -> None:
        workers: list[asyncio.Future[None]] = []
        try:
            stages, wanted = self._plan(run)
            for stage in stages:
                chunks = iter(stage)
                workers = [asyncio.ensure_future(self._work(run, chunks)) for _ in stage[:wanted]]
                done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
                for worker in done:
                    worker.result()
        except BaseException:
            run.interrupted = True
            run.stop()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            raise

    async def _work(self, run: Run, chunks: Iterator[Chunk]) -> None:
        for chunk in chunks:
            for group in chunk:
                await self._execute(run, group)

    async def _execute(self, run: Run, group: Group, *, claimed: bool = False) -> None:
        attempts = Attempts(run, group, claimed=claimed)
        operation = attempts.operation
        try:
            pause: float | None = 0.0
            while pause is not None:
                try:
                    async with self._slot(run, operation):
                        attempts.begin()
                        call = self.store.call_tool(operation.tool_name, operation.arguments)
                        attempts.keep(await await_within(attempts.seconds(), self._awaitable(call)))
                except BaseException as error:
                    attempts.failed(error)
                    if run.interrupted or isinstance(error, GeneratorExit):
                        raise
                pause = attempts.pause()
                if pause:
                    await self._sleep(pause)
        except BaseException as error:
            attempts.failed(error)
            raise
        finally:
            alone = attempts.settle()
        for each in alone:
            await self._execute(run, [each], claimed=True)

    def _awaitable(self, call: Any) -> Awaitable[Any]:
        if not inspect.isawaitable(call):
            raise TypeError(
                f"call_tool of {self.store!r} returned a {type(call).__qualname__} that cannot be awaited, and the "
                "call was made: use BatchOptimizer"
            )
        return call

    def _slot(self, run: Run, operation: Operation) -> AbstractAsyncContextManager[None]:
        if self._limiter is None:
            return _NO_LIMIT
        return self._limiter.slot(run.deadline.remaining(), key=operation.tool_name)
