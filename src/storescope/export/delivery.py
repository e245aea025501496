"""Brings batches to a receiver, or to the local file; never holds the program up at its end."""

from __future__ import annotations

import contextvars
import functools
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Protocol

from opentelemetry import metrics

from storescope import semconv
from storescope.core.forks import after_fork
from storescope.export.budget import ExitBudget
from storescope.export.destination import Destination, Signal
from storescope.export.otlp import Refused

_log = logging.getLogger(__name__)

_TOO_LATE: Final = "the program has ended, and there was no answer in time"


class StockExporter(Protocol):
    """What is asked of an exporter behind ours."""

    def export(self, batch: Any, /) -> Any:
        """Export a batch; the result's name is SUCCESS or FAILURE."""

    def shutdown(self) -> Any:
        """Release what it holds."""


class FileExporter(Protocol):
    """What is asked of a local file."""

    @property
    def path(self) -> Path | None:
        """The file that was last written to."""

    def export(self, batch: Any, /, *, unconfirmed: bool = False) -> Any:
        """Write a batch; the result's name is SUCCESS or FAILURE."""

    def shutdown(self) -> Any:
        """Close the file."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a signal's batches are to be found: at a receiver, in a file, or some here and some there."""

    endpoint: str | None = None
    file: Path | None = None


class Delivery(Protocol):
    """A way out for one signal."""

    def deliver(self, batch: Any, /) -> bool:
        """Bring a batch to safety; False where it is lost."""

    def whereabouts(self) -> Whereabouts:
        """Tell where batches went so far."""

    def close(self) -> None:
        """Release what it holds."""


class Once:
    """Something to be said once, whichever thread and signal comes first."""

    def __init__(self) -> None:
        self._said = threading.Lock()

    def claim(self) -> bool:
        """Return True to the first who asks."""
        return self._said.acquire(blocking=False)


class LocalDelivery:
    """Writes a signal to its local file, and counts what even that does not take."""

    def __init__(self, signal: Signal, file: FileExporter | None, say_lost: Once) -> None:
        self._signal = signal
        self._file = file
        self._say_lost = say_lost
        # Made now: a meter provider that is shut down gives out none.
        meter = metrics.get_meter(semconv.SCOPE_NAME, schema_url=semconv.SCHEMA_URL)
        self._lost = meter.create_counter(
            semconv.TELEMETRY_DROPPED,
            unit="{item}",
            description="Telemetry that could not be sent nor written.",
        )

    def __repr__(self) -> str:
        return f"<LocalDelivery of {self._signal.value} in {self.name}>"

    @property
    def name(self) -> str:
        """What to call the file before the user."""
        return str(self._file.path) if self._file is not None and self._file.path else "no file"

    def deliver(self, batch: Any, /, *, unconfirmed: bool = False) -> bool:
        """Write a batch. `unconfirmed` marks one that a receiver may have got all the same."""
        if self._file is not None and _succeeded(self._file.export(batch, unconfirmed=unconfirmed)):
            return True
        self._count_lost(_size(self._signal, batch))
        return False

    def whereabouts(self) -> Whereabouts:
        """Tell the file, once there is one."""
        return Whereabouts(file=None if self._file is None else self._file.path)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.shutdown()

    def _count_lost(self, count: int) -> None:
        self._lost.add(count, {semconv.SIGNAL: self._signal.value})
        if self._file is None and self._say_lost.claim():  # a file says itself why it was not written
            _log.warning("storescope: %s lost, the first %d of them now", _items(self._signal), count)


class _Attempt:
    """One export, from being handed to the sender's thread to its end."""

    __slots__ = ("_work", "done", "error", "succeeded")

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self.done = False
        self.succeeded = False
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.succeeded = _succeeded(self._work())
        except BaseException as error:
            self.error = error
        self.done = True


class _Sender:
    """A daemon thread that exports, so that whoever waits for an export can stop waiting.

    One for all of a signal's exports, started early: from 3.12 on no thread can be started while the
    interpreter shuts down, which is when most programs export.
    """

    def __init__(self, signal: Signal, budget: ExitBudget) -> None:
        self._budget = budget
        self._attempts: SimpleQueue[_Attempt | None] = SimpleQueue()
        threading.Thread(target=self._run, name=f"storescope-{signal.value}", daemon=True).start()

    def send(self, work: Callable[[], Any]) -> _Attempt:
        """Begin an export in the caller's context, in which the SDK has switched instrumentation off."""
        attempt = _Attempt(functools.partial(contextvars.copy_context().run, work))
        self._attempts.put(attempt)
        return attempt

    def close(self) -> None:
        """End the thread once it has nothing to do."""
        self._attempts.put(None)

    def _run(self) -> None:
        while (attempt := self._attempts.get()) is not None:
            attempt.run()
            self._budget.notify()


