"""An MCP server over stdio that reads, writes and lists files, by the tool names of npm's server-filesystem."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lab


def read_file(path: str) -> dict[str, Any]:
    try:
        return lab.text_result(Path(path).read_text("utf-8"))
    except OSError as error:
        return lab.text_result(str(error), isError=True)


def write_file(path: str, content: str) -> dict[str, Any]:
    Path(path).write_text(content, "utf-8")
    return lab.text_result(f"wrote {path}")


def list_directory(path: str) -> dict[str, Any]:
    return lab.text_result("\n".join(sorted(entry.name for entry in Path(path).iterdir())))


lab.TOOLS.clear()
lab.TOOLS.update(read_file=read_file, write_file=write_file, list_directory=list_directory)

import stdio  # noqa: E402, F401 - serves, until its input ends
