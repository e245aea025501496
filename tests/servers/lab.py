"""What the MCP servers of the tests can do, whatever carries their messages."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

INVALID_PARAMS = -32602
METHOD_NOT_FOUND = -32601
RESOURCE_NOT_FOUND = -32002

#: What the failing tools say: an error's text that holds a secret.
TOOL_ERROR = "no such thing password=hunter2"
RPC_ERROR = "bad params token: s3cr3t-t0ken"

#: The name of a tool that needs more than ASCII.
FOREIGN = "поиск_✓"


class RpcError(Exception):
    """A request is answered with a JSON-RPC error of this code and message."""


def text_result(text: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "isError": False, **more}


def echo(text: str = "", **_others: Any) -> dict[str, Any]:
    return text_result(text)


def add(a: float = 0, b: float = 0) -> dict[str, Any]:
    return text_result(str(a + b), structuredContent={"sum": a + b})


def sleep(seconds: float = 0.2) -> dict[str, Any]:
    time.sleep(seconds)
    return text_result("slept")


def fail(text: str = "") -> dict[str, Any]:
    return text_result(TOOL_ERROR, isError=True)


def fail_with(text: str = "") -> dict[str, Any]:
    return text_result(text, isError=True)


def rpc_error() -> dict[str, Any]:
    raise RpcError(INVALID_PARAMS, RPC_ERROR)


def die() -> dict[str, Any]:
    os._exit(3)


def big(n: int = 1) -> dict[str, Any]:
    return text_result("x" * int(n))


def length(text: str = "") -> dict[str, Any]:
    return text_result(str(len(text)))


TOOLS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (echo, add, sleep, fail, fail_with, rpc_error, die, big, length)
} | {FOREIGN: echo}
SCHEMA = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "seconds": {"type": "number"},
        "a": {"type": "number"},
        "b": {"type": "number"},
        "n": {"type": "integer"},
    },
}


def initialize(params: dict[str, Any]) -> dict[str, Any]:
    return {
        "protocolVersion": params["protocolVersion"],
        "capabilities": {"tools": {}, "resources": {}, "prompts": {}},
        "serverInfo": {"name": "lab-server", "version": "1.0"},
    }


def list_tools(params: dict[str, Any]) -> dict[str, Any]:
    return {"tools": [{"name": name, "description": name, "inputSchema": SCHEMA} for name in TOOLS]}


def call_tool(params: dict[str, Any]) -> dict[str, Any]:
    tool = TOOLS.get(params["name"])
    if tool is None:
        raise RpcError(INVALID_PARAMS, f"unknown tool: {params['name']}")
    return tool(**(params.get("arguments") or {}))


def read_resource(params: dict[str, Any]) -> dict[str, Any]:
    if not params["uri"].startswith("lab://a"):
        raise RpcError(RESOURCE_NOT_FOUND, f"no resource {params['uri']}")
    return {"contents": [{"uri": params["uri"], "mimeType": "text/plain", "text": "the text of a"}]}


def get_prompt(params: dict[str, Any]) -> dict[str, Any]:
    if params["name"] != "hi":
        raise RpcError(INVALID_PARAMS, f"no prompt {params['name']}")
    return {"messages": [{"role": "user", "content": {"type": "text", "text": "hi there"}}]}


METHODS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "initialize": initialize,
    "ping": lambda params: {},
    "tools/list": list_tools,
    "tools/call": call_tool,
    "resources/list": lambda params: {"resources": [{"uri": "lab://a", "name": "a"}]},
    "resources/templates/list": lambda params: {
        "resourceTemplates": [{"uriTemplate": "lab://{name}", "name": "any"}]
    },
    "resources/read": read_resource,
    "prompts/list": lambda params: {"prompts": [{"name": "hi", "arguments": []}]},
    "prompts/get": get_prompt,
}


class Lab:
    """Answers messages, and keeps each one that it receives as a line of a log."""

    def __init__(self, log: str | None) -> None:
        self._log = Path(log) if log else None
        self._lock = threading.Lock()

    def answer(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return the reply to a request, or None where nothing is to be said."""
        self._keep(message)
        if "id" not in message or "method" not in message:
            return None
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        method = METHODS.get(message["method"])
        try:
            if method is None:
                raise RpcError(METHOD_NOT_FOUND, f"no method {message['method']}")
            return {**reply, "result": method(message.get("params") or {})}
        except RpcError as error:
            code, text = error.args
            return {**reply, "error": {"code": code, "message": text}}

    def _keep(self, message: dict[str, Any]) -> None:
        if self._log is not None:
            with self._lock, self._log.open("a") as log:
                log.write(json.dumps(message) + "\n")
