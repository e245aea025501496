"""A small MCP server over stdio, written with the standard library alone: four notes and what to do with them."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TextIO

NOTES: Final = {
    "roadmap": "Ship the beta in May. Collect feedback until June. Release in July.",
    "budget": "The release party costs 900. Hosting costs 120 a month. The rest is saved.",
    "feedback": "Users like the search. Users want the release notes by mail. Nobody asked for dark mode.",
    "holidays": "The office is closed in the last week of August.",
}
#: How long `summarize` thinks, in seconds: long enough to stand out among its neighbours.
SUMMARY_TIME: Final = 0.4

METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
PARSE_ERROR: Final = -32700


class ToolFailure(Exception):
    """A tool could not do what it was asked; its caller gets the text, marked as an error."""


class InvalidParams(Exception):
    """A request does not fit its method."""


def search_notes(query: str) -> str:
    """List the notes whose text contains a word."""
    found = [title for title, text in NOTES.items() if query.lower() in text.lower()]
    return "\n".join(found) or f"no note mentions {query!r}"


def read_note(title: str) -> str:
    """Return the text of one note."""
    if title not in NOTES:
        raise ToolFailure(f"no note is called {title!r}")
    return NOTES[title]


def word_count(text: str) -> str:
    """Count the words of a text."""
    return str(len(text.split()))


def summarize(text: str) -> str:
    """Keep the first sentence of a text, after some thought."""
    time.sleep(SUMMARY_TIME)
    return text.split(". ", maxsplit=1)[0].rstrip(".") + "."


def publish(text: str) -> str:
    """Put a text on the notice board, which is read-only."""
    raise ToolFailure(f"the notice board is read-only: {len(text.split())} words were not published")


#: Every tool takes one text: its function and the name of that argument.
TOOLS: Final[dict[str, tuple[Callable[[str], str], str]]] = {
    "search_notes": (search_notes, "query"),
    "read_note": (read_note, "title"),
    "word_count": (word_count, "text"),
    "summarize": (summarize, "text"),
    "publish": (publish, "text"),
}


def initialize(params: dict[str, Any]) -> dict[str, Any]:
    return {
        "protocolVersion": params.get("protocolVersion", "2025-06-18"),
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "notes", "version": "1.0"},
    }


def ping(params: dict[str, Any]) -> dict[str, Any]:
    return {}


def list_tools(params: dict[str, Any]) -> dict[str, Any]:
    return {
        "tools": [
            {
                "name": name,
                "description": function.__doc__,
                "inputSchema": {
                    "type": "object",
                    "properties": {argument: {"type": "string"}},
                    "required": [argument],
                },
            }
            for name, (function, argument) in TOOLS.items()
        ]
    }


def call_tool(params: dict[str, Any]) -> dict[str, Any]:
    name, arguments = str(params.get("name")), params.get("arguments") or {}
    if name not in TOOLS:
        raise InvalidParams(f"unknown tool: {name}")
    function, argument = TOOLS[name]
    if not isinstance(arguments, dict) or not isinstance(arguments.get(argument), str):
        raise InvalidParams(f"{name} needs {argument!r}, a text")
    try:
        text, failed = function(arguments[argument]), False
    except ToolFailure as failure:
        text, failed = str(failure), True
    return {"content": [{"type": "text", "text": text}], "isError": failed}


METHODS: Final[dict[str, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "initialize": initialize,
    "ping": ping,
    "tools/list": list_tools,
    "tools/call": call_tool,
}


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one JSON-RPC request, with its result or an error."""
    reply = {"jsonrpc": "2.0", "id": request["id"]}
    name, params = str(request.get("method")), request.get("params") or {}
    method = METHODS.get(name)
    if method is None:
        return reply | {"error": {"code": METHOD_NOT_FOUND, "message": f"unknown method: {name}"}}
    try:
        if not isinstance(params, dict):
            raise InvalidParams("params is not an object")
        return reply | {"result": method(params)}
    except InvalidParams as error:
        return reply | {"error": {"code": INVALID_PARAMS, "message": str(error)}}


def serve(source: TextIO, sink: TextIO) -> None:
    """Answer the requests of `source`, one a line and several at once, until it ends."""
    lock = threading.Lock()

    def send(message: dict[str, Any]) -> None:
        with lock:
            sink.write(json.dumps(message) + "\n")
            sink.flush()

    def handle(request: dict[str, Any]) -> None:
        send(answer(request))

    with ThreadPoolExecutor(max_workers=8) as workers:
        for line in source:
            try:
                message = json.loads(line)
            except ValueError:
                send({"jsonrpc": "2.0", "id": None, "error": {"code": PARSE_ERROR, "message": "not JSON"}})
                continue
            if isinstance(message, dict) and "id" in message:
                workers.submit(handle, message)


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout)
