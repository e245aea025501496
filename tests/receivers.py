"""OTLP receivers on this machine, well-behaved and not, that remember what they were sent."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Reply:
    """An answer that says more than its status."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


#: Given the signal and how many of its requests came before, the answer, or its HTTP status.
Answer = Callable[[str, int], "int | Reply"]

_REQUESTS: dict[str, type[Message]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


@dataclass
class Receiver:
    """What a receiver was sent and took."""

    endpoint: str
    #: The signal of every request, taken or not.
    requests: list[str] = field(default_factory=list)
    spans: list[str] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    logs: list[str] = field(default_factory=list)
    #: Path, headers in lower case, and size of every HTTP request, taken or not.
    posts: list[tuple[str, dict[str, str], int]] = field(default_factory=list)
    #: Accepted requests as they were understood.
    messages: list[Any] = field(default_factory=list)

    def take(self, signal: str, body: bytes, *, as_json: bool = False) -> None:
        """Read an accepted request; refuses what is no OTLP."""
        kind = _REQUESTS[signal]
        message: Any = (
            ParseDict(_with_base64_ids(json.loads(body)), kind()) if as_json else kind.FromString(body)
        )
        self.messages.append(message)
        if signal == "traces":
            for resource in message.resource_spans:
                self.spans += [span.name for scope in resource.scope_spans for span in scope.spans]
        elif signal == "metrics":
            for measured in message.resource_metrics:
                self.metrics += [metric.name for scope in measured.scope_metrics for metric in scope.metrics]
        else:
            for logged in message.resource_logs:
                self.logs += [
                    record.body.string_value for scope in logged.scope_logs for record in scope.log_records
                ]


def _with_base64_ids(value: Any) -> Any:
    """Write ids as protobuf's own JSON has them: OTLP's has them in hex."""
    match value:
        case dict():
            return {
                key: base64.b64encode(bytes.fromhex(part)).decode()
                if key in {"traceId", "spanId", "parentSpanId"}
                else _with_base64_ids(part)
                for key, part in value.items()
            }
        case list():
            return [_with_base64_ids(part) for part in value]
        case _:
            return value


def accept(signal: str, earlier: int) -> int:
    """Accept everything."""
    return 200


@contextmanager
def http_receiver(answer: Answer = accept, delay: float = 0) -> Iterator[Receiver]:
    """Receive OTLP/HTTP; each answer takes `delay` seconds."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            signal = self.path.partition("?")[0].rsplit("/", 1)[-1]
            answered = answer(signal, receiver.requests.count(signal))
            reply = answered if isinstance(answered, Reply) else Reply(answered)
            receiver.requests.append(signal)
            headers = {name.lower(): text for name, text in self.headers.items()}
            receiver.posts.append((self.path, headers, len(body)))
            if reply.status == 200:
                receiver.take(signal, body, as_json=headers.get("content-type") == "application/json")
            time.sleep(delay)
            self.send_response(reply.status)
            for name, text in {"Content-Length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver = Receiver(f"http://127.0.0.1:{server.server_address[1]}")
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def grpc_receiver(refused: frozenset[str] = frozenset()) -> Iterator[Receiver]:
    """Receive OTLP/gRPC; a signal that is refused is answered with UNIMPLEMENTED."""
    services = {
        "opentelemetry.proto.collector.trace.v1.TraceService": "traces",
        "opentelemetry.proto.collector.metrics.v1.MetricsService": "metrics",
    }

    def export(signal: str, body: bytes, context: grpc.ServicerContext) -> bytes:
        receiver.requests.append(signal)
        if signal in refused:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, f"no {signal} here")
        receiver.take(signal, body)
        return b""

    def handler(signal: str) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(lambda body, context: export(signal, body, context))

    server = grpc.server(ThreadPoolExecutor(4))
    for service, signal in services.items():
        methods = grpc.method_handlers_generic_handler(service, {"Export": handler(signal)})
        server.add_generic_rpc_handlers((methods,))
    receiver = Receiver(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield receiver
    finally:
        server.stop(None)


@contextmanager
def hanging_receiver() -> Iterator[Receiver]:
    """Accept connections and never answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken: list[socket.socket] = []

        def accept_all() -> None:
            try:
                while True:
                    taken.append(listener.accept()[0])
            except OSError:
                pass

        threading.Thread(target=accept_all, daemon=True).start()
        try:
            yield Receiver(f"http://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            for connection in taken:
                connection.close()


@contextmanager
def refused_port() -> Iterator[Receiver]:
    """Hold a port on which nobody listens, so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Receiver(f"http://127.0.0.1:{held.getsockname()[1]}")
