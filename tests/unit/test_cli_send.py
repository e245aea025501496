"""`storescope send`: recorded telemetry arrives at a receiver, once, in requests of bounded size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from receivers import Reply, grpc_receiver, hanging_receiver, http_receiver, refused_port
from unit.command import storescope
from unit.recordings import batch, call, calls, span, write
from unit.telemetry_files import batch as exported
from unit.telemetry_files import some_metrics

from storescope.cli import main
from storescope.export import FileMetricExporter, FileSpanExporter
from storescope.insight import Source
from storescope.insight.otlp import METRICS, TRACES
from storescope.insight.outgoing import PATTERNS, requests
from storescope.insight.receiver import Receiver, Unreachable
from storescope.insight.send import send
from storescope.settings import Settings

METRIC = {
    "name": "calls",
    "sum": {"dataPoints": [{"asInt": "1"}, {"asInt": "2"}], "aggregationTemporality": 2},
}
METRICS_BATCH = {"resourceMetrics": [{"resource": {}, "scopeMetrics": [{"scope": {}, "metrics": [METRIC]}]}]}


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with three spans and two metric points."""
    write(tmp_path / "rec" / "traces-1.jsonl", batch(*calls(2)), batch(call(trace=9, number=9)))
    write(tmp_path / "rec" / "metrics-1.jsonl", METRICS_BATCH)
    return tmp_path / "rec"


def only_traces(signal: str, earlier: int) -> int:
    """Answer as Jaeger does."""
    return 200 if signal == "traces" else 404


def test_what_the_agent_wrote_arrives(tmp_path: Path) -> None:
    """Spans and metrics of the agent's own files are accepted by a receiver that knows the protocol."""
    settings = Settings.from_env({"STORESCOPE_DIR": str(tmp_path)})
    spans, metrics = FileSpanExporter(settings), FileMetricExporter(settings)
    spans.export(exported("tools/call lösche"))
    metrics.export(some_metrics())
    spans.shutdown()
    metrics.shutdown()
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    with http_receiver() as receiver:
        result = storescope("send", tmp_path, "--endpoint", receiver.endpoint)

    assert (result.exit_code, result.stderr) == (0, "")
    assert (receiver.spans, receiver.metrics) == (["tools/call lösche"], ["calls"])
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert result.stdout.splitlines() == [
        f"Sent 1 span to {receiver.endpoint}/v1/traces",
        f"Sent 1 metric point to {receiver.endpoint}/v1/metrics",
        f"Read 2 files in {tmp_path}; nothing was removed.",
    ]


def test_the_environment_says_what_is_sent_where(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without arguments: the agent's folder, the endpoints of the OTEL_* variables, and their headers."""
    monkeypatch.setenv("STORESCOPE_DIR", str(recorded))
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=all,x-team=a%20b")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "x-key=metrics")
    with http_receiver() as general, http_receiver() as own:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"{general.endpoint}/otlp/")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", f"{own.endpoint}/in/metrics")
        assert storescope("send").exit_code == 0

    ((path, headers, _),) = general.posts
    assert (path, headers["x-key"], headers["x-team"]) == ("/otlp/v1/traces", "all", "a b")
    ((path, headers, _),) = own.posts
    assert (path, headers["x-key"], headers["content-type"]) == ("/in/metrics", "metrics", "application/json")
    assert "x-team" not in headers


def test_an_endpoint_that_is_given_stands_above_the_environment(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--endpoint is where both signals go, whatever endpoint or protocol the variables name."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1/v1/traces")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with http_receiver() as receiver:
        assert storescope("send", recorded, "--endpoint", receiver.endpoint).exit_code == 0
    assert receiver.requests == ["traces", "metrics"]


def test_a_span_that_stands_twice_is_sent_once(tmp_path: Path) -> None:
    """One that may have arrived before is sent, with its mark; only its duplicate is dropped."""
    file = write(
        tmp_path / "traces-1.jsonl",
        batch(call("first"), unconfirmed=True),
        batch(call("first")),
        batch(call("second", trace=2, number=2), unconfirmed=True),
    )
    with http_receiver() as receiver:
        result = storescope("send", file, "--endpoint", receiver.endpoint)
    assert receiver.spans == ["tools/call first", "tools/call second"]
    assert "Sent 2 spans" in result.stdout
    (message,) = receiver.messages
    marks = {pair.key for pair in message.resource_spans[0].resource.attributes}
    assert "storescope.export.unconfirmed" in marks


