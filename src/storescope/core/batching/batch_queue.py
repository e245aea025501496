"""The queue of a batch: its options, what was added, what is cancelled and counted; nothing is called here."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Generic, Literal, Protocol, TypeVar

from storescope.core.batching.batch_plan import READ, TYPE_ORDER, Chunk, Operation, plan
from storescope.core.batching.batch_run import Policy, Progress, Run, Tally, worth_retrying
from storescope.core.batching.deadline import Deadline
from storescope.core.batching.limiter import MAX_LIMIT, AsyncLimiter, Limiter, check_limit
from storescope.core.checks import function, number, one_of, optional, positive, text, whole
from storescope.core.results import results_of
from storescope.core.stats import BatchStats
from storescope.core.store import Arguments


class Tools(Protocol):
    """The store of a batch; what `call_tool` returns is awaitable where the batch is."""

    def call_tool(self, tool_name: str, arguments: Any, /) -> Any:
        """Call a tool."""


L = TypeVar("L", Limiter, AsyncLimiter)


class BatchQueue(Generic[L]):
    """What both faces share: all but the making of calls."""

    _limiter_type: type[L]
    _default_sleep: Callable[[float], Any]

    def __init__(
        self,
        store: Tools,
        *,
        batch_size: int = 20,
        max_concurrent: int | Literal["adaptive"] = 5,
        order: Literal["type", "added"] = "type",
        type_order: Sequence[str] = TYPE_ORDER,
        timeout: float | None = None,
        operation_timeout: float | None = None,
        retries: int = 0,
        backoff: float = 0.1,
        max_backoff: float = 5.0,
        retry_on: Callable[[BaseException], bool] = worth_retrying,
        progress: Progress | None = None,
        name: str = "batch",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        function("store.call_tool", getattr(store, "call_tool", None))
        self._check_store(store)
        self.store = store
        self.name = text("name", name)
        self.batch_size = batch_size
        self._clock = function("clock", clock)
        self.max_concurrent = max_concurrent
        self._order = one_of("order", order, ("type", "added"))
        self._type_order = _texts("type_order", type_order)
        self._timeout: float | None = optional(positive, "timeout", timeout)
        self._operation_timeout: float | None = optional(positive, "operation_timeout", operation_timeout)
        self._progress: Progress | None = optional(function, "progress", progress)
        self._policy = Policy(
            retries=whole("retries", retries, 0),
            backoff=_pause("backoff", backoff),
            max_backoff=_pause("max_backoff", max_backoff),
            retry_on=function("retry_on", retry_on),
            clock=clock,
            rng=_rng(rng),
            results=results_of(store),
        )
        self._sleep: Callable[[float], Any] = optional(function, "sleep", sleep) or self._default_sleep
        self._queue: deque[Operation] = deque()
        self._turn: L = self._limiter_type(1, name=f"runs of {name}")
        self._tally = Tally()
        self._run: Run | None = None

    @property
    def batch_size(self) -> int:
        """How many operations a worker takes at a time, at most. May be set; it counts from the next run on."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, value: int) -> None:
        self._batch_size = whole("batch_size", value)

    @property
    def max_concurrent(self) -> int | Literal["adaptive"]:
        """How many calls are under way at once. May be set; it counts from the next run on."""
        return self._max_concurrent

    @max_concurrent.setter
    def max_concurrent(self, value: int | Literal["adaptive"]) -> None:
        self._max_concurrent = check_limit("max_concurrent", value)
        self._limiter: L | None = None
        if value == "adaptive":
            self._limiter = self._limiter_type("adaptive", clock=self._clock, name=self.name)

    @property
    def limiter(self) -> L | None:
        """The adaptive limit, which keeps what it learned from run to run; None where the limit is fixed."""
        return self._limiter

    @property
    def operation_queue(self) -> tuple[Operation, ...]:
        """What waits for the next run, in order of addition."""
        return tuple(self._queue)

    def add_operation(
        self,
        operation_type: str,
        tool_name: str,
        arguments: Arguments,
        *,
        timeout: float | None = None,
        idempotent: bool | None = None,
    ) -> Operation:
        """Queue a call for the next run and return its handle. Never blocks; usable from any thread.

        `timeout` (seconds, all attempts together) takes the place of `operation_timeout`. `idempotent` says that a
        call may be repeated, and one of type "read" shared; reads are, unless it is False. `arguments` are copied,
        what is inside them is not. Raises TypeError or ValueError for a bad argument.
        """
        for argument, value in (("operation_type", operation_type), ("tool_name", tool_name)):
            if not isinstance(value, str):
                raise TypeError(f"{argument} must be a text, not {value!r}")
        if not isinstance(arguments, Mapping):
            raise TypeError(f"arguments must be a mapping, not {arguments!r}")
        if not (idempotent is None or isinstance(idempotent, bool)):
            raise TypeError(f"idempotent must be True, False or None, not {idempotent!r}")
        own_timeout = optional(positive, "timeout", timeout)
        operation = Operation(
            operation_type,
            tool_name,
            dict(arguments),
            timeout=self._operation_timeout if own_timeout is None else own_timeout,
            idempotent=operation_type == READ if idempotent is None else idempotent,
        )
        self._queue.append(operation)
        return operation

    def cancel(self) -> int:
        """Cancel what the present run has not begun, and return how many operations that were.

        Calls under way go on and are waited for, without another attempt. What was added since the run began stays.
        """
        return 0 if self._run is None else self._run.stop()

    def stats(self) -> BatchStats:
        """Return what it holds now and what it did since it was made."""
        return self._tally.stats(len(self._queue))

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics as a dict."""
        return asdict(self.stats())

    def __repr__(self) -> str:
        now = self.stats()
        return f"<{type(self).__name__} {self.name!r} {now.queued} queued, {now.running} running>"

    def _check_store(self, store: Tools) -> None:
        """Raise TypeError for a store that plainly is for the other face."""

    def _begin(self) -> Run:
        # What is added from here on belongs to the next run; a deque needs no lock for either end.
        operations = [self._queue.popleft() for _ in range(len(self._queue))]
        deadline = Deadline(self._timeout, clock=self._clock)
        self._run = Run(operations, self._policy, self._tally, deadline, self._progress)
        return self._run

    def _end(self, run: Run) -> None:
        self._run = None
        run.end()

    def _plan(self, run: Run) -> tuple[list[list[Chunk]], int]:
        """Return the stages, and how many workers they can use."""
        workers = MAX_LIMIT if self._max_concurrent == "adaptive" else self._max_concurrent
        stages = plan(run.operations, self._order, self._type_order, workers, self._batch_size)
        return stages, min(workers, max(map(len, stages), default=0))

    def _check_entry(self) -> None:
        if self._turn.is_inside():  # a tool or callback that starts a run would wait for itself
            raise RuntimeError(f"{self!r} is asked to run from within its own run")


def _texts(name: str, value: Sequence[str]) -> tuple[str, ...]:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_sequence or not all(isinstance(each, str) for each in value):
        raise TypeError(f"{name} must be a sequence of texts, not {value!r}")
    return tuple(value)


def _pause(name: str, value: float) -> float:
    if number(name, value) == math.inf:
        raise ValueError(f"{name} must be finite, not {value!r}")
    return float(value)


def _rng(value: random.Random | None) -> random.Random:
    if value is None:
        return random.Random()  # noqa: S311 - jitter
    if not isinstance(value, random.Random):
        raise TypeError(f"rng must be a random.Random, not {value!r}")
    return value
