"""The guide's workload on npm's server-filesystem: 50 reads and 50 writes, three rounds, as a loop and optimized."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.row import Row
from tests.benchmarks.whole_call import ENVIRONMENTS, ROOT

PROGRAM = Path(__file__).with_name("workload_program.py")


def rows() -> Iterator[Row]:
    """Measure in the environment of each generation; nothing where there is no node, or no folder with the server."""
    folder = os.environ.get("STORESCOPE_TEST_NODE_FOLDER")
    if folder is None or shutil.which("node") is None:
        return
    server = Path(folder, "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js")
    newest = _measured(ENVIRONMENTS["mcpstore 2.x"], server)
    yield _row("workload, 2.x: cache and batch, against its loop", newest, "store", "loop", 1 / 5)
    yield _row("workload, 2.x: cache, batch and pool, against its loop", newest, "pool", "loop", 1 / 5)
    yield _row("repeated reads, 2.x: cached, against its loop", newest, "pool_reads", "loop_reads", 1 / 100)
    first = _measured(ENVIRONMENTS["mcpstore 1.5.18"], server)
    yield _row("workload, 1.5.18: cache, batch and pool, against its loop", first, "pool", "loop", 1 / 60)
    yield _row("workload, 1.5.18: the same, against a loop in one session", first, "pool", "session", 1 / 2)


def _measured(environment: Path, server: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        command = [str(environment / "bin" / "python"), "-W", "ignore", str(PROGRAM), str(server)]
        variables = {**os.environ, "HOME": folder, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            command,
            check=True,
            cwd=folder,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=300,
        )
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _row(name: str, measured: dict[str, float], ours: str, floor: str, target: float) -> Row:
    return Row(name, measured[ours] * 1000, measured[floor] * 1000, target, "ms")