def test_what_cannot_be_read_is_skipped_and_said(recorded: Path) -> None:
    """Half a line, logs and a span without ids cost themselves alone."""
    file = recorded / "traces-1.jsonl"
    bad = {**span(), "traceId": "zzz"}
    file.write_text(
        file.read_text() + f'{{"resourceLogs":[]}}\n{json.dumps(batch(bad))}\n{{"resourceSpans":[{{'
    )
    with http_receiver() as receiver:
        result = storescope("send", recorded, "--endpoint", receiver.endpoint)
    assert result.exit_code == 0
    assert len(receiver.spans) == 3
    for text in ("line 3: logs, not spans", "line 4: a malformed span", "line 5: an incomplete line"):
        assert f"Skipped {file}, {text}" in result.stderr


def test_requests_are_of_bounded_size(tmp_path: Path) -> None:
    """Neither many small spans nor a few large ones make a request of more than 1,000 spans or about 1 MiB."""
    large = [span(trace=n, number=n, text="x" * 300_000) for n in range(5001, 5009)]
    whole = span(trace=6000, number=6000, text="x" * 2_000_000)
    file = write(tmp_path / "traces-1.jsonl", *(batch(one) for one in calls(2500)), batch(*large, whole))
    with http_receiver() as receiver:
        assert storescope("send", file, "--endpoint", receiver.endpoint).exit_code == 0
    counts = [sum(len(s.spans) for r in m.resource_spans for s in r.scope_spans) for m in receiver.messages]
    assert len(receiver.spans) == sum(counts) == 2509
    assert max(counts) == 1000
    *others, last = (size for _, _, size in receiver.posts)
    assert max(others) < 1.2 * 1024 * 1024
    assert (counts[-1], last > 2_000_000) == (1, True)


def test_spans_of_one_program_share_their_resource(recorded: Path) -> None:
    """Lines that were written one by one are one resource with one scope in a request."""
    with http_receiver() as receiver:
        storescope("send", recorded, "--endpoint", receiver.endpoint)
    (resource,) = receiver.messages[0].resource_spans
    (scope,) = resource.scope_spans
    assert (scope.scope.name, len(scope.spans)) == ("storescope", 3)


def test_a_signal_that_is_not_taken_is_no_failure(recorded: Path) -> None:
    """Jaeger takes no metrics: one line says so, the traces arrive, and that is success."""
    with http_receiver(only_traces) as receiver:
        result = storescope("send", recorded, "--endpoint", receiver.endpoint)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Sent 3 spans" in result.stdout
    assert (
        f"{receiver.endpoint}/v1/metrics takes no metrics (HTTP 404): 2 metric points not sent"
        in result.stdout
    )


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_receiver_that_takes_nothing_is_a_failure(recorded: Path, status: int) -> None:
    """Where every signal is refused, the address is the likely mistake."""
    with http_receiver(lambda signal, earlier: status) as receiver:
        result = storescope("send", recorded, "--endpoint", receiver.endpoint)
    assert result.exit_code == 1
    assert "nothing was sent" in result.stderr
    assert f"takes no traces (HTTP {status})" in result.stdout


def test_what_a_receiver_rejects_is_counted(recorded: Path) -> None:
    """A partial success is told with its reason, and is not success."""
    body = b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}'
    with http_receiver(lambda signal, earlier: Reply(200, body)) as receiver:
        result = storescope("send", recorded, "--endpoint", receiver.endpoint)
    assert result.exit_code == 1
    assert "Sent 1 span to" in result.stdout
    assert f"{receiver.endpoint}/v1/traces rejected 2 spans: too old" in result.stderr


