"""The demo's program: an agent that prepares a briefing with the tools of a small MCP server.

It knows nothing of OpenTelemetry or storescope: what `storescope demo` shows of it, the launcher recorded.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mcpstore import FileConfig, MCPStore

SERVER = Path(__file__).with_name("server.py")


def say(text: str) -> None:
    print(f"agent: {text}", flush=True)


def text_of(result: dict[str, Any]) -> str:
    return "\n".join(part.get("text", "") for part in result["content"])


def prepare_briefing(store: Any) -> None:
    """Search, read, count and summarize notes, and try to publish what came of it."""

    def call(tool: str, **arguments: str) -> str:
        return text_of(store.call_tool(tool, arguments))

    tools = [tool.info()["tool_name"] for tool in store.list_tools()]
    say(f"the notes server offers {len(tools)} tools: {', '.join(sorted(tools))}")

    titles = call("search_notes", query="release").splitlines()
    say(f"{len(titles)} notes mention the release: {', '.join(titles)}")
    with ThreadPoolExecutor(max_workers=len(titles)) as threads:
        notes = list(threads.map(lambda title: call("read_note", title=title), titles))
    say(f"read them all at once, {sum(int(call('word_count', text=note)) for note in notes)} words together")

    say("was that all? searching once more, and reading the first note again")
    call("search_notes", query="release")
    call("read_note", title=titles[0])

    summary = call("summarize", text="\n".join(notes))
    say(f"summary: {summary}")
    refusal = store.call_tool("publish", {"text": summary})
    say(f"could not publish it: {text_of(refusal)}")


def main() -> None:
    """Run the agent on a store whose files vanish with it."""
    with tempfile.TemporaryDirectory(prefix="storescope-demo-") as folder:
        store = MCPStore.setup_store(FileConfig(path=str(Path(folder, "mcp.json")))).for_store()
        store.add_service({"name": "notes", "command": sys.executable, "args": [str(SERVER)]})
        store.wait_service("notes")
        prepare_briefing(store)


if __name__ == "__main__":
    main()
