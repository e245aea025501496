"""Builds OpenTelemetry's providers as the environment asks for them, on exporters that never hurt."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk import _configuration
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from storescope import __version__
from storescope.export.delivery import Delivery, LocalDelivery, Once, OtlpDelivery
from storescope.export.destination import Destination, Kind, Signal, choose
from storescope.export.fallback import BoundedMetricReader, BoundedSpanProcessor, FallbackMetricExporter
from storescope.export.otlp import build_exporter
from storescope.instrumentation.closing import Closing
from storescope.instrumentation.process import program_name, was_spawned_as_server
from storescope.settings import Settings

_log = logging.getLogger(__name__)

#: Parameters of a provider that the SDK's own configurator fills: the variable that asks, and the SDK's private
#: functions that read and load what it names. One that a release has not is left to the provider.
_TRACER_COMPONENTS: Final = {
    "sampler": ("OTEL_TRACES_SAMPLER", "_get_sampler", "_import_sampler"),
    "id_generator": ("OTEL_PYTHON_ID_GENERATOR", "_get_id_generator", "_import_id_generator"),
    "_tracer_configurator": (
        "OTEL_PYTHON_TRACER_CONFIGURATOR",
        "_get_tracer_configurator",
        "_import_tracer_configurator",
    ),
}
_METER_COMPONENTS: Final = {
    "_meter_configurator": (
        "OTEL_PYTHON_METER_CONFIGURATOR",
        "_get_meter_configurator",
        "_import_meter_configurator",
    ),
}


def set_providers(settings: Settings, auto_version: str | None = None) -> None:
    """Set the global providers that the application has not set itself, and register what happens at exit.

    Does nothing the second time.
    """
    if Closing.current is not None:
        return
    closing = Closing(settings)
    with closing.around_providers():
        unset = _unset_signals()
        builder = _Builder(settings, closing)
        chosen = choose(settings.otel, signals=unset)
        resource = describe_process(settings, auto_version)
        # Tracing last, so that it is shut down first: what is lost then is still counted in the metrics.
        builder.set_logger_provider(resource, [to for to in chosen if to.signal is Signal.LOGS])
        if Signal.METRICS in unset:
            builder.set_meter_provider(resource, [to for to in chosen if to.signal is Signal.METRICS])
        if Signal.TRACES in unset:
            builder.set_tracer_provider(resource, [to for to in chosen if to.signal is Signal.TRACES])


def describe_process(settings: Settings, auto_version: str | None = None) -> Resource:
    """Describe this process as the user asked for; where he gave it no name it has its program's.

    A server that is awake beside the application that spawned it has inherited the application's name, and
    takes its own.
    """
    attributes = {"telemetry.distro.name": "storescope", "telemetry.distro.version": __version__}
    if auto_version:
        attributes["telemetry.auto.version"] = auto_version
    resource = Resource.create(attributes)
    unnamed = str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    if unnamed or was_spawned_as_server(settings):
        resource = resource.merge(Resource({SERVICE_NAME: program_name()}))
    return resource


class _Builder:
    """Builds the three providers on what was chosen."""

    def __init__(self, settings: Settings, closing: Closing) -> None:
        self._settings = settings
        self._closing = closing
        self._say_kept = Once()
        self._say_lost = Once()

    def set_tracer_provider(self, resource: Resource, chosen: list[Destination]) -> None:
        provider = TracerProvider(resource=resource, **_components(_TRACER_COMPONENTS, self._settings))
        trace.set_tracer_provider(provider)
        for destination in chosen:
            if processor := self._span_processor(destination):
                provider.add_span_processor(processor)
        self._closing.shutdowns.insert(0, provider.shutdown)

    def set_meter_provider(self, resource: Resource, chosen: list[Destination]) -> None:
        readers = [reader for destination in chosen if (reader := self._metric_reader(destination))]
        provider = MeterProvider(readers, resource, **_components(_METER_COMPONENTS, self._settings))
        metrics.set_meter_provider(provider)
        self._closing.shutdowns.append(provider.shutdown)

    def set_logger_provider(self, resource: Resource, chosen: list[Destination]) -> None:
        exporters = {
            destination.reason: factory
            for destination in chosen
            if (factory := self._log_exporter(destination))
        }
        set_up = getattr(_configuration, "_init_logging", None)
        if exporters and set_up is not None:
            handler = self._settings.otel.get("OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED", "")
            set_up(exporters, resource, handler.lower() == "true")

    def _span_processor(self, destination: Destination) -> SpanProcessor | None:
        if destination.kind is Kind.NAMED:
            exporter = _load(destination)
            return BatchSpanProcessor(exporter()) if exporter else None
        return BoundedSpanProcessor(
            self._delivery(destination),
            self._closing.budget,
            keep_delay="OTEL_BSP_SCHEDULE_DELAY" in self._settings.otel,
        )

    def _metric_reader(self, destination: Destination) -> MetricReader | None:
        if destination.kind is Kind.NAMED:
            return _named_reader(_load(destination))
        exporter = FallbackMetricExporter(self._delivery(destination))
        return BoundedMetricReader(exporter, self._closing.budget)

    def _log_exporter(self, destination: Destination) -> Any:
        if destination.kind is Kind.NAMED:
            return _load(destination)
        from storescope.export.fallback_logs import FallbackLogExporter

        return functools.partial(FallbackLogExporter, self._delivery(destination))

    def _delivery(self, destination: Destination) -> Delivery:
        local = LocalDelivery(destination.signal, self._file(destination.signal), self._say_lost)
        delivery: Delivery = local
        if destination.kind is Kind.OTLP:
            build = functools.partial(build_exporter, destination, self._settings.otel)
            try:
                delivery = OtlpDelivery(destination, build, local, self._closing.budget, self._say_kept)
            except Exception as error:
                address, signal = destination.address, destination.signal.value
                _log.warning("storescope: no exporter for %s (%s); %s are not sent", address, error, signal)
        self._closing.deliveries.insert(0, delivery)
        return delivery

    def _file(self, signal: Signal) -> Any:
        from storescope.export.file import FileMetricExporter, FileSpanExporter

        if signal is Signal.TRACES:
            return FileSpanExporter(self._settings)
        return FileMetricExporter(self._settings) if signal is Signal.METRICS else None


def _unset_signals() -> list[Signal]:
    """Return the signals whose providers are still those of the API, which wait for real ones."""
    from opentelemetry._logs import get_logger_provider

    providers = {
        Signal.TRACES: trace.get_tracer_provider(),
        Signal.METRICS: metrics.get_meter_provider(),
        Signal.LOGS: get_logger_provider(),
    }
    return [signal for signal, provider in providers.items() if "Proxy" in type(provider).__name__]


def _components(table: Mapping[str, tuple[str, str, str]], settings: Settings) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for parameter, (variable, read, load) in table.items():
        if variable in settings.otel and hasattr(_configuration, read) and hasattr(_configuration, load):
            found[parameter] = getattr(_configuration, load)(getattr(_configuration, read)())
    return found


def _named_reader(named: type[MetricReader | MetricExporter] | None) -> MetricReader | None:
    if named is None:
        return None
    made = named()
    return made if isinstance(made, MetricReader) else PeriodicExportingMetricReader(made)


def _load(destination: Destination) -> Any:
    group = f"opentelemetry_{destination.signal.value}_exporter"
    try:
        return next(iter(entry_points(group=group, name=destination.name))).load()
    except Exception:
        _log.warning("storescope: %s, which cannot be loaded", destination.reason, exc_info=True)
        return None
