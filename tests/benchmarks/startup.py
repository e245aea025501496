"""Start-up CPU of a program under the launcher: our distribution against the official one, with the same exporter.

The official distribution is installed into a folder of its own, so that it is there for its runs alone.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.benchmarks.row import Row

ROUNDS = 11
LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))
PROGRAM = [LAUNCHER, sys.executable, "-c", "pass"]

#: An endpoint that nobody listens on: nothing is recorded, so nothing is sent there.
OTLP = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
}
FILE = {"OTEL_TRACES_EXPORTER": "storescope_file", "OTEL_METRICS_EXPORTER": "storescope_file"}


def rows() -> Iterator[Row]:
    """Compare whole processes, in turn."""
    with tempfile.TemporaryDirectory() as folder:
        official = Path(folder, "official")
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(official)]
        subprocess.run([*install, "opentelemetry-distro"], check=True)
        for name, exporters in (("OTLP over HTTP", OTLP), ("local file", FILE)):
            yield _compare(f"start-up, {name} (process CPU)", exporters, official, Path(folder))


def _compare(name: str, exporters: Mapping[str, str], official: Path, folder: Path) -> Row:
    common = {**os.environ, **exporters, "STORESCOPE_DIR": str(folder / "data")}
    ours = {**common, "OTEL_PYTHON_DISTRO": "storescope", "OTEL_PYTHON_CONFIGURATOR": "storescope"}
    theirs = {
        **common,
        "PYTHONPATH": str(official),
        "OTEL_PYTHON_DISTRO": "distro",
        "OTEL_PYTHON_CONFIGURATOR": "configurator",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "storescope",
    }
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS + 1):
        for environment, measured in zip((ours, theirs), times, strict=True):
            measured.append(_milliseconds(environment, folder))
    ours_ms, theirs_ms = (
        statistics.median(measured[1:]) for measured in times
    )  # the first of each is warm-up
    return Row(name, ours_ms, theirs_ms, 1.2, "ms")


def _milliseconds(environment: Mapping[str, str], folder: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(PROGRAM, check=True, env=environment, cwd=folder, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000
