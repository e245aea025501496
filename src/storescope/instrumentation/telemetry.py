"""Where operations are recorded: a tracer, the duration histograms, and the switch."""

from __future__ import annotations

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram, Meter, MeterProvider
from opentelemetry.trace import TracerProvider

from storescope import __version__, semconv


class Telemetry:
    """The tracer and the histograms, in seconds, of one `instrument()`.

    Without providers of its own it follows the global ones, which the application may set later.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        keep_error_text: bool = True,
    ) -> None:
        self.tracer = trace.get_tracer(
            semconv.SCOPE_NAME, __version__, tracer_provider, schema_url=semconv.SCHEMA_URL
        )
        meter = metrics.get_meter(
            semconv.SCOPE_NAME, __version__, meter_provider, schema_url=semconv.SCHEMA_URL
        )
        self.requests = _duration(
            meter, semconv.CLIENT_OPERATION_DURATION, "Duration of an MCP request, as its sender sees it."
        )
        self.sessions = _duration(
            meter, semconv.CLIENT_SESSION_DURATION, "Duration of an MCP session, as the client sees it."
        )
        self.operations = _duration(
            meter,
            semconv.OPERATION_DURATION,
            "Duration of an operation of the store that reached no MCP server.",
        )
        self.keep_error_text = keep_error_text
        self._has_provider = tracer_provider is not None or meter_provider is not None
        self._enabled = True
        #: Whether recording is wanted and goes anywhere.
        self.live = self._has_provider

    def go_live(self) -> bool:
        """Look whether a provider has been set by now. Without an SDK nothing need be read or built."""
        if self._enabled and not self.live:
            # The API's own providers do nothing: they stand in until somebody sets real ones.
            providers = trace.get_tracer_provider(), metrics.get_meter_provider()
            self.live = self._has_provider or any(
                not type(provider).__module__.startswith(("opentelemetry.trace", "opentelemetry.metrics"))
                for provider in providers
            )
        return self.live

    def enable(self, enabled: bool) -> None:
        """Switch recording on or off; callables that somebody holds after `uninstrument()` pass through."""
        self._enabled = enabled
        self.live = enabled and self._has_provider


def _duration(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS
    )
