"""The SDK's exporters, batch processor and metric reader over our deliveries, within the exit budget."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from storescope.core.forks import after_fork
from storescope.export.budget import ExitBudget
from storescope.export.delivery import Delivery, OtlpDelivery

#: Milliseconds. What finished a second before the process was killed has to be in the file.
FILE_SCHEDULE_DELAY: Final = 500.0


class FallbackSpanExporter(SpanExporter):
    """Exports spans by a delivery."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver a batch."""
        return SpanExportResult.SUCCESS if self._delivery.deliver(spans) else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Release what the delivery holds."""
        self._delivery.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: nothing is held back here."""
        return True


class FallbackMetricExporter(MetricExporter):
    """Exports metrics by a delivery, in the temporality and aggregation of the stock exporter behind it."""

    def __init__(self, delivery: Delivery) -> None:
        stock = delivery.exporter if isinstance(delivery, OtlpDelivery) else None
        super().__init__(
            preferred_temporality=getattr(stock, "_preferred_temporality", None),
            preferred_aggregation=getattr(stock, "_preferred_aggregation", None),
        )
        self._delivery = delivery

    def export(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object
    ) -> MetricExportResult:
        """Deliver what was collected. The stock exporters do not look at the timeout either."""
        return (
            MetricExportResult.SUCCESS if self._delivery.deliver(metrics_data) else MetricExportResult.FAILURE
        )

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Release what the delivery holds."""
        self._delivery.close()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Return True: nothing is held back here."""
        return True


class BoundedSpanProcessor(BatchSpanProcessor):
    """Batches spans for a delivery; its shutdown takes no longer than the budget.

    Spans that go to the file go there at once, unless the user set `OTEL_BSP_SCHEDULE_DELAY`
    (`keep_delay`).
    """

    def __init__(self, delivery: Delivery, budget: ExitBudget, *, keep_delay: bool = False) -> None:
        sending = isinstance(delivery, OtlpDelivery)
        super().__init__(
            FallbackSpanExporter(delivery),
            schedule_delay_millis=None if sending or keep_delay else FILE_SCHEDULE_DELAY,
        )
        self._budget = budget
        if isinstance(delivery, OtlpDelivery) and not keep_delay:
            delivery.on_switch = self._write_soon

    def shutdown(self) -> None:
        """Export what is queued, then stop."""
        with self._budget.window():
            # The SDK's shutdown leaves after 30 s what it has not exported; the budget is the user's to set.
            self.force_flush()
            super().shutdown()  # type: ignore[no-untyped-call]

    def _write_soon(self) -> None:
        # There is no public way to change the delay. Without it, files are only written less often.
        batches: Any = getattr(self, "_batch_processor", None)
        if hasattr(batches, "_schedule_delay"):
            batches._schedule_delay = FILE_SCHEDULE_DELAY / 1000


class BoundedMetricReader(PeriodicExportingMetricReader):
    """Collects metrics for a delivery; its shutdown takes no longer than the budget."""

    def __init__(self, exporter: FallbackMetricExporter, budget: ExitBudget) -> None:
        super().__init__(exporter)
        self._budget = budget
        after_fork(self._renew)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Collect and export once more, then stop."""
        with self._budget.window():
            # The SDK would leave after 30 s what is still under way; the budget is the user's to set.
            super().shutdown(max(timeout_millis, self._budget.longest * 1000), **kwargs)

    def _renew(self) -> None:
        # The SDK starts its thread anew, but keeps the lock, which an export of the parent's may hold.
        self._export_lock = threading.Lock()