class OtlpDelivery:
    """Sends a signal to a receiver, and keeps in the local file what the receiver does not take.

    `deliver` blocks for as long as the stock exporter tries, and once the program has ended for as long as the
    shared budget lasts. A receiver that has no place for the signal is not asked again.
    """

    def __init__(
        self,
        destination: Destination,
        build: Callable[[], StockExporter],
        local: LocalDelivery,
        budget: ExitBudget,
        say_kept: Once,
    ) -> None:
        self.local = local
        #: Called once the signal goes to the file for good.
        self.on_switch: Callable[[], None] | None = None
        self._destination = destination
        self._build = build
        self._budget = budget
        self._say_kept = say_kept
        self._sent = False
        self._switched = False
        self._given_up = False
        self._exporter: StockExporter | None = build()
        self._sender = _Sender(destination.signal, budget)
        after_fork(self._renew)

    def __repr__(self) -> str:
        state = "switched to the file" if self._switched else "given up" if self._given_up else "sending"
        return f"<OtlpDelivery of {self._destination.signal.value} to {self._destination.address}: {state}>"

    @property
    def exporter(self) -> StockExporter | None:
        """The stock exporter; None in a child until its first export."""
        return self._exporter

    def deliver(self, batch: Any, /) -> bool:
        """Send a batch, or keep it."""
        if self._switched:
            return self.local.deliver(batch)
        if self._budget.exhausted:
            return self._keep(batch, _TOO_LATE)
        attempt = self._sender.send(functools.partial(self._export, batch))
        if not self._budget.wait(lambda: attempt.done):
            self._given_up = True
            return self._keep(batch, _TOO_LATE, unconfirmed=True)
        if attempt.succeeded:
            self._sent = True
            self._budget.acknowledged()
            return True
        if isinstance(attempt.error, Refused):
            return self._switch(batch, attempt.error)
        # Nobody can tell what became of it: it may have timed out on its way back.
        reason = "failed" if attempt.error is None else type(attempt.error).__name__
        return self._keep(batch, reason, unconfirmed=True)

    def whereabouts(self) -> Whereabouts:
        """Tell the endpoint, if it took something, and the file, if that did."""
        endpoint = self._destination.address.removesuffix(f"/v1/{self._destination.signal.value}")
        return replace(self.local.whereabouts(), endpoint=endpoint if self._sent else None)

    def close(self) -> None:
        """Release exporter and file. An export that nobody waits for any more is left alone.

        Shutting its exporter down would have it log that it was shut down.
        """
        if not self._given_up:
            self._close_exporter()
        self.local.close()

    def _export(self, batch: Any) -> Any:
        if self._exporter is None:
            self._exporter = self._build()
        return self._exporter.export(batch)

    def _keep(self, batch: Any, reason: str, *, unconfirmed: bool = False) -> bool:
        kept = self.local.deliver(batch, unconfirmed=unconfirmed)
        if kept and self._say_kept.claim():
            _log.warning(
                "storescope: %s not sent to %s (%s); kept in %s",
                _items(self._destination.signal),
                self._destination.address,
                reason,
                self.local.name,
            )
        return kept

    def _switch(self, batch: Any, refused: Refused) -> bool:
        self._switched = True
        kept = self.local.deliver(batch)
        _log.warning(
            "storescope: %s takes no %s (%s); from now on they go to %s",
            self._destination.address,
            self._destination.signal.value,
            refused,
            self.local.name,
        )
        self._close_exporter()
        if self.on_switch is not None:
            self.on_switch()
        return kept

    def _close_exporter(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.shutdown()
            self._sender.close()

    def _renew(self) -> None:
        # The thread is gone, and the exporter's connections are the parent's too: both would write to them.
        self._exporter = None
        if not self._switched:
            self._sender = _Sender(self._destination.signal, self._budget)


def _succeeded(result: Any) -> bool:
    return getattr(result, "name", "") == "SUCCESS"


def _items(signal: Signal) -> str:
    return {Signal.TRACES: "spans", Signal.METRICS: "metric points", Signal.LOGS: "log records"}[signal]


def _size(signal: Signal, batch: Any) -> int:
    if signal is not Signal.METRICS:
        return len(batch)
    return sum(
        len(metric.data.data_points)
        for resource in batch.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    )
