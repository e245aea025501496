"""The operations under way: how many there are, which of them hang, and what becomes of them at exit."""

from __future__ import annotations

import atexit
import logging
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Final, Protocol

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.util.types import AttributeValue

from storescope import semconv
from storescope.core.forks import after_fork

_log = logging.getLogger(__name__)

#: The attributes by which operations under way are counted: few values each.
_COUNTED_BY: Final = (semconv.MCP_METHOD_NAME, semconv.STORE_OPERATION, semconv.SERVICE_NAME)
_LONGEST_PAUSE: Final = 15.0

_Key = frozenset[tuple[str, AttributeValue]]


class UnderWay(Protocol):
    """What is asked of an operation under way."""

    started_at: float
    closed: bool
    is_part: bool

    @property
    def span_name(self) -> str:
        """What it is called."""

    @property
    def metric_attributes(self) -> Mapping[str, AttributeValue]:
        """What it is recorded by."""

    def abandon(self, why: str) -> None:
        """End it, though its call has not returned."""


class InFlight:
    """The operations of this process that have begun and not ended. Entering and leaving take no lock."""

    def __init__(self) -> None:
        self._operations: dict[int, UnderWay] = {}
        #: Operations whose futures nobody holds any more.
        self._given_up: deque[UnderWay] = deque()
        self._seen: set[_Key] = set()
        self._stuck_after = 0.0
        self._watch: _Watch | None = None
        self._provided_for = False
        after_fork(self._forget)

    def watch(self, stuck_after: float) -> None:
        """Warn, from now on, of operations that are older than so many seconds; 0 warns of none."""
        self._stuck_after = stuck_after

    def add(self, operation: UnderWay) -> None:
        """Take an operation in that begins."""
        if not self._provided_for:
            self._provide()
        if self._given_up:
            self._end_given_up()
        self._operations[id(operation)] = operation

    def claim(self, operation: UnderWay) -> bool:
        """Let an operation go that ends; False where it has been ended by another thread already."""
        return self._operations.pop(id(operation), None) is not None

    def give_up(self, operation: UnderWay) -> None:
        """Have an operation ended, soon: this is called where objects are destroyed, and may not wait for a lock."""
        self._given_up.append(operation)

    def _end_given_up(self) -> None:
        with suppress(IndexError):
            while True:
                self._given_up.popleft().abandon("its event loop had ended")

    def close_all(self) -> None:
        """End what is still under way, innermost first: the program ends, and what hangs would not be seen."""
        for operation in reversed(list(self._operations.values())):
            operation.abandon("the program ended")

    def stop(self) -> None:
        """Watch no longer; what is under way may still end."""
        atexit.unregister(self.close_all)
        self._provided_for = False
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Count the operations under way. Whatever was counted once is 0 when it is over, instead of missing."""
        counts: Counter[_Key] = Counter(
            _key(operation) for operation in list(self._operations.values()) if not operation.is_part
        )
        self._seen.update(counts)
        return [Observation(counts[key], dict(key)) for key in self._seen]

    def _provide(self) -> None:
        """Prepare for the end, when the first operation begins.

        Hooks run in the opposite order of their registration, and providers are set by then: they are shut down
        after what is under way has been ended.
        """
        self._provided_for = True
        atexit.register(self.close_all)
        if self._stuck_after:
            self._watch = _Watch(self._operations, self._stuck_after)

    def _forget(self) -> None:
        """In a forked child: what was under way goes on in the parent."""
        for operation in self._operations.values():
            operation.closed = True  # what the child does is no part of it
        self._operations.clear()
        self._given_up.clear()
        self._seen.clear()
        self._provided_for = False
        self._watch = None
        atexit.unregister(self.close_all)


class _Watch:
    """A daemon thread that warns, once, of every operation that is older than it should be."""

    def __init__(self, operations: Mapping[int, UnderWay], stuck_after: float) -> None:
        self._operations = operations
        self._stuck_after = stuck_after
        self._warned: set[UnderWay] = set()
        self._stopped = threading.Event()
        thread = threading.Thread(target=self._run, name="storescope-watch", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # the interpreter is shutting down: what is left is closed in a moment

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(min(self._stuck_after / 4, _LONGEST_PAUSE)):
            operations = list(self._operations.values())
            self._warned.intersection_update(operations)
            latest = perf_counter() - self._stuck_after
            stuck = [
                operation
                for operation in operations
                if operation.started_at <= latest and not operation.is_part and operation not in self._warned
            ]
            self._warned.update(stuck)
            _warn(stuck)


def _warn(stuck: Iterable[UnderWay]) -> None:
    """Warn of calls that hang: once for all of one tool and service, however many they are."""
    alike: dict[tuple[str, AttributeValue], list[UnderWay]] = {}
    for operation in stuck:
        service = operation.metric_attributes.get(semconv.SERVICE_NAME, "an unknown service")
        alike.setdefault((operation.span_name, service), []).append(operation)
    for (name, service), operations in alike.items():
        age = perf_counter() - min(operation.started_at for operation in operations)
        count = f"{len(operations)} calls, the oldest " if len(operations) > 1 else ""
        _log.warning("storescope: %s on %s has not returned: %s%.0f s so far", name, service, count, age)


def _key(operation: UnderWay) -> _Key:
    attributes = operation.metric_attributes
    return frozenset((name, attributes[name]) for name in _COUNTED_BY if name in attributes)


operations: Final = InFlight()
