"""The agent from code: what the launcher does, and its undoing."""

from __future__ import annotations

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from storescope.instrumentation import StorescopeInstrumentor
from storescope.instrumentation.distro import configure_sdk, mark_process
from storescope.instrumentation.hooks import RequestHook, ResponseHook
from storescope.settings import process_settings


def instrument(
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    *,
    request_hook: RequestHook | None = None,
    response_hook: ResponseHook | None = None,
) -> None:
    """Observe this process's stores, imported or yet to be, as `opentelemetry-instrument` would.

    Without providers, and unless the application has set global ones, OpenTelemetry is set up as well: the
    destination is chosen from the environment. Does nothing where `STORESCOPE_ENABLED` or `OTEL_SDK_DISABLED`
    say so. Where the agent is at work already, under the launcher for instance, only the hooks are taken.

    Hooks are called for calls whose span is recorded: `request_hook(span, call)` before a call runs,
    `response_hook(span, call, result)` when it has ended; `result` is what it returned, or the exception that it
    raised. `call` is a `storescope.instrumentation.Call`. What a hook raises is logged once.
    """
    instrumentor = StorescopeInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        if request_hook or response_hook:
            instrumentor.use_hooks(request_hook, response_hook)
        return
    mark_process(process_settings())
    if tracer_provider is None and meter_provider is None:
        configure_sdk(process_settings())
    instrumentor.instrument(
        skip_dep_check=True,
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        request_hook=request_hook,
        response_hook=response_hook,
    )


def uninstrument() -> None:
    """Put every patched attribute back. What was recorded so far is still exported."""
    StorescopeInstrumentor().uninstrument()


def pause() -> None:
    """Record nothing until `resume()`; the patches stay."""
    StorescopeInstrumentor().pause()


def resume() -> None:
    """Record again after `pause()`."""
    StorescopeInstrumentor().resume()
