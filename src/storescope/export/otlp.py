"""The stock OTLP exporters, loaded when they are chosen, and told apart when a receiver does not take a signal."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from storescope.export.destination import Destination, Protocol, Signal

_log = logging.getLogger(__name__)

#: Seconds. The stock 10 lose what a receiver is away for longer, however empty the queue.
DEFAULT_TIMEOUT: Final = 60.0

#: Statuses by which a receiver says that it has no place for a signal.
_REFUSALS: Final = frozenset({404, 405})

_CLASSES: Final[Mapping[tuple[Signal, Protocol], tuple[str, str]]] = {
    (Signal.TRACES, Protocol.HTTP): ("http.trace_exporter", "OTLPSpanExporter"),
    (Signal.TRACES, Protocol.GRPC): ("grpc.trace_exporter", "OTLPSpanExporter"),
    (Signal.METRICS, Protocol.HTTP): ("http.metric_exporter", "OTLPMetricExporter"),
    (Signal.METRICS, Protocol.GRPC): ("grpc.metric_exporter", "OTLPMetricExporter"),
    (Signal.LOGS, Protocol.HTTP): ("http._log_exporter", "OTLPLogExporter"),
    (Signal.LOGS, Protocol.GRPC): ("grpc._log_exporter", "OTLPLogExporter"),
}


class Refused(BaseException):
    """A receiver does not take this signal.

    Not an `Exception`: it has to pass through the stock exporters, which make of those a failed batch that
    looks like any other, and an error line in the log.
    """


def build_exporter(destination: Destination, otel: Mapping[str, str]) -> Any:
    """Load and build the stock exporter of a destination; its `export` raises `Refused` where that can be told."""
    if destination.protocol is None:
        raise ValueError(f"{destination} is no OTLP destination")
    module, name = _CLASSES[destination.signal, destination.protocol]
    exporter_class = getattr(import_module(f"opentelemetry.exporter.otlp.proto.{module}"), name)
    options: dict[str, Any] = {"endpoint": destination.endpoint}
    if not _is_set("OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_{}_TIMEOUT", destination.signal, otel):
        options["timeout"] = DEFAULT_TIMEOUT
    if destination.protocol is Protocol.GRPC:
        return _watch_stub(exporter_class(**options))
    if not _is_set(
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER",
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_{}_CREDENTIAL_PROVIDER",
        destination.signal,
        otel,
    ):
        # A credential provider brings a session of its own, which ours would replace.
        options["session"] = _watched_session()
    return exporter_class(**options)


def _is_set(general: str, pattern: str, signal: Signal, otel: Mapping[str, str]) -> bool:
    return general in otel or pattern.format(signal.value.upper()) in otel


def _watched_session() -> Any:
    import requests

    session = requests.Session()
    session.hooks["response"].append(_raise_refusal)
    return session


def _raise_refusal(response: Any, *_: object, **__: object) -> None:
    if response.status_code in _REFUSALS:
        response.close()
        raise Refused(f"HTTP {response.status_code}")


def _watch_stub(exporter: Any) -> Any:
    """Have an exporter's calls raise `Refused` on UNIMPLEMENTED.

    The exporter takes no interceptor and makes its own channel, again after an outage. Its stub is wrapped where
    it makes it; where a release has none, a refused batch fails as any other and goes to the file.
    """
    try:
        make_stub = exporter._stub
        exporter._stub = functools.partial(_watched_stub, make_stub)
        exporter._client = exporter._stub(exporter._channel)
    except AttributeError:
        _log.debug("this gRPC exporter does not show why it fails", exc_info=True)
    return exporter


def _watched_stub(make_stub: Callable[[Any], Any], channel: Any) -> Any:
    from grpc import RpcError, StatusCode

    stub = make_stub(channel)
    call = stub.Export

    def export(*args: Any, **kwargs: Any) -> Any:
        try:
            return call(*args, **kwargs)
        except RpcError as error:
            if error.code() is StatusCode.UNIMPLEMENTED:
                raise Refused("gRPC UNIMPLEMENTED") from error
            raise

    stub.Export = export
    return stub
