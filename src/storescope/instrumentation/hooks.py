"""What the application itself wants to add to a span: its hooks, and what they are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry.trace import Span

from storescope.notices import warn_once


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a store, as a hook sees it."""

    #: The MCP method, or the operation of the store.
    operation: str
    service: str | None
    #: The tool by its name on the wire, or by the store's name for it where the other is not known yet.
    tool: str | None
    #: What the tool is given, as the application passed it; not to be changed.
    arguments: Any


RequestHook = Callable[[Span, Call], None]
#: The third argument is what the call returned, or the exception that it raised.
ResponseHook = Callable[[Span, Call, Any], None]


@dataclass(frozen=True, slots=True)
class Hooks:
    """The hooks of one `instrument()`. One that raises is logged once and called again the next time."""

    request: RequestHook | None = None
    response: ResponseHook | None = None

    def on_request(self, span: Span, call: Call) -> None:
        """Call the request hook, where there is one."""
        if self.request is not None:
            try:
                self.request(span, call)
            except Exception:
                warn_once("storescope: the %s hook failed; it will be called again", "request")

    def on_response(self, span: Span, call: Call, result: Any) -> None:
        """Call the response hook, where there is one."""
        if self.response is not None:
            try:
                self.response(span, call, result)
            except Exception:
                warn_once("storescope: the %s hook failed; it will be called again", "response")
