"""The agent."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from storescope.instrumentation.patching import Patcher
from storescope.instrumentation.process import is_spawned_server
from storescope.instrumentation.telemetry import Telemetry
from storescope.notices import make_heard
from storescope.settings import process_settings
from storescope.stores import load_adapters

__all__ = ["StorescopeInstrumentor"]


class StorescopeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Observes the stores of this process: patches what is imported, and what will be.

    `instrument()` takes `tracer_provider` and `meter_provider`; without them it follows the global ones.
    """

    _patcher: Patcher | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """Ask for nothing: a store that is not installed is not patched, and third parties bring their own."""
        return ()

    def pause(self) -> None:
        """Record nothing until `resume()`."""
        if self._patcher is not None:
            self._patcher.telemetry.enable(False)

    def resume(self) -> None:
        """Record again after `pause()`."""
        if self._patcher is not None:
            self._patcher.telemetry.enable(True)

    def _instrument(self, **kwargs: Any) -> None:
        settings = process_settings()
        if not settings.enabled or settings.sdk_disabled or is_spawned_server(settings):
            return
        make_heard()
        telemetry = Telemetry(
            kwargs.get("tracer_provider"),
            kwargs.get("meter_provider"),
            keep_error_text=settings.error_text,
        )
        self._patcher = Patcher(telemetry, load_adapters())

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._patcher is not None:
            self._patcher.undo()
            self._patcher = None
