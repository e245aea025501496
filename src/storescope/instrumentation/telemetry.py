"""Where operations are recorded: a tracer, the duration histograms, and the switch."""

from __future__ import annotations

import fnmatch
import logging
import re
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.metrics import Histogram, Meter, MeterProvider
from opentelemetry.trace import Tracer, TracerProvider

from storescope import __version__, semconv
from storescope.instrumentation.hooks import Hooks
from storescope.instrumentation.in_flight import operations
from storescope.instrumentation.payloads import Payloads
from storescope.settings import Settings
from storescope.stores import Attributes, Subject

_log = logging.getLogger(__name__)

#: Names of tools and prompts that metrics tell apart; all others share one series for each of their services. Agents
#: make names up, and every series is kept in memory for as long as the program runs.
MAX_NAMES: Final = 1000
#: Names besides these, that only failed so far.
MAX_DOUBTFUL_NAMES: Final = 100


class _Names:
    """The names of one kind that metrics tell apart."""

    __slots__ = ("_doubtful", "known")

    def __init__(self) -> None:
        self.known: set[object] = set()
        self._doubtful: set[object] = set()

    def admit(self, name: object, *, exists: bool) -> bool:
        """Tell whether a name is one of those, or can become one."""
        if name in self.known:
            return True
        names, most = (self.known, MAX_NAMES) if exists else (self._doubtful, MAX_DOUBTFUL_NAMES)
        if name not in names and len(names) >= most:
            return False
        names.add(name)
        return True


class Telemetry:
    """The tracer and the histograms, in seconds, of one `instrument()`.

    Without providers of its own it follows the global ones, which the application may set later.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        settings = settings or Settings()
        self._tracer_provider = tracer_provider
        self._library_tracers: dict[str, Tracer] = {}
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
        meter.create_observable_up_down_counter(
            semconv.OPERATIONS_ACTIVE,
            [operations.observe],
            unit="{operation}",
            description="Operations that have begun and not ended.",
        )
        self.payloads = Payloads(settings)
        self.hooks: Hooks | None = None
        patterns = [fnmatch.translate(pattern) for pattern in settings.excluded_tools]
        self.exclusions = re.compile("|".join(patterns)) if patterns else None
        self._tools, self._services = _Names(), _Names()
        self._names = {
            semconv.GEN_AI_TOOL_NAME: self._tools,
            semconv.SERVICE_NAME: self._services,
            semconv.GEN_AI_PROMPT_NAME: _Names(),
        }
        self._overflowed = False
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

    def library_tracer(self, scope: str) -> Tracer:
        """Return the tracer that a library makes spans of its own with."""
        if scope not in self._library_tracers:
            self._library_tracers[scope] = trace.get_tracer(scope, tracer_provider=self._tracer_provider)
        return self._library_tracers[scope]

    def excludes(self, subject: Subject) -> bool:
        """Tell whether a call is not to be recorded, because of its tool's name on the wire or in the store."""
        if self.exclusions is None:
            return False
        attributes = subject.span_attributes
        names = attributes.get(semconv.GEN_AI_TOOL_NAME), attributes.get(semconv.TOOL_ALIAS)
        return any(isinstance(name, str) and self.exclusions.match(name) for name in names)

    def bounded(self, attributes: Attributes, *, exists: bool) -> Attributes:
        """Return the attributes of a metric, without names beyond the first `MAX_NAMES` of their kind.

        A name that no call has succeeded with yet may be made up, and cannot take the place of one that `exists`.
        """
        tool, service = attributes.get(semconv.GEN_AI_TOOL_NAME), attributes.get(semconv.SERVICE_NAME)
        if tool in self._tools.known and service in self._services.known:
            return attributes  # as most calls are
        excess = [
            key
            for key, names in self._names.items()
            if key in attributes and not names.admit(attributes[key], exists=exists)
        ]
        if not excess:
            return attributes
        if not self._overflowed:
            self._overflowed = True
            _log.warning(
                "storescope: more than %d names of tools, prompts or services; metrics show the others together, as %s",
                MAX_NAMES if exists else MAX_DOUBTFUL_NAMES,
                semconv.METRIC_OVERFLOW,
            )
        kept = {key: value for key, value in attributes.items() if key not in excess}
        return {**kept, semconv.METRIC_OVERFLOW: True}

    def enable(self, enabled: bool) -> None:
        """Switch recording on or off; callables that somebody holds after `uninstrument()` pass through."""
        self._enabled = enabled
        self.live = enabled and self._has_provider


def _duration(meter: Meter, name: str, description: str) -> Histogram:
    return meter.create_histogram(
        name, unit="s", description=description, explicit_bucket_boundaries_advisory=semconv.DURATION_BUCKETS
    )
