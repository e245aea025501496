"""The log exporter of a delivery, apart because most programs export no logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from storescope.export.delivery import Delivery


class FallbackLogExporter(LogRecordExporter):
    """Exports log records by a delivery."""

    def __init__(self, delivery: Delivery) -> None:
        self._delivery = delivery

    def export(self, batch: Sequence[Any]) -> LogRecordExportResult:
        """Deliver a batch."""
        return (
            LogRecordExportResult.SUCCESS if self._delivery.deliver(batch) else LogRecordExportResult.FAILURE
        )

    def shutdown(self) -> None:
        """Release what the delivery holds."""
        self._delivery.close()

    def force_flush(self, timeout_millis: int = 10_000) -> bool:
        """Return True: nothing is held back here."""
        return True
