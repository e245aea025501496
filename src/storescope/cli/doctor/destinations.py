"""Where each signal would go, whether the receiver answers, and the state of the folder of local files."""

from __future__ import annotations

import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from storescope.cli.doctor.findings import Finding, ok, problem, warning
from storescope.cli.receivers import headers, of_signal, receiver_of
from storescope.export.destination import GRPC_PORT, Destination, Kind, Protocol, Signal, choose
from storescope.insight import words
from storescope.insight.outgoing import PATTERNS
from storescope.insight.receiver import Unreachable
from storescope.settings import Settings

#: Seconds that a receiver may take to answer an empty export.
_TIMEOUT: Final = 2.0
_PROTOBUF: Final = "application/x-protobuf"
_SERVICES: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
_START_IT: Final = (
    "Start the receiver or correct the endpoint; until then telemetry is kept in the local files."
)


def signals(settings: Settings) -> Iterator[Finding]:
    """Where traces, metrics and (if asked for) logs go, and whether they arrive."""
    chosen = choose(settings.otel)
    for destination in chosen:
        yield _ASK[destination.kind](destination, settings)
    for signal in (Signal.TRACES, Signal.METRICS):
        if not any(destination.signal is signal for destination in chosen):
            variable = f"OTEL_{signal.value.upper()}_EXPORTER"
            yield warning(
                signal.value, f"go nowhere: {variable} says none", f"Unset {variable} to have them exported."
            )


def folder(settings: Settings) -> Iterator[Finding]:
    """Whether local files can be written, who can read them, and how much room there is."""
    path = settings.directory
    if fault := _fault(path):
        advice = "Set STORESCOPE_DIR to a folder that this user may write to."
        yield problem("local files", f"{path} {fault}", advice)
        return
    if not path.exists():
        yield ok("local files", f"{path} does not exist yet, and can be made")
        return
    if sys.platform != "win32" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning("local files", f"others may look into {path}", f"Run: chmod 700 {path}")
    yield _room(path, settings)


def _to_file(destination: Destination, settings: Settings) -> Finding:
    return ok(destination.signal.value, f"go to the local files: {destination.reason}")


def _to_another(destination: Destination, settings: Settings) -> Finding:
    text = f"go to the exporter {destination.name}, which is not asked: {destination.reason}"
    return ok(destination.signal.value, text)


def _to_receiver(destination: Destination, settings: Settings) -> Finding:
    by_grpc = destination.protocol is Protocol.GRPC
    return _ask_grpc(destination, settings) if by_grpc else _ask_http(destination, settings)


#: Less room than this is none: a batch may not fit.
_LEAST_ROOM: Final = 1024 * 1024

_ASK: Final = {Kind.FILE: _to_file, Kind.NAMED: _to_another, Kind.OTLP: _to_receiver}


def _ask_http(destination: Destination, settings: Settings) -> Finding:
    signal, receiver = destination.signal.value, receiver_of(destination, settings.otel, _TIMEOUT)
    try:
        answer = receiver.post(b"", _PROTOBUF)
    except Unreachable as error:
        return problem(signal, f"{error} ({destination.reason})", _START_IT)
    if answer.accepted:
        return ok(signal, f"go to {receiver.address}, which accepts them: {destination.reason}")
    if answer.takes_no_such_signal:
        return _takes_none(destination, f"HTTP {answer.status}")
    return problem(
        signal,
        f"{receiver.address} answers HTTP {answer.status} to an empty export",
        "See to OTEL_EXPORTER_OTLP_HEADERS, which carries the credentials."
        if answer.status in {401, 403}
        else "See the receiver's own log for the reason.",
    )


def _takes_none(destination: Destination, answer: str) -> Finding:
    signal = destination.signal.value
    return warning(
        signal,
        f"{destination.address} takes no {signal} ({answer}): they go to the local files",
        f"Set OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT to a receiver that does, or leave it so.",
    )


def _ask_grpc(destination: Destination, settings: Settings) -> Finding:
    """Connect, then call the service with an empty export."""
    signal, address = destination.signal.value, destination.address
    try:
        parts = urlsplit(
            destination.endpoint if "//" in destination.endpoint else f"//{destination.endpoint}"
        )
        host, port = parts.hostname or "localhost", parts.port or GRPC_PORT
        socket.create_connection((host, port), _TIMEOUT).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        return problem(signal, f"{address} cannot be reached ({reason}) ({destination.reason})", _START_IT)
    status, said = _export_nothing(destination, f"{host}:{port}", parts.scheme, settings)
    if status == "OK":
        return ok(signal, f"go to {address} by gRPC, which accepts them: {destination.reason}")
    if status == "UNIMPLEMENTED":
        return _takes_none(destination, "gRPC UNIMPLEMENTED")
    advice = (
        "Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf if it is an HTTP port, or see the receiver's own log."
    )
    return problem(signal, f"{address} answers gRPC {status} to an empty export: {said}", advice)


def _export_nothing(
    destination: Destination, target: str, scheme: str, settings: Settings
) -> tuple[str, str]:
    """Call the service; return the name of the status and what came with it."""
    import grpc

    signal, otel = destination.signal, settings.otel
    insecure = of_signal("INSECURE", signal, otel).lower() == "true" or scheme == "http"
    if insecure and scheme != "https":
        channel = grpc.insecure_channel(target)
    else:
        certificate = of_signal("CERTIFICATE", signal, otel)
        trusted = Path(certificate).read_bytes() if certificate else None
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(trusted))
    with channel:
        call: Any = channel.unary_unary(_SERVICES[signal])
        try:
            call(b"", timeout=_TIMEOUT, metadata=tuple(headers(signal, otel).items()))
        except grpc.RpcError as error:
            answer: Any = error
            return answer.code().name, words.plain(answer.details() or "", 200)
    return "OK", ""


def _fault(path: Path) -> str:
    """Say why a folder cannot be written to; a file without a name tells, and leaves nothing behind."""
    if path.is_symlink():
        return "is a symbolic link, which is not followed"
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        return "is no folder" if place == path else f"cannot be made: {place} is no folder"
    try:
        tempfile.TemporaryFile(dir=place).close()
    except OSError as error:
        return f"cannot be {'written to' if place == path else 'made'} ({error.strerror})"
    return ""


def _room(path: Path, settings: Settings) -> Finding:
    files = [file for pattern in PATTERNS for file in path.glob(pattern)]
    held = sum(file.stat().st_size for file in files if file.exists())
    limit, free = settings.directory_max_bytes, shutil.disk_usage(path).free
    text = f"{path} has {words.plural(len(files), 'file')}, {words.size(held)} of {words.size(limit)}"
    if free < _LEAST_ROOM:
        return problem(
            "local files", f"{text}, and its disk is full", "Free some space, or set STORESCOPE_DIR."
        )
    if free < limit - held:
        advice = "Free some space, or lower STORESCOPE_DIR_MAX_BYTES."
        return warning("local files", f"{text}, but only {words.size(free)} is free on its disk", advice)
    return ok("local files", f"{text}; the oldest go first")
