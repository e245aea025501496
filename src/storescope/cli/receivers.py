"""OTLP/HTTP receivers as OpenTelemetry's variables describe them."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.util.re import parse_env_headers

from storescope.export.destination import Destination, Signal
from storescope.insight.receiver import Receiver


def receiver_of(destination: Destination, otel: Mapping[str, str], timeout: float) -> Receiver:
    """Return the receiver of a signal: its headers and certificate are what the stock exporter would use."""
    return Receiver(
        destination.endpoint,
        headers(destination.signal, otel),
        timeout,
        of_signal("CERTIFICATE", destination.signal, otel) or None,
    )


def headers(signal: Signal, otel: Mapping[str, str]) -> dict[str, str]:
    """Read the headers of a signal, or those for all."""
    return dict(parse_env_headers(of_signal("HEADERS", signal, otel), liberal=True))


def of_signal(option: str, signal: Signal, otel: Mapping[str, str]) -> str:
    """Return an option of the OTLP exporters: the signal's own, else that for all, else nothing."""
    own = otel.get(f"OTEL_EXPORTER_OTLP_{signal.value.upper()}_{option}", "")
    return own or otel.get(f"OTEL_EXPORTER_OTLP_{option}", "")
