"""Calls the tools of a small MCP server through mcpstore; runs unchanged on mcpstore 2.x and on 1.5.18.

    opentelemetry-instrument python examples/quickstart.py
    storescope view

shows one span for each of the calls below: one that works, one that is slow, one that fails, and one to a tool that
does not exist. With 1.5.18 each has the parts of the call below it: connect, initialize, list, call.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import mcpstore


def open_store(folder: Path) -> Any:
    """Open a store whose services are defined in a file of its own, so that nothing of yours is touched."""
    definitions = folder / "mcp.json"
    definitions.write_text(json.dumps({"mcpServers": {}}))
    if hasattr(mcpstore, "FileConfig"):  # 2.x
        return mcpstore.MCPStore.setup_store(mcpstore.FileConfig(path=str(definitions)))
    return mcpstore.MCPStore.setup_store(mcpjson_path=str(definitions))


def call(context: Any, tool: str, arguments: dict[str, Any]) -> None:
    """Call a tool and print what came of it."""
    try:
        result = context.call_tool(tool, arguments)
    except RuntimeError as error:  # 2.x raises for a tool that does not exist
        print(f"{tool}: {error}")
        return
    content = result["content"] if isinstance(result, dict) else result.content
    texts = [part["text"] if isinstance(part, dict) else part.text for part in content]
    print(f"{tool}: {' '.join(texts)}")


def main() -> None:
    """Add a service, wait for it, use it."""
    with tempfile.TemporaryDirectory() as folder:
        context = open_store(Path(folder)).for_store()
        context.add_service(
            {"name": "notes", "command": sys.executable, "args": ["-m", "storescope.demo.server"]}
        )
        context.wait_service("notes")
        print("tools:", len(context.list_tools()))
        call(context, "notes_read_note", {"title": "roadmap"})
        call(context, "notes_summarize", {"text": "Ship the beta in May. Then rest."})
        call(context, "notes_publish", {"text": "Ship the beta in May."})
        call(context, "notes_translate", {"text": "Ship the beta in May."})


if __name__ == "__main__":
    main()
