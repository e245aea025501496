"""Reads what MCP libraries return and raise, in whatever shape: objects or dicts, in snake or camel case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from storescope import semconv
from storescope.stores.adapter import Outcome

#: The exceptions by which MCP libraries say that a request failed. By name: importing them would import the library.
_MCP_ERRORS: Final = frozenset({"McpError", "MCPError"})

#: The codes, HTTP's among them, that the libraries give failures of their own.
_OWN_CODES: Final[Mapping[int, str]] = {
    408: semconv.ERROR_TIMEOUT,
    -32001: semconv.ERROR_TIMEOUT,
    -32000: semconv.ERROR_CONNECTION_CLOSED,
}


def read_tool_result(result: Any) -> Outcome | None:
    """Return the error that a result is marked with; None where there is none, or the shape is unknown."""
    if not any(_field(result, name) is True for name in ("is_error", "isError")):
        return None
    return Outcome(semconv.ERROR_TOOL, _first_text(result))


def read_tool_response(result: Any) -> object:
    """Return the texts and data of a result; of an unknown shape, the result itself."""
    parts = _field(result, "content")
    if not isinstance(parts, (list, tuple)):
        return result
    return [_field(part, "text") or _field(part, "data") for part in parts]


def read_mcp_error(error: BaseException) -> Outcome | None:
    """Return what an MCP library's own exception says; None where it is another one."""
    if type(error).__name__ not in _MCP_ERRORS:
        return None
    code, message = error.error.code, str(error.error.message)  # type: ignore[attr-defined]
    if code in _OWN_CODES:
        return Outcome(_OWN_CODES[code], message)
    return Outcome(str(code), message, attributes={semconv.RPC_RESPONSE_STATUS_CODE: str(code)})


def _first_text(result: Any) -> str:
    parts = _field(result, "content")
    texts = (_field(part, "text") for part in parts) if isinstance(parts, (list, tuple)) else ()
    return next((text for text in texts if isinstance(text, str)), "")


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)