def test_what_a_receiver_has_to_say_is_passed_on(recorded: Path) -> None:
    """A message with nothing rejected is a remark, and an answer of another kind is none."""
    body = b'{"partialSuccess": {"errorMessage": "use a newer protocol"}}'
    with http_receiver(
        lambda signal, earlier: Reply(200, body if signal == "traces" else b"\x00")
    ) as receiver:
        result = storescope("send", recorded, "--endpoint", receiver.endpoint)
    assert result.exit_code == 0
    assert "which says: use a newer protocol" in result.stdout


def test_a_request_that_is_refused_leaves_the_next_ones_alone(tmp_path: Path) -> None:
    """HTTP 400 is about one request; it is counted, with the receiver's words."""
    file = write(tmp_path / "traces-1.jsonl", *(batch(one) for one in calls(1500)))
    refused = Reply(400, b'{"code": 3, "message": "a span of the future"}')
    with http_receiver(lambda signal, earlier: 200 if earlier else refused) as receiver:
        result = storescope("send", file, "--endpoint", receiver.endpoint)
    assert result.exit_code == 1
    assert "Sent 500 spans" in result.stdout
    assert "rejected 1,000 spans: HTTP 400: a span of the future" in result.stderr


def test_a_receiver_that_refuses_us_is_not_asked_again(tmp_path: Path) -> None:
    """Missing credentials are said once, not for every request."""
    file = write(tmp_path / "traces-1.jsonl", *(batch(one) for one in calls(1500)))
    with http_receiver(lambda signal, earlier: Reply(401, b"no token")) as receiver:
        result = storescope("send", file, "--endpoint", receiver.endpoint)
    assert result.exit_code == 1
    assert receiver.requests == ["traces"]
    assert "refuses traces (HTTP 401: no token): 1,500 spans not sent" in result.stderr


def test_a_redirection_is_not_followed(recorded: Path) -> None:
    """Followed, a POST becomes a GET that is answered with 200 and carries nothing."""
    moved = Reply(302, headers={"Location": "/elsewhere"})
    with http_receiver(lambda signal, earlier: moved) as receiver:
        result = storescope("send", recorded, "--endpoint", receiver.endpoint)
    assert result.exit_code == 1
    assert "refuses traces (HTTP 302)" in result.stderr


def test_a_busy_receiver_is_asked_again(recorded: Path) -> None:
    """It is given time, as much as it asks for within bounds, and the request is sent once more."""
    busy = Reply(503, headers={"Retry-After": "3"})
    pauses: list[float] = []
    with http_receiver(lambda signal, earlier: 200 if earlier == 2 else busy) as receiver:
        to = {
            TRACES: Receiver(f"{receiver.endpoint}/v1/traces"),
            METRICS: Receiver(f"{receiver.endpoint}/v1/metrics"),
        }
        traces, metrics = send(requests(Source.at(recorded, PATTERNS)), to, pauses.append)
    assert (traces.sent, metrics.sent, traces.failed) == (3, 2, False)
    assert pauses == [3.0, 3.0] * 2


def test_a_receiver_that_stays_busy_is_given_up(recorded: Path) -> None:
    """After three more attempts the signal is left."""
    pauses: list[float] = []
    with http_receiver(lambda signal, earlier: 429) as receiver:
        url = f"{receiver.endpoint}/v1/traces"
        (account,) = send(requests(Source.at(recorded)), {TRACES: Receiver(url)}, pauses.append)
    assert account.stopped == f"{url} refuses traces (HTTP 429)"
    assert (account.left, pauses) == (3, [0.5, 2.0, 5.0])


def test_an_unreachable_endpoint_is_said(recorded: Path) -> None:
    """The message names the address and how much is left, for each signal."""
    with refused_port() as nobody:
        result = storescope("send", recorded, "--endpoint", nobody.endpoint)
    assert result.exit_code == 1
    assert result.stderr == (
        f"storescope: {nobody.endpoint}/v1/traces refuses connections: nothing listens there: 3 spans not sent.\n"
        f"{nobody.endpoint}/v1/metrics refuses connections: nothing listens there: 2 metric points not sent.\n"
    )


