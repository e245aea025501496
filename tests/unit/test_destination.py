"""Where each signal goes, by what the variables say and by who answers on this machine."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from receivers import hanging_receiver, http_receiver, refused_port

from storescope.export.destination import (
    Destination,
    Kind,
    Protocol,
    Signal,
    choose,
    local_receiver_answers,
)

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
GRPC_ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}


class Probe:
    """Answers for the receiver on this machine, and remembers whether it was asked."""

    def __init__(self, answers: bool) -> None:
        self._answers = answers
        self.asked: list[Signal] = []

    def __call__(self, signal: Signal) -> bool:
        self.asked.append(signal)
        return self._answers


def decide(
    variables: Mapping[str, str], *, answers: bool = False
) -> tuple[dict[Signal, list[Destination]], Probe]:
    probe = Probe(answers)
    chosen: dict[Signal, list[Destination]] = {signal: [] for signal in Signal}
    for destination in choose(variables, probe):
        chosen[destination.signal].append(destination)
    return chosen, probe


def short(variables: Mapping[str, str], signal: Signal = Signal.TRACES) -> tuple[Kind, Protocol | None, str]:
    """Return what matters of the one destination of a signal; nobody answers on this machine."""
    (destination,) = decide(variables)[0][signal]
    return destination.kind, destination.protocol, destination.endpoint


def test_without_endpoint_and_receiver_traces_and_metrics_go_to_the_file_and_logs_nowhere() -> None:
    """The default on a fresh machine."""
    chosen, probe = decide({})
    assert [[to.kind for to in destinations] for destinations in chosen.values()] == [
        [Kind.FILE],
        [Kind.FILE],
        [],
    ]
    assert len(probe.asked) == 1


def test_a_receiver_that_answers_on_this_machine_gets_traces_and_metrics() -> None:
    """It was asked once, over HTTP, so it is spoken to over HTTP, whatever protocol is set."""
    chosen, probe = decide({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, answers=True)
    (traces,), (metrics,), logs = chosen.values()
    assert (traces.protocol, traces.endpoint) == (Protocol.HTTP, "http://localhost:4318/v1/traces")
    assert (metrics.protocol, metrics.endpoint) == (Protocol.HTTP, "http://localhost:4318/v1/metrics")
    assert not logs
    assert probe.asked == [Signal.TRACES]


def test_a_configured_endpoint_goes_before_the_receiver_on_this_machine() -> None:
    """Nobody is asked, and each signal gets its path."""
    chosen, probe = decide(ENDPOINT, answers=True)
    (traces,), (metrics,), logs = chosen.values()
    assert traces.endpoint == "http://collector:4318/v1/traces"
    assert metrics.endpoint == "http://collector:4318/v1/metrics"
    assert not logs
    assert not probe.asked


def test_an_endpoint_of_one_signal_leaves_the_other_open() -> None:
    """The signal's own endpoint is taken as it is; the other signal goes where it would go without."""
    chosen, probe = decide({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://jaeger:14318/in"})
    assert chosen[Signal.TRACES][0].endpoint == "http://jaeger:14318/in"
    assert chosen[Signal.METRICS][0].kind is Kind.FILE
    assert probe.asked == [Signal.METRICS]


@pytest.mark.parametrize(
    ("variables", "protocol", "endpoint"),
    [
        (ENDPOINT, Protocol.HTTP, "http://collector:4318/v1/traces"),
        (GRPC_ENDPOINT, Protocol.GRPC, "http://collector:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"}, Protocol.GRPC, "collector:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector/"}, Protocol.HTTP, "https://collector/v1/traces"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:x"},
            Protocol.HTTP,
            "http://collector:x/v1/traces",
        ),
        (
            GRPC_ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            Protocol.HTTP,
            "http://collector:4317/v1/traces",
        ),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, Protocol.GRPC, "http://collector:4318"),
        (ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}, Protocol.GRPC, "http://collector:4318"),
        (
            ENDPOINT | {"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"},
            Protocol.HTTP,
            "http://collector:4318/v1/traces",
        ),
    ],
)
def test_the_protocol_is_the_one_that_is_set_or_else_that_of_the_port(
    variables: dict[str, str], protocol: Protocol, endpoint: str
) -> None:
    """Port 4317 means grpc, anything else http/protobuf, and only HTTP needs a path."""
    assert short(variables) == (Kind.OTLP, protocol, endpoint)


def test_an_unknown_protocol_is_warned_about_and_the_port_decides(caplog: pytest.LogCaptureFixture) -> None:
    """The warning names the variable, its value and what is known."""
    variables = GRPC_ENDPOINT | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}
    assert short(variables)[1] is Protocol.GRPC
    assert "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/json is not grpc or http/protobuf" in caplog.text


