"""Runs programs the way users do, and reads back what the agent wrote about them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

ROOT = Path(__file__).parents[2]
STDIO_SERVER = ROOT / "tests" / "servers" / "stdio.py"
HTTP_SERVER = ROOT / "tests" / "servers" / "streamable_http.py"

#: Longest that a program of a test may run, in seconds.
PROGRAM_TIMEOUT = 60

_KINDS = {1: "INTERNAL", 2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
_STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}
#: How a process may end through mcpstore 2.3.0, whose async programs can crash in interpreter exit.
_STORE_CRASHES = (-6, -11)


@dataclass(frozen=True)
class Span:
    """A finished span, wherever it was read from."""

    name: str
    kind: str
    attributes: Mapping[str, Any]
    status: str
    message: str
    span_id: str
    parent_id: str
    trace_id: str
    start: int
    end: int
    scope: str
    events: Sequence[Mapping[str, Any]] = ()
    resource: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return (self.end - self.start) / 1e9


@dataclass(frozen=True)
class Point:
    """One series of a metric."""

    metric: str
    attributes: Mapping[str, Any]
    count: int
    total: float
    bounds: Sequence[float]
    unit: str


def from_sdk(span: ReadableSpan) -> Span:
    """Convert a span of the in-memory exporter."""
    return Span(
        name=span.name,
        kind=span.kind.name,
        attributes=dict(span.attributes or {}),
        status=span.status.status_code.name,
        message=span.status.description or "",
        span_id=format_span_id(span.context.span_id),
        parent_id=format_span_id(span.parent.span_id) if span.parent else "",
        trace_id=format_trace_id(span.context.trace_id),
        start=span.start_time or 0,
        end=span.end_time or 0,
        scope=span.instrumentation_scope.name if span.instrumentation_scope else "",
        events=[{"name": event.name, **(event.attributes or {})} for event in span.events],
        resource=dict(span.resource.attributes),
    )


def from_reader(data: MetricsData | None) -> list[Point]:
    """Convert the histograms of the in-memory reader."""
    return [
        Point(
            metric.name,
            dict(point.attributes or {}),
            point.count,
            point.sum,
            point.explicit_bounds,
            metric.unit,
        )
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if hasattr(point, "explicit_bounds")
    ]


def read_spans(directory: Path) -> list[Span]:
    """Read every span of the OTLP/JSON files of a folder, in order of their start."""
    spans = [
        Span(
            name=span["name"],
            kind=_KINDS[span.get("kind", 1)],
            attributes=_attributes(span),
            status=_STATUSES[span.get("status", {}).get("code", 0)],
            message=span.get("status", {}).get("message", ""),
            span_id=span["spanId"],
            parent_id=span.get("parentSpanId", ""),
            trace_id=span["traceId"],
            start=int(span["startTimeUnixNano"]),
            end=int(span["endTimeUnixNano"]),
            scope=scope.get("scope", {}).get("name", ""),
            events=[{"name": event["name"], **_attributes(event)} for event in span.get("events", ())],
            resource=_attributes(resource.get("resource", {})),
        )
        for resource in _records(directory, "traces-*.jsonl", "resourceSpans")
        for scope in resource.get("scopeSpans", ())
        for span in scope.get("spans", ())
    ]
    return sorted(spans, key=lambda span: span.start)


def read_points(directory: Path) -> list[Point]:
    """Read the last state of every histogram series in the OTLP/JSON files of a folder."""
    last: dict[tuple[str, str], Point] = {}
    for resource in _records(directory, "metrics-*.jsonl", "resourceMetrics"):
        for scope in resource.get("scopeMetrics", ()):
            for metric in scope.get("metrics", ()):
                for point in metric.get("histogram", {}).get("dataPoints", ()):
                    attributes = _attributes(point)
                    last[metric["name"], json.dumps(attributes, sort_keys=True)] = Point(
                        metric["name"],
                        attributes,
                        int(point["count"]),
                        float(point.get("sum", 0)),
                        point.get("explicitBounds", ()),
                        metric.get("unit", ""),
                    )
    return list(last.values())


def _records(directory: Path, pattern: str, key: str) -> Iterator[dict[str, Any]]:
    for path in sorted(directory.glob(pattern)):
        for line in path.read_text("utf-8").splitlines():
            yield from json.loads(line).get(key, ())


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {pair["key"]: _value(pair["value"]) for pair in holder.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    if kind == "intValue":
        return int(content)
    if kind == "arrayValue":
        return [_value(item) for item in content.get("values", ())]
    return content


def named(spans: Iterable[Span], name: str) -> Span:
    """Return the one span of this name."""
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, f"{len(found)} spans are called {name!r}"
    return found[0]


def children(spans: Iterable[Span], parent: Span) -> list[Span]:
    """Return the spans directly below another, in order of their start."""
    return sorted((span for span in spans if span.parent_id == parent.span_id), key=lambda span: span.start)


@dataclass(frozen=True)
class Finished:
    """A program that has ended."""

    returncode: int
    stdout: str
    stderr: str
    #: Where it wrote its telemetry.
    directory: Path

    def spans(self) -> list[Span]:
        return read_spans(self.directory)

    def points(self) -> list[Point]:
        return read_points(self.directory)

    def written(self) -> str:
        """Return all that was written into the folder of the telemetry, as text."""
        files = sorted(path for path in self.directory.rglob("*") if path.is_file())
        return "\n".join(path.read_text("utf-8", "replace") for path in files)

    def check(self) -> Finished:
        """Insist on a clean end, but for the store's own crash after the program's last line."""
        assert self.returncode in (0, *_STORE_CRASHES), (
            f"exit {self.returncode}\n{self.stdout}\n{self.stderr}"
        )
        return self


@dataclass(frozen=True)
class Runner:
    """Runs programs with a home, a working folder and a telemetry folder of their own."""

    folder: Path

    @property
    def directory(self) -> Path:
        return self.folder / "telemetry"

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a program gets: nothing of this process's telemetry or Python settings, and the local file."""
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("OTEL_", "STORESCOPE_", "PYTHON", "PYTEST_"))
        }
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            **inherited,
            "HOME": str(home),
            "STORESCOPE_DIR": str(self.directory),
            "OTEL_TRACES_EXPORTER": "storescope_file",
            "OTEL_METRICS_EXPORTER": "storescope_file",
            **more,
        }

    def run(
        self,
        program: str | Path,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        launcher: bool = True,
        timeout: float = PROGRAM_TIMEOUT,
        attempts: int = 1,
    ) -> Finished:
        """Run a program, given as its source or its path, under `opentelemetry-instrument` unless told otherwise.

        More `attempts` are for programs with a store that may hang by itself: one that times out is run again, with
        an empty folder for its telemetry.
        """
        path = program if isinstance(program, Path) else self._write(program)
        command = [sys.executable, str(path), *arguments]
        if launcher:
            command.insert(0, str(Path(sys.executable).with_name("opentelemetry-instrument")))
        for _ in range(attempts - 1):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._run(command, env, timeout)
            shutil.rmtree(self.directory, ignore_errors=True)
        return self._run(command, env, timeout)

    def _run(self, command: Sequence[str], env: Mapping[str, str] | None, timeout: float) -> Finished:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(**(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Finished(done.returncode, done.stdout, done.stderr, self.directory)

    def _write(self, source: str) -> Path:
        path = self.folder / "app.py"
        path.write_text(source, "utf-8")
        return path
