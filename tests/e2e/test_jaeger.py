"""A first trace in a real Jaeger, by each of the ways that docs/jaeger.md describes."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from e2e.jaeger import GENERATION, assert_quickstart_arrives, assert_quickstart_trace, transform
from e2e.processes import COLLECTOR, PATIENCE, Backend, eventually, fetch, running
from integration.harness import ROOT, Finished, Runner

from storescope.export.destination import Signal, local_receiver_answers

pytestmark = [
    pytest.mark.anystore,
    pytest.mark.skipif(
        GENERATION == 1 and sys.version_info < (3, 11),
        reason="mcpstore 1.5.18 connects to no service on CPython 3.10, with or without us",
    ),
]

QUICKSTART = ROOT / "examples" / "quickstart.py"

#: How OTLP is spoken, and the ending of the variable that names the port for it.
PROTOCOLS = {"grpc": "OTLP_GRPC_PORT", "http/protobuf": "OTLP_HTTP_PORT"}

#: How often the server was asked for each tool, and how that ended.
MEASURED = {("read_note", ""): 1, ("summarize", ""): 1, ("publish", "tool_error"): 1}


@dataclass(frozen=True)
class Run:
    """A run of the quickstart, under a name of its own."""

    service: str
    finished: Finished


def run_quickstart(folder: Path, env: Mapping[str, str] | None = None) -> Run:
    """Run the program, again under another name if mcpstore hangs, as 2.3.0 does by itself in one of 200 runs."""
    for service in ("quickstart", "quickstart-2", "quickstart-3"):
        (folder / service).mkdir()
        with contextlib.suppress(subprocess.TimeoutExpired):
            finished = Runner(folder / service).run(
                QUICKSTART, env={**(env or {}), "OTEL_SERVICE_NAME": service}, timeout=20
            )
            return Run(service, finished.check())
    pytest.fail("mcpstore hung three times")


def sent_to(endpoint: str, protocol: str) -> dict[str, str]:
    """Return the variables that a user sets, and none of the test's exporters."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_TRACES_EXPORTER": "",
        "OTEL_METRICS_EXPORTER": "",
    }


def storescope(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command, which has to succeed."""
    command = [str(Path(sys.executable).with_name("storescope")), *arguments]
    environment = Runner(folder).environment()
    return subprocess.run(
        command, env=environment, cwd=folder, check=True, capture_output=True, text=True, timeout=60
    )


def assert_quickstart_metrics_arrive(collector: Backend, service: str) -> None:
    """Check what the Collector shows to Prometheus, again for some time if it is not there yet."""
    eventually(lambda: _assert_metrics(collector, service))


def _assert_metrics(collector: Backend, service: str) -> None:
    text = fetch(collector.url("COLLECTOR_PROMETHEUS_PORT", "/metrics")).decode()
    counts = re.findall(r"^mcp_client_operation_duration_seconds_count\{(.*)\} (\S+)", text, re.MULTILINE)
    series = [(dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(count)) for labels, count in counts]
    assert {
        (labels["gen_ai_tool_name"], labels.get("error_type", "")): count
        for labels, count in series
        if labels["job"] == service and labels["mcp_method_name"] == "tools/call"
    } == MEASURED


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the program once with no receiver anywhere, so that local files are all there is."""
    return run_quickstart(tmp_path_factory.mktemp("recorded"))


def test_both_answer_when_the_agent_asks(jaeger: Backend, collector: Backend) -> None:
    """Started on `localhost:4318` they are found with nothing set, Jaeger for traces only."""
    for port, wanted in (
        (jaeger.ports["JAEGER_OTLP_HTTP_PORT"], [Signal.TRACES]),
        (collector.ports["COLLECTOR_OTLP_HTTP_PORT"], [Signal.TRACES, Signal.METRICS]),
    ):
        answers = partial(local_receiver_answers, address=("127.0.0.1", port), timeout=PATIENCE)
        assert [signal for signal in (Signal.TRACES, Signal.METRICS) if answers(signal)] == wanted


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_through_the_collector(protocol: str, jaeger: Backend, collector: Backend, tmp_path: Path) -> None:
    """Traces are in Jaeger, metrics are shown to Prometheus, and no local file is written."""
    endpoint = collector.url(f"COLLECTOR_{PROTOCOLS[protocol]}")
    run = run_quickstart(tmp_path, sent_to(endpoint, protocol))

    assert_quickstart_arrives(jaeger, run.service)
    assert_quickstart_metrics_arrive(collector, run.service)
    assert list(run.finished.directory.glob("*.jsonl")) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_straight_to_jaeger(protocol: str, jaeger: Backend, tmp_path: Path) -> None:
    """Traces are in Jaeger; metrics, which it does not take, are in the local file, and one line says so."""
    endpoint = jaeger.url(f"JAEGER_{PROTOCOLS[protocol]}")
    run = run_quickstart(tmp_path, sent_to(endpoint, protocol))

    assert_quickstart_arrives(jaeger, run.service)
    assert run.finished.spans() == []
    assert {
        (point.attributes["gen_ai.tool.name"], point.attributes.get("error.type", "")): point.count
        for point in run.finished.points()
        if point.metric == "mcp.client.operation.duration"
    } == MEASURED
    (said,) = [line for line in run.finished.stderr.splitlines() if line.startswith("storescope")]
    assert re.match(rf"storescope: {endpoint}\S* takes no metrics \(.*\); from now on they go to ", said)


def test_local_files_are_read_by_the_collector(recorded: Run, jaeger: Backend, tmp_path: Path) -> None:
    """What was recorded with no receiver comes to Jaeger and to Prometheus as if it had been sent."""
    with running(
        COLLECTOR,
        tmp_path / "collector.log",
        "collector.yaml",
        "collector-files.yaml",
        JAEGER_OTLP_ENDPOINT=jaeger.address("JAEGER_OTLP_GRPC_PORT"),
        STORESCOPE_DIR=str(recorded.finished.directory),
    ) as collector:
        assert_quickstart_arrives(jaeger, recorded.service)
        assert_quickstart_metrics_arrive(collector, recorded.service)


def test_local_files_are_sent_to_the_collector(
    recorded: Run, jaeger: Backend, collector: Backend, tmp_path: Path
) -> None:
    """`storescope send` brings traces to Jaeger and metrics to Prometheus, as if they had been sent at once."""
    endpoint = collector.url("COLLECTOR_OTLP_HTTP_PORT")
    storescope(tmp_path, "send", str(recorded.finished.directory), "--endpoint", endpoint)

    assert_quickstart_arrives(jaeger, recorded.service)
    assert_quickstart_metrics_arrive(collector, recorded.service)


def test_local_files_are_sent_straight_to_jaeger(recorded: Run, jaeger: Backend, tmp_path: Path) -> None:
    """`storescope send` says that Jaeger takes no metrics, and that is no failure."""
    endpoint = jaeger.url("JAEGER_OTLP_HTTP_PORT")
    sent = storescope(tmp_path, "send", str(recorded.finished.directory), "--endpoint", endpoint)

    assert_quickstart_arrives(jaeger, recorded.service)
    assert "takes no metrics" in sent.stdout


def test_an_exported_file_is_uploaded(recorded: Run, jaeger: Backend, tmp_path: Path) -> None:
    """What Jaeger's page makes of the file that `storescope view --export` writes is the whole run."""
    exported = storescope(tmp_path, "view", str(recorded.finished.directory), "--export", "-")

    assert_quickstart_trace(transform(jaeger, exported.stdout.encode()), recorded.service)
