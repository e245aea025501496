"""Runs the guide's workload in this process's release of mcpstore, each way, and prints the seconds of each as JSON.

`python workload_program.py SERVER`: the script of npm's server-filesystem, which serves the current folder. Every way
gives the same texts and leaves the same files, or the program fails.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mcpstore

import storescope
from storescope.core import BatchOptimizer, OptimizedConnectionPool, OptimizedStore

FILES = 50
ROUNDS = 3
SESSIONS = 5

#: Calls a tool by its name on the wire.
Call = Callable[[str, dict[str, str]], Any]


class Workload:
    """The files, the calls, and what has to come of them."""

    def __init__(self, folder: Path) -> None:
        self.reads = [folder / f"file_{number}.txt" for number in range(FILES)]
        self.writes = [folder / f"output_{number}.txt" for number in range(FILES)]
        self.taken: dict[str, float] = {}
        for number, path in enumerate(self.reads):
            path.write_text(f"Text of file {number}\n" * 10)

    def loop(self, name: str, call: Call) -> None:
        """Make one call after the other."""

        def run() -> list[str]:
            texts = []
            for read, write in zip(self.reads, self.writes, strict=True):
                begun = time.perf_counter()
                texts.append(text(call("read_file", {"path": str(read)})))
                reads[0] += time.perf_counter() - begun
                call("write_file", {"path": str(write), "content": write.name})
            return texts

        reads = [0.0]
        self._rounds(name, run, reads)

    def batch(self, name: str, store: OptimizedStore, prefix: str) -> None:
        """Make the calls in batches, reads from the cache where it has them."""

        def run() -> list[str]:
            optimizer = BatchOptimizer(store, max_concurrent=SESSIONS)
            for read, write in zip(self.reads, self.writes, strict=True):
                optimizer.add_operation("read", f"{prefix}read_file", {"path": str(read)})
                arguments = {"path": str(write), "content": write.name}
                optimizer.add_operation("write", f"{prefix}write_file", arguments)
            return [text(result.unwrap()) for result in optimizer.optimize_batch_execution()][::2]

        reads = [0.0]
        self._rounds(name, run, reads)
        begun = time.perf_counter()
        for path in self.reads * (ROUNDS - 1):
            store.call_tool(f"{prefix}read_file", {"path": str(path)})
        self.taken[f"{name}_reads"] = time.perf_counter() - begun

    def _rounds(self, name: str, run: Callable[[], list[str]], reads: list[float]) -> None:
        for path in self.writes:
            path.unlink(missing_ok=True)
        begun = time.perf_counter()
        for number in range(ROUNDS):
            if number == 1:
                reads[0] = 0.0  # from here on they are repeated
            texts = run()
            assert texts == [path.read_text() for path in self.reads]
        self.taken[name] = time.perf_counter() - begun
        self.taken[f"{name}_reads"] = reads[0]
        assert [path.read_text() for path in self.writes] == [path.name for path in self.writes]


def text(result: Any) -> str:
    """Return the text of a result of mcpstore's or of the SDK's."""
    part = (result["content"] if isinstance(result, dict) else result.content)[0]
    return part["text"] if isinstance(part, dict) else part.text


def main(server: str) -> None:
    """Measure every way that this release has."""
    workload = Workload(Path.cwd())
    command: dict[str, Any] = {"command": "node", "args": [server, str(Path.cwd())]}
    context = _context({"name": "npm", **command})
    alias = "npm_{}".format
    workload.loop("loop", lambda tool, arguments: context.call_tool(alias(tool), arguments))
    if version("mcpstore").startswith("1."):
        session = context.create_session("workload")
        session.bind_service("npm")
        workload.loop("session", lambda tool, arguments: session.use_tool(alias(tool), arguments))
    workload.batch("store", OptimizedStore(storescope.adapt(context), [alias("read_file")]), alias(""))
    begun = time.perf_counter()
    with OptimizedConnectionPool(command, min_size=SESSIONS, max_size=SESSIONS) as pool:
        pool.wait(60)
        workload.taken["pool_opening"] = time.perf_counter() - begun
        workload.batch("pool", OptimizedStore(storescope.adapt(pool), ["read_file"]), "")
    print(json.dumps(workload.taken), flush=True)


def _context(config: dict[str, Any]) -> Any:
    path = Path("mcp.json").absolute()
    path.write_text('{"mcpServers": {}}')
    if version("mcpstore").startswith("1."):
        context = mcpstore.MCPStore.setup_store(mcpjson_path=str(path)).for_store()
    else:
        from mcpstore._rust import MCPStore as NativeStore

        # Without a control reactor, because of which 2.3.0 can hang.
        context = mcpstore.MCPStore(NativeStore.setup_with_options(str(path))).for_store()
    context.add_service(config)
    context.wait_service(config["name"])
    return context


if __name__ == "__main__":
    main(sys.argv[1])
