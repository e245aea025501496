"""The agent."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from storescope.instrumentation.forks import CountsFromZero
from storescope.instrumentation.hooks import Call, Hooks, RequestHook, ResponseHook
from storescope.instrumentation.in_flight import operations
from storescope.instrumentation.log_handlers import LogHandlers
from storescope.instrumentation.patching import Patcher
from storescope.instrumentation.process import is_spawned_server
from storescope.instrumentation.telemetry import Telemetry
from storescope.notices import make_heard
from storescope.settings import process_settings
from storescope.stores import load_adapters

__all__ = ["Call", "StorescopeInstrumentor"]


class StorescopeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Observes the stores of this process: patches what is imported, and what will be.

    `instrument()` takes `tracer_provider` and `meter_provider`, without which it follows the global ones, and
    `request_hook(span, call)` and `response_hook(span, call, result)`.
    """

    _patcher: Patcher | None = None
    _log_handlers: LogHandlers | None = None
    _counts: CountsFromZero | None = None

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

    def use_hooks(self, request_hook: RequestHook | None, response_hook: ResponseHook | None) -> None:
        """Call these from now on, before and after every call whose span is recorded."""
        if self._patcher is not None:
            self._patcher.telemetry.hooks = (
                Hooks(request_hook, response_hook) if request_hook or response_hook else None
            )

    def _instrument(self, **kwargs: Any) -> None:
        settings = process_settings()
        if not settings.enabled or settings.sdk_disabled or is_spawned_server(settings):
            return
        make_heard()
        telemetry = Telemetry(
            kwargs.get("tracer_provider"),
            kwargs.get("meter_provider"),
            settings=settings,
        )
        operations.watch(settings.stuck_after)
        self._counts = CountsFromZero(kwargs.get("meter_provider"))
        self._log_handlers = LogHandlers()
        self._patcher = Patcher(telemetry, load_adapters(settings))
        self.use_hooks(kwargs.get("request_hook"), kwargs.get("response_hook"))

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._patcher is not None:
            self._patcher.undo()
            operations.stop()
            self._patcher = self._counts = None
        if self._log_handlers is not None:
            self._log_handlers.undo()
            self._log_handlers = None
