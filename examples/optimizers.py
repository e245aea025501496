"""Makes a loop of tool calls faster with the optimizers alone: no agent, no OpenTelemetry.

    python examples/optimizers.py

calls the slow tool of a small MCP server for three texts, four times each: first as a plain loop over an mcpstore
context, then through an `OptimizedStore` that keeps the tool's results and makes the calls of a batch together. It
prints both times and how the calls were answered; runs unchanged on mcpstore 2.x and on 1.5.18.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from quickstart import open_store

import storescope
from storescope.core import BatchOptimizer, OptimizedStore

TEXTS = [
    "Ship the beta in May. Then rest.",
    "Hosting costs 120 a month. The rest is saved.",
    "Users like it. So do we.",
]
ROUNDS = 4


def main() -> None:
    """Do the same work twice."""
    with tempfile.TemporaryDirectory() as folder:
        context = open_store(Path(folder)).for_store()
        context.add_service(
            {"name": "notes", "command": sys.executable, "args": ["-m", "storescope.demo.server"]}
        )
        context.wait_service("notes")

        begun = time.perf_counter()
        for text in TEXTS * ROUNDS:
            context.call_tool("notes_summarize", {"text": text})
        plain = time.perf_counter() - begun

        store = OptimizedStore(storescope.adapt(context), cached_tools={"notes_summarize": 300})
        begun = time.perf_counter()
        for _ in range(ROUNDS):
            batch = BatchOptimizer(store)
            for text in TEXTS:
                batch.add_operation("read", "notes_summarize", {"text": text})
            failed = [result for result in batch.optimize_batch_execution() if not result.ok]
            assert not failed, failed
        optimized = time.perf_counter() - begun

    stats = store.stats()
    print(f"plain loop: {plain:.2f} s, optimized: {optimized:.2f} s, {plain / optimized:.1f} times as fast")
    print(f"{stats.calls} calls: {stats.hits} hits, {stats.misses} misses")


if __name__ == "__main__":
    main()
