"""Runs the demo's program under the agent, its traces and metrics in local files wherever else they could go."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Final

from storescope.settings import child_environment

REQUIREMENT: Final = "mcpstore>=2.3,<3"
TRACE_FILES: Final = "traces-*.jsonl"
_PROGRAM: Final = "storescope.demo.agent"
#: What a user types to run the same.
COMMAND: Final = f"opentelemetry-instrument python -m {_PROGRAM}"
#: What that script does, said so that it need not be on the path.
_LAUNCH: Final = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"
#: mcpstore 2.3.0 itself hangs in `wait_service` once in some hundred runs, with the agent or without. Such a run is
#: ended after this many seconds (it takes less than three) and made again.
_TIMEOUT: Final = 20
_ATTEMPTS: Final = 3


class DemoError(Exception):
    """The demo cannot run here; the text says why and what to do."""


def check_store() -> None:
    """Raise DemoError unless the generation of mcpstore that the demo is written for is installed."""
    try:
        version = importlib.metadata.version("mcpstore")
    except importlib.metadata.PackageNotFoundError:
        found = "mcpstore is not installed"
    else:
        if version.split(".")[0] == "2":
            return
        found = f"mcpstore {version} is another generation"
    raise DemoError(f"the demo needs mcpstore 2.x: {found}.\nInstall it: pip install '{REQUIREMENT}'")


def record(folder: Path) -> list[Path]:
    """Run the demo's program, its output on ours, and return the trace files that it left in `folder`.

    Takes less than three seconds. Raises DemoError if the program fails or leaves none.
    """
    environment = child_environment(
        STORESCOPE_DIR=str(folder),
        STORESCOPE_ENABLED="on",
        STORESCOPE_QUIET="1",  # what the closing line would say is shown at once
        OTEL_SDK_DISABLED="false",
        OTEL_TRACES_EXPORTER="storescope_file",
        OTEL_METRICS_EXPORTER="storescope_file",
    )
    command = [sys.executable, "-c", _LAUNCH, sys.executable, "-m", _PROGRAM]
    before = set(folder.glob(TRACE_FILES))
    for _ in range(_ATTEMPTS):
        try:
            status = subprocess.run(command, env=environment, check=False, timeout=_TIMEOUT).returncode  # noqa: S603 - ours
            break
        except subprocess.TimeoutExpired:
            before = set(folder.glob(TRACE_FILES))
    else:
        raise DemoError(f"the demo's program was still running after {_TIMEOUT} s, {_ATTEMPTS} times over.")
    if status:
        raise DemoError(f"the demo's program ended with status {status}.")
    files = sorted(set(folder.glob(TRACE_FILES)) - before)
    if not files:
        raise DemoError(
            f"the demo's program recorded nothing in {folder}; an OTEL_* variable may hold it back."
        )
    return files
