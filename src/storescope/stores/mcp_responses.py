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
    """Return the texts and data of a result, the only one as it is; of an unknown shape, the result itself."""
    parts = _parts(result)
    if parts is None:
        return result
    contents = [_content(part) for part in parts]
    return contents[0] if len(contents) == 1 else contents


def read_mcp_error(error: BaseException) -> Outcome | None:
    """Return what an MCP library's own exception says; None where it is another one."""
    if type(error).__name__ not in _MCP_ERRORS:
        return None
    code, message = error.error.code, str(error.error.message)  # type: ignore[attr-defined]
    if code in _OWN_CODES:
        return Outcome(_OWN_CODES[code], message)
    return Outcome(str(code), message, attributes={semconv.RPC_RESPONSE_STATUS_CODE: str(code)})


def _content(part: Any) -> Any:
    text = _field(part, "text")
    return _field(part, "data") if text is None else text


def _first_text(result: Any) -> str:
    texts = (_field(part, "text") for part in _parts(result) or ())
    return next((text for text in texts if issubclass(type(text), str)), "")


def _parts(result: Any) -> list[Any] | tuple[Any, ...] | None:
    parts = _field(result, "content")
    return parts if issubclass(type(parts), (list, tuple)) else None


def _field(value: Any, name: str) -> Any:
    """Return a field of a dict or an object; None where it has none, or does not let itself be asked."""
    if issubclass(type(value), dict):  # not isinstance, which asks the value for its class
        return dict.get(value, name)
    try:
        return getattr(value, name, None)
    except Exception:
        return None