def test_one_dead_receiver_does_not_keep_the_other_from_getting_its_signal(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traces that have nowhere to go leave the metrics alone."""
    with refused_port() as nobody, http_receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.endpoint)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{nobody.endpoint}/v1/traces")
        result = storescope("send", recorded)
    assert result.exit_code == 1
    assert receiver.metrics == ["calls"]
    assert "Sent 2 metric points" in result.stdout


def test_a_receiver_that_never_answers_is_left() -> None:
    """Waiting has an end."""
    with hanging_receiver() as hanging, pytest.raises(Unreachable, match=r"did not answer within 0\.2 s"):
        Receiver(hanging.endpoint, timeout=0.2).post(b"", "application/json")


def test_a_grpc_port_is_told_by_its_number(recorded: Path) -> None:
    """4317 is not even tried; the message has the command's own option with the HTTP port."""
    result = storescope("send", recorded, "--endpoint", "http://collector:4317")
    assert result.exit_code == 1
    assert "http://collector:4317 is spoken to with gRPC" in result.stderr
    assert "--endpoint http://collector:4318" in result.stderr


def test_a_grpc_port_is_told_by_its_answer(recorded: Path) -> None:
    """A gRPC server on another port takes the connection and does not speak HTTP."""
    with grpc_receiver() as receiver:
        result = storescope("send", recorded, "--endpoint", receiver.endpoint)
    assert result.exit_code == 1
    assert "does not speak HTTP; where this is an OTLP/gRPC port, give the HTTP one" in result.stderr


@pytest.mark.parametrize("endpoint", ["localhost:4318", "ftp://localhost", "http://", "http://[::1"])
def test_an_endpoint_that_is_no_address_is_said(recorded: Path, endpoint: str) -> None:
    """No traceback, and no request to anywhere."""
    result = storescope("send", recorded, "--endpoint", endpoint)
    assert result.exit_code == 1
    assert result.stderr.startswith("storescope: ")


def test_credentials_are_sent_and_not_shown(recorded: Path) -> None:
    """User and password of an address reach the receiver as a header, and no screen."""
    with http_receiver() as receiver:
        endpoint = receiver.endpoint.replace("//", "//ann:p%40ss@")
        result = storescope("send", recorded, "--endpoint", endpoint)
    assert result.exit_code == 0
    assert receiver.posts[0][1]["authorization"] == "Basic YW5uOnBAc3M="
    assert "ann" not in result.output
    assert receiver.endpoint in result.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "is empty"), ("just text\n", "line 1: not JSON"), ('{"a": 1}\n', "line 1: JSON, but not OTLP"),
     ('{"resourceSpans": []}\n', "holds no spans or metrics")],
)  # fmt: skip
def test_a_file_that_is_no_telemetry_is_an_answer(tmp_path: Path, content: str, words: str) -> None:
    """One message says what and where, and what to give instead."""
    file = tmp_path / "file"
    file.write_text(content)
    result = storescope("send", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr
    assert "Give a traces-*.jsonl or metrics-*.jsonl file" in result.stderr


def test_a_file_that_is_not_there_is_an_answer(tmp_path: Path) -> None:
    """So is a folder in which nothing was recorded."""
    assert f"{tmp_path / 'gone'} does not exist" in storescope("send", tmp_path / "gone").stderr
    assert "holds no traces-*.jsonl or metrics-*.jsonl file" in storescope("send", tmp_path).stderr


def test_one_file_may_hold_both_signals(tmp_path: Path) -> None:
    """As a Collector's file exporter may write them."""
    file = write(tmp_path / "all.json", batch(call()), METRICS_BATCH)
    with http_receiver() as receiver:
        result = storescope("send", file, "--endpoint", receiver.endpoint)
    assert receiver.requests == ["traces", "metrics"]
    assert f"Read {file}; nothing was removed." in result.stdout


def test_the_documentation_names_every_option() -> None:
    """docs/send.md leaves out no option of the command."""
    text = (Path(__file__).parents[2] / "docs" / "send.md").read_text("utf-8")
    for parameter in main.commands["send"].params:
        assert any(f"{name}" in text for name in (*parameter.opts, (parameter.name or "").upper()))
    assert "OTEL_EXPORTER_OTLP_HEADERS" in text
