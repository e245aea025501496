"""Where each signal goes: a configured receiver, one that answers on this machine, or the local file."""

from __future__ import annotations

import enum
import logging
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_log = logging.getLogger(__name__)

LOCAL_RECEIVER: Final = ("localhost", 4318)
PROBE_TIMEOUT: Final = 0.2
GRPC_PORT: Final = 4317


class Signal(enum.Enum):
    """A kind of telemetry, by the name that OpenTelemetry's variables have for it."""

    TRACES = "traces"
    METRICS = "metrics"
    LOGS = "logs"


class Protocol(enum.Enum):
    """How OTLP is spoken."""

    GRPC = "grpc"
    HTTP = "http/protobuf"


class Kind(enum.Enum):
    """What takes a signal."""

    OTLP = "otlp"
    FILE = "file"
    NAMED = "named"
    """An exporter of somebody else, that the user named."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a signal goes, and why."""

    signal: Signal
    kind: Kind
    reason: str
    #: Of OTLP: how, and the address that the exporter is given.
    protocol: Protocol | None = None
    endpoint: str = ""
    #: Of a named exporter: its entry point.
    name: str = ""

    @property
    def address(self) -> str:
        """The endpoint as it may be shown, without credentials and query."""
        parts = urlsplit(self.endpoint)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


#: The names under which the user may ask for an exporter that is ours to bound.
_OTLP_NAMES: Final[Mapping[str, Protocol | None]] = {
    "otlp": None,
    "otlp_proto_grpc": Protocol.GRPC,
    "otlp_proto_http": Protocol.HTTP,
}
_FILE_NAME: Final = "storescope_file"
_NONE: Final = "none"

Probe = Callable[[Signal], bool]


def choose(
    otel: Mapping[str, str], probe: Probe | None = None, signals: Iterable[Signal] = Signal
) -> tuple[Destination, ...]:
    """Decide where each signal goes from the `OTEL_*` variables; a signal that nobody wants is left out.

    Asks the local receiver, and waits up to 0.2 s for it, only where the variables leave traces or metrics open.
    Logs are exported only where the user names an exporter.
    """
    ask_once = _Once(probe or local_receiver_answers)
    chosen: list[Destination] = []
    for signal in signals:
        names = [name.strip() for name in otel.get(_variable("OTEL_{}_EXPORTER", signal), "").split(",")]
        names = list(dict.fromkeys(filter(None, names)))
        if names:
            chosen += _named(signal, names, otel)
        elif signal is not Signal.LOGS:
            chosen.append(_unnamed(signal, otel, ask_once))
    return tuple(chosen)


