"""The results that MCP stores and sessions give, each kind by its type, whichever store it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from storescope.core.errors import ToolFailed
from storescope.core.results import PlainResults, check_plain
from storescope.stores.mcp_responses import read_tool_result


class _Kind(Protocol):
    """One type of result."""

    def dump(self, result: Any) -> Any: ...
    def load(self, plain: Any) -> Any: ...


class _McpResult:
    """`mcp.types.CallToolResult`, a model of pydantic's, of `mcp.ClientSession`."""

    def dump(self, result: Any) -> Any:
        return result.model_dump(mode="json", by_alias=True)

    def load(self, plain: Any) -> Any:
        return _mcp_types().CallToolResult.model_validate(plain)


class _McpstoreV1Result:
    """`mcpstore.mcp.client.client.CallToolResult`, a dataclass around MCP's content, of mcpstore 1.5.x."""

    def dump(self, result: Any) -> Any:
        plain = {
            "structured_content": result.structured_content,
            "meta": result.meta,
            "data": result.data,
            "is_error": result.is_error,
        }
        check_plain(plain)
        content = [part.model_dump(mode="json", by_alias=True) for part in result.content]
        return {**plain, "content": content}

    def load(self, plain: Any) -> Any:
        from mcpstore.mcp.client.client import CallToolResult

        content = _mcp_types().CallToolResult.model_validate({"content": plain["content"]}).content
        return CallToolResult(**{**plain, "content": content})


def _mcp_types() -> Any:
    import mcp.types

    return mcp.types


_PLAIN: Final = "plain"

#: By where a type is defined, so that no library is imported to recognise what it made.
_KINDS: Final[Mapping[tuple[str, str], _Kind]] = {
    ("mcp", "CallToolResult"): _McpResult(),
    ("mcp_types", "CallToolResult"): _McpResult(),
    ("mcpstore", "CallToolResult"): _McpstoreV1Result(),
}


class StoreResults(PlainResults):
    """Results of every store that `adapt` knows; what none of the kinds is has to be plain."""

    def result_error(self, result: Any) -> Exception | None:
        """Return the error that a result is marked with: its first text, or the store's own words."""
        outcome = read_tool_result(result)
        if outcome is None:
            return None
        return ToolFailed(outcome.message or str(getattr(result, "error", None) or "the tool failed"))

    def dump_result(self, result: Any) -> Any:
        """Return the kind of a result and its plain form; raise TypeError where it has none."""
        library, name = _defined(result)
        kind = _KINDS.get((library, name))
        if kind is None:
            return [_PLAIN, "", super().dump_result(result)]
        return [library, name, kind.dump(result)]

    def load_result(self, plain: Any) -> Any:
        """Return the result of a plain form; raise ValueError for a form that this release does not write."""
        try:
            library, name, value = plain
            return value if library == _PLAIN else _KINDS[library, name].load(value)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"no result of a tool: {error}") from error


def _defined(result: Any) -> tuple[str, str]:
    kind = type(result)
    return kind.__module__.partition(".")[0], kind.__qualname__
