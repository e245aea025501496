"""A whole tool call through the real mcpstore over stdio, with the agent and without it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.benchmarks.row import Row

ROUNDS = 7
CALLS = 40
ROOT = Path(__file__).parents[2]
ENVIRONMENTS = {"mcpstore 2.x": ROOT / ".venv", "mcpstore 1.5.18": ROOT / ".venv-v1"}


def rows() -> Iterator[Row]:
    """Measure in the environment of each generation."""
    for name, environment in ENVIRONMENTS.items():
        yield _compare(f"whole call, {name} (wall clock)", environment / "bin")


def _compare(name: str, programs: Path) -> Row:
    program = [str(programs / "python"), __file__]
    commands = ([str(programs / "opentelemetry-instrument"), *program], program)
    times: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "HOME": folder,
            "PYTHONPATH": str(ROOT),
            "STORESCOPE_DIR": str(Path(folder, "data")),
            "OTEL_TRACES_EXPORTER": "storescope_file",
            "OTEL_METRICS_EXPORTER": "storescope_file",
        }
        for _ in range(ROUNDS):
            for command, measured in zip(commands, times, strict=True):
                measured.append(_milliseconds(command, environment, folder))
    observed, alone = (statistics.median(measured) for measured in times)
    return Row(name, observed, alone, None, "ms")


def _milliseconds(command: list[str], environment: Mapping[str, str], folder: str) -> float:
    done = subprocess.run(
        command,
        check=True,
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    return float(done.stdout.split()[-1])


def _run() -> None:
    """Print the median duration of a call, in milliseconds."""
    import time

    context = _context()
    durations = []
    for _ in range(CALLS):
        started = time.perf_counter()
        context.call_tool("lab_echo", {"text": "hello"})
        durations.append(time.perf_counter() - started)
    print(statistics.median(durations[5:]) * 1000)


def _context():  # noqa: ANN202 - two generations, two types
    import mcpstore

    config = {
        "name": "lab",
        "command": sys.executable,
        "args": [str(ROOT / "tests" / "servers" / "stdio.py"), str(Path("wire.jsonl").absolute())],
    }
    path = Path("mcp.json").absolute()
    path.write_text('{"mcpServers": {}}')
    if hasattr(mcpstore, "FileConfig"):
        store = mcpstore.MCPStore.setup_store(mcpstore.FileConfig(path=str(path)))
    else:
        store = mcpstore.MCPStore.setup_store(mcpjson_path=str(path))
    context = store.for_store()
    context.add_service(config)
    context.wait_service("lab")
    return context


if __name__ == "__main__":
    _run()