@pytest.mark.parametrize("name", ["none", "otlp", "console", "storescope_file"])
def test_a_named_exporter_switches_the_probe_off(name: str) -> None:
    """Who names an exporter has chosen, also if it is none."""
    chosen, probe = decide({"OTEL_TRACES_EXPORTER": name, "OTEL_METRICS_EXPORTER": name}, answers=True)
    assert not probe.asked
    assert len(chosen[Signal.TRACES]) == (name != "none")


@pytest.mark.parametrize(
    ("name", "protocol", "endpoint"),
    [
        ("otlp", Protocol.HTTP, "http://localhost:4318/v1/traces"),
        ("otlp_proto_http", Protocol.HTTP, "http://localhost:4318/v1/traces"),
        ("otlp_proto_grpc", Protocol.GRPC, "http://localhost:4317"),
    ],
)
def test_otlp_may_be_named_without_an_endpoint(name: str, protocol: Protocol, endpoint: str) -> None:
    """It then goes to the usual port of its protocol, by an exporter that is ours to bound."""
    assert short({"OTEL_TRACES_EXPORTER": name}) == (Kind.OTLP, protocol, endpoint)


def test_several_exporters_may_be_named() -> None:
    """Each of them gets the signal, once."""
    chosen, _ = decide({"OTEL_TRACES_EXPORTER": "otlp, console,otlp"} | ENDPOINT)
    assert [(to.kind, to.name) for to in chosen[Signal.TRACES]] == [(Kind.OTLP, ""), (Kind.NAMED, "console")]


def test_logs_are_exported_where_an_exporter_is_named() -> None:
    """They have no local file."""
    assert short({"OTEL_LOGS_EXPORTER": "otlp"} | ENDPOINT, Signal.LOGS)[2] == "http://collector:4318/v1/logs"
    assert not decide({"OTEL_LOGS_EXPORTER": "storescope_file"})[0][Signal.LOGS]


def test_an_unknown_exporter_is_warned_about_once_and_the_file_takes_its_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning names it and the known ones."""
    assert short({"OTEL_TRACES_EXPORTER": "jeager"})[0] is Kind.FILE
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "OTEL_TRACES_EXPORTER" in record.message
    assert "'jeager'" in record.message
    assert "console, none, otlp, otlp_proto_grpc, otlp_proto_http" in record.message


def test_an_unknown_exporter_beside_a_known_one_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """What the user meant is exported, so nothing need go to the file."""
    assert short({"OTEL_TRACES_EXPORTER": "otlp,jeager"} | ENDPOINT)[0] is Kind.OTLP
    assert len(caplog.records) == 1


def address(endpoint: str) -> tuple[str, int]:
    return "localhost", int(endpoint.rsplit(":", 1)[1])


@contextmanager
def dripping_server(drops: bytes, pause: float) -> Iterator[tuple[str, int]]:
    """Answer byte by byte, with pauses."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1024)
                try:
                    for position in range(len(drops)):
                        connection.sendall(drops[position : position + 1])
                        time.sleep(pause)
                except OSError:
                    pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield listener.getsockname()
        thread.join(5)


def test_a_receiver_that_accepts_an_empty_export_answers() -> None:
    """It is asked with the signal's own path."""
    with http_receiver() as receiver:
        assert local_receiver_answers(Signal.TRACES, address(receiver.endpoint), timeout=5)
        assert receiver.requests == ["traces"]


@pytest.mark.parametrize("status", [404, 405, 500])
def test_a_server_that_refuses_the_export_is_no_receiver(status: int) -> None:
    """Something else listens on the port."""
    with http_receiver(lambda signal, earlier: status) as receiver:
        assert not local_receiver_answers(Signal.TRACES, address(receiver.endpoint), timeout=5)


def test_nobody_listening_is_no_receiver() -> None:
    """The usual case."""
    with refused_port() as receiver:
        assert not local_receiver_answers(Signal.TRACES, address(receiver.endpoint))


def test_an_open_port_that_never_answers_is_no_receiver_and_costs_no_more_than_the_timeout() -> None:
    """200 ms in total."""
    with hanging_receiver() as receiver:
        started = time.monotonic()
        assert not local_receiver_answers(Signal.TRACES, address(receiver.endpoint))
        assert time.monotonic() - started < 1


def test_a_server_that_answers_in_drops_costs_no_more_than_the_timeout() -> None:
    """The time is bounded as a whole, not each read."""
    with dripping_server(b"HTTP/1.1 200 OK\r\n\r\n", pause=0.1) as where:
        started = time.monotonic()
        assert not local_receiver_answers(Signal.TRACES, where)
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("answer", [b"220 mail.example ESMTP\r\n", b"\x00\x00\x12\x04" * 80, b""])
def test_a_server_that_speaks_something_else_is_no_receiver(answer: bytes) -> None:
    """Mail servers, gRPC servers, and those that hang up."""
    with dripping_server(answer, pause=0) as where:
        assert not local_receiver_answers(Signal.TRACES, where, timeout=5)
