"""One run of a batch: attempts, deadlines, shared results and what is counted, whoever makes the calls."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from storescope.core.backoff import exponential
from storescope.core.batching.batch_plan import Group, Operation
from storescope.core.batching.deadline import Deadline
from storescope.core.errors import Cancelled, DeadlineExceeded
from storescope.core.forks import after_fork
from storescope.core.results import Results
from storescope.core.stats import BatchStats
from storescope.core.store import ToolResult

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], object]


def worth_retrying(error: BaseException) -> bool:
    """Whether another attempt may end otherwise: not after bad arguments, nor with no time left."""
    refused = TypeError, ValueError, LookupError, DeadlineExceeded
    return isinstance(error, Exception) and not isinstance(error, refused)


@dataclass(frozen=True, slots=True)
class Policy:
    """How operations are executed: the options of a batch that a run cannot change."""

    retries: int
    backoff: float
    max_backoff: float
    retry_on: Callable[[BaseException], bool]
    results: Results
    clock: Callable[[], float]
    rng: random.Random

    def pause(self, attempts: int) -> float:
        """Return the seconds to wait after so many attempts: exponential backoff with full jitter.

        See Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog (2015).
        """
        return self.rng.uniform(0.0, exponential(attempts, first=self.backoff, longest=self.max_backoff))


class Tally:
    """What the runs of a batch did, counted from any thread."""

    def __init__(self) -> None:
        self.runs = self.succeeded = self.failed = self.cancelled = self.shared = self.retries = 0
        self.run_time = 0.0
        self._generation = 0
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        """Start with nothing under way; in a forked child too, where no worker of the parent is."""
        self._lock = threading.Lock()
        self._generation += 1
        self.running = 0

    def began(self, operations: int) -> int:
        """Count a run; return what is to be given with its results."""
        with self._lock:
            self.runs += 1
            self.running += operations
            return self._generation

    def ended(self, seconds: float) -> None:
        """Count what a run took."""
        with self._lock:
            self.run_time += seconds

    def settled(self, result: ToolResult, generation: int, shared: bool = False) -> None:
        """Count a result; what the parent of a forked child began is not under way here."""
        with self._lock:
            self.running -= generation == self._generation
            self.shared += shared
            self.retries += max(0, result.attempts - 1)
            if result.error is None:
                self.succeeded += 1
            elif isinstance(result.error, Cancelled):
                self.cancelled += 1
            else:
                self.failed += 1

    def stats(self, queued: int) -> BatchStats:
        """Return all of it, and what waits."""
        with self._lock:
            return BatchStats(
                queued=queued,
                running=self.running,
                runs=self.runs,
                succeeded=self.succeeded,
                failed=self.failed,
                cancelled=self.cancelled,
                shared=self.shared,
                retries=self.retries,
                run_time=self.run_time,
            )


class Run:
    """What was queued when it began, until each operation has its result."""

    def __init__(
        self,
        operations: Sequence[Operation],
        policy: Policy,
        tally: Tally,
        deadline: Deadline,
        progress: Progress | None,
    ) -> None:
        self.operations = operations
        self.policy = policy
        self.deadline = deadline
        self.stopped = self.interrupted = False
        self._tally = tally
        self._progress = progress
        self._progress_lock = threading.Lock()
        self._reported = 0
        self._began = policy.clock()
        #: Those whose results are not counted yet.
        self._uncounted = set(operations)
        self._generation = tally.began(len(operations))

    def stop(self) -> int:
        """Cancel whatever has not begun, have nothing tried again, and return how many it was."""
        self.stopped = True
        return sum([operation.cancel() for operation in self.operations])

    def end(self) -> None:
        """Note that no worker is waited for any more, and count what was cancelled and has come to none."""
        for operation in tuple(self._uncounted):
            if operation.done():
                self._count(operation, operation.result())
        self._tally.ended(self.policy.clock() - self._began)

    def settle(self, operation: Operation, result: ToolResult, *, shared: bool = False) -> None:
        """Give an operation its result, count it, and say how many of all have theirs."""
        operation.settle(result)
        self._count(operation, result, shared)
        if self._progress is None:
            return
        with self._progress_lock:
            self._reported += 1
            try:
                if self._progress is not None:
                    self._progress(self._reported, len(self.operations))
            except Exception:
                logger.warning(
                    "the progress callback of a batch failed; it is not called again", exc_info=True
                )
                self._progress = None

    def _count(self, operation: Operation, result: ToolResult, shared: bool = False) -> None:
        try:
            self._uncounted.remove(
                operation
            )  # atomic: workers may go on after the end of a run that was stopped
        except KeyError:
            return
        self._tally.settled(result, self._generation, shared)


class Attempts:
    """The attempts at one group of operations: what to call, for how long, how often, and what came of it.

    Whoever makes the calls goes through `begin`, `seconds`, `keep` and `failed` for each attempt, waits for
    `pause()` seconds as long as that is a number, and ends with `settle`.
    """

    def __init__(self, run: Run, group: Group, *, claimed: bool = False) -> None:
        self.operation = group[0]
        self._run = run
        self._policy = run.policy
        self._group = group
        self._mine: list[Operation] | None = group if claimed else None
        self._cancelled: list[Operation] = []
        self._count = 0
        self._too_late = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._started = 0.0
        self._deadline = run.deadline

    def begin(self) -> None:
        """Count an attempt; raise Cancelled where there is to be none."""
        self._too_late = self._run.deadline.passed()
        if not self._claim() or self._run.stopped or self._too_late:
            raise Cancelled(f"{self.operation.tool_name} was cancelled")
        if self._count == 0:
            self._started = self._policy.clock()
            if self.operation.timeout is not None:
                self._deadline = Deadline(self.operation.timeout, clock=self._policy.clock)
        self._count += 1
        self._value = self._error = None

    def _claim(self) -> list[Operation]:
        """Return the operations of the group that nobody cancelled before it began."""
        if self._mine is None:
            self._mine = []
            for operation in self._group:
                (self._mine if operation.claim() else self._cancelled).append(operation)
        return self._mine

    def seconds(self) -> float | None:
        """Return how long the attempt may last: the operation's deadline, or the batch's if that is nearer."""
        own, whole = self._deadline.remaining(), self._run.deadline.remaining()
        return whole if own is None else own if whole is None else min(own, whole)

    def keep(self, value: Any) -> None:
        """Keep what the tool returned; raise the error that it is marked with."""
        self._value = value
        if (error := self._policy.results.result_error(value)) is not None:
            raise error

    def failed(self, error: BaseException) -> None:
        """Keep why the attempt failed. A task that was cancelled must not cancel whoever looks at its result."""
        cancelled = isinstance(error, asyncio.CancelledError)
        self._error = Cancelled(f"{self.operation.tool_name} was cancelled") if cancelled else error

    def pause(self) -> float | None:
        """Return the seconds until the next attempt; None if there is to be none."""
        again = self._error is not None and self._count and self._count <= self._policy.retries
        if not again or self._run.stopped or not self.operation.idempotent:
            return None
        assert self._error is not None
        if not self._policy.retry_on(self._error):
            return None
        pause, left = self._policy.pause(self._count), self.seconds()
        return None if left is not None and pause >= left else pause

    def settle(self) -> list[Operation]:
        """Give all operations of the group their results; return those that cannot share and must be executed."""
        mine = self._claim()
        for operation in self._cancelled:
            self._run.settle(operation, operation.cancelled_result())
        if not mine:
            return []
        result = self._result()
        first, *sharers = mine
        copies = [
            self._copy(operation, result) for operation in sharers
        ]  # before anyone gets hold of the value
        self._run.settle(first, result)
        for operation, shared in zip(sharers, copies, strict=True):
            if shared is not None:
                self._run.settle(operation, shared, shared=True)
        return [operation for operation, shared in zip(sharers, copies, strict=True) if shared is None]

    def _result(self) -> ToolResult:
        error = self._error
        if self._too_late or (
            self._count == 0 and isinstance(error, DeadlineExceeded)
        ):  # of the wait for a slot
            error = DeadlineExceeded(
                f"the batch's {self._run.deadline.seconds:g} s had passed"
                f" before attempt {self._count + 1} at {self.operation.tool_name}"
            )
        duration = self._policy.clock() - self._started if self._count else 0.0
        return ToolResult(self._value, error, duration, self._count)

    def _copy(self, operation: Operation, result: ToolResult) -> ToolResult | None:
        """Return the result for an operation that shares it; None if it cannot be copied."""
        try:
            return ToolResult(self._policy.results.copy_result(result.value), result.error, attempts=0)
        except Exception:
            return operation.cancelled_result() if self._run.stopped else None