def local_receiver_answers(
    signal: Signal, address: tuple[str, int] = LOCAL_RECEIVER, timeout: float = PROBE_TIMEOUT
) -> bool:
    """Tell whether a receiver accepts an empty OTLP/HTTP export of a signal; takes at most `timeout` seconds.

    Speaks HTTP by hand: `http.client` bounds each read, and a server that answers in drops would hold the
    program up.
    """
    host, port = address
    request = (
        f"POST /v1/{signal.value} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/x-protobuf\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    ).encode()
    deadline = time.monotonic() + timeout
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return any(_status_is_ok(family, where, request, deadline) for family, _, _, _, where in found)


def _status_is_ok(family: int, where: tuple[object, ...], request: bytes, deadline: float) -> bool:
    """Send the request and read no more than the status line."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            _limit(connection, deadline)
            connection.connect(where)
            connection.sendall(request)
            answer = b""
            while b"\n" not in answer and len(answer) < 256:
                _limit(connection, deadline)
                received = connection.recv(256)
                if not received:
                    return False
                answer += received
    except OSError:
        return False
    version, _, rest = answer.partition(b" ")
    return version.startswith(b"HTTP/1.") and rest[:1] == b"2"


def _limit(connection: socket.socket, deadline: float) -> None:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    connection.settimeout(remaining)


class _Once:
    """Asks the first time; both signals share the answer, for one receiver takes both, or refuses one by itself."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self._answer: bool | None = None

    def __call__(self, signal: Signal) -> bool:
        if self._answer is None:
            self._answer = self._probe(signal)
        return self._answer


def _unnamed(signal: Signal, otel: Mapping[str, str], probe: Probe) -> Destination:
    endpoint, variable = _configured_endpoint(signal, otel)
    if endpoint:
        return otlp_destination(signal, otel, f"{variable} is set")
    host, port = LOCAL_RECEIVER
    if probe(signal):
        return Destination(
            signal,
            Kind.OTLP,
            f"a receiver answers on {host}:{port}",
            Protocol.HTTP,
            f"http://{host}:{port}/v1/{signal.value}",
        )
    return Destination(signal, Kind.FILE, f"no endpoint is set, and nothing answers on {host}:{port}")


def _named(signal: Signal, names: Iterable[str], otel: Mapping[str, str]) -> list[Destination]:
    variable = _variable("OTEL_{}_EXPORTER", signal)
    wanted = [name for name in names if name.lower() != _NONE]
    chosen: list[Destination] = []
    for name in wanted:
        reason = f"{variable} names {name}"
        if name in _OTLP_NAMES:
            chosen.append(otlp_destination(signal, otel, reason, _OTLP_NAMES[name]))
        elif name == _FILE_NAME and signal is not Signal.LOGS:
            chosen.append(Destination(signal, Kind.FILE, reason))
        elif name in _installed(signal):
            chosen.append(Destination(signal, Kind.NAMED, reason, name=name))
        else:
            known = sorted({*_OTLP_NAMES, _NONE, *_installed(signal)})
            _log.warning(
                "storescope: %s names no exporter that is installed: %r; known are %s",
                variable,
                name,
                ", ".join(known),
            )
    if wanted and not chosen and signal is not Signal.LOGS:
        return [Destination(signal, Kind.FILE, f"{variable} names no exporter that is installed")]
    return chosen


def _installed(signal: Signal) -> set[str]:
    return {found.name for found in entry_points(group=f"opentelemetry_{signal.value}_exporter")}


def otlp_destination(
    signal: Signal, otel: Mapping[str, str], reason: str, protocol: Protocol | None = None
) -> Destination:
    """Return the receiver that the variables configure for a signal, else the usual one on this machine."""
    endpoint, variable = _configured_endpoint(signal, otel)
    protocol = protocol or _configured_protocol(signal, otel) or _protocol_of(endpoint)
    if protocol is Protocol.GRPC:
        return Destination(signal, Kind.OTLP, reason, protocol, endpoint or f"http://localhost:{GRPC_PORT}")
    if not endpoint:
        endpoint = "http://{}:{}".format(*LOCAL_RECEIVER)
    if variable == _GENERAL_ENDPOINT or not variable:
        endpoint = f"{endpoint.rstrip('/')}/v1/{signal.value}"
    return Destination(signal, Kind.OTLP, reason, protocol, endpoint)


_GENERAL_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_ENDPOINT"


def _configured_endpoint(signal: Signal, otel: Mapping[str, str]) -> tuple[str, str]:
    """Return the endpoint that is set for a signal and the variable that says so; the signal's own goes first."""
    for variable in (_variable("OTEL_EXPORTER_OTLP_{}_ENDPOINT", signal), _GENERAL_ENDPOINT):
        if endpoint := otel.get(variable):
            return endpoint, variable
    return "", ""


def _configured_protocol(signal: Signal, otel: Mapping[str, str]) -> Protocol | None:
    for variable in (_variable("OTEL_EXPORTER_OTLP_{}_PROTOCOL", signal), "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if name := otel.get(variable):
            try:
                return Protocol(name)
            except ValueError:
                known = " or ".join(protocol.value for protocol in Protocol)
                _log.warning(
                    "storescope: %s=%s is not %s; the endpoint's port decides", variable, name, known
                )
                return None
    return None


def _protocol_of(endpoint: str) -> Protocol:
    """Tell the protocol by the port: HTTP sent to a gRPC port exports nothing and delays the exit."""
    try:
        port = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}").port
    except ValueError:
        port = None
    return Protocol.GRPC if port == GRPC_PORT else Protocol.HTTP


def _variable(pattern: str, signal: Signal) -> str:
    return pattern.format(signal.value.upper())
