"""What the optimizers need of a store: tools that can be called, one by one or many together."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, runtime_checkable

from storescope.core import checks

Arguments = Mapping[str, Any]


class BatchCall(TypedDict):
    """One call of `batch_call`, as the guide writes it."""

    tool_name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a tool is. Within one owner its name means one tool, and results may be shared."""

    service: str = ""
    scope: str = ""
    agent: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool."""

    tool_name: str
    arguments: Arguments = field(default_factory=dict)

    @classmethod
    def of(cls, call: BatchCall | ToolCall) -> ToolCall:
        """Return a call of a batch, whichever way it was written; raise TypeError or ValueError where it is none."""
        if not isinstance(call, ToolCall):
            if not isinstance(call, Mapping):
                raise TypeError(f"a call must be a ToolCall or a dict, not {call!r}")
            if "tool_name" not in call or set(call) - {"tool_name", "arguments"}:
                raise ValueError(f"a call must have tool_name and arguments, not {dict(call)!r}")
            call = cls(call["tool_name"], call.get("arguments", {}))
        checks.text("tool_name", call.tool_name)
        if not isinstance(call.arguments, Mapping):
            raise TypeError(f"arguments must be a mapping, not {call.arguments!r}")
        return call


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What came of one call: its value, or its error. A result that the tool marked as an error has both."""

    value: Any = None
    error: BaseException | None = None
    #: Seconds from the first attempt's start to the last one's end; 0 where it never began.
    duration: float = 0.0
    #: How many times the tool was called; 0 where it was not, or another operation's result is shared.
    attempts: int = 1

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.error is None

    def unwrap(self) -> Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value

    def __str__(self) -> str:
        return str(self.value if self.error is None else self.error)


@runtime_checkable
class Store(Protocol):
    """Something whose tools can be called, from any thread."""

    def call_tool(self, tool_name: str, arguments: Arguments) -> Any:
        """Call a tool and return what the store gives; blocks until the server has answered."""

    def batch_call(self, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
        """Call tools and return one result per call, in their order; a failing call hides no other."""

    def list_tools(self) -> Any:
        """Return the store's own list of its tools."""


@runtime_checkable
class AsyncStore(Protocol):
    """The same for asyncio: each method returns an awaitable, and works on one event loop."""

    async def call_tool(self, tool_name: str, arguments: Arguments) -> Any:
        """Call a tool and return what the store gives."""

    async def batch_call(self, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
        """Call tools and return one result per call, in their order; a failing call hides no other."""

    async def list_tools(self) -> Any:
        """Return the store's own list of its tools."""


def check_store(store: object, *, is_async: bool) -> None:
    """Raise TypeError for what is no store, or a store of the other face."""
    wanted = "an AsyncStore" if is_async else "a Store"
    if not isinstance(store, Store):
        raise TypeError(
            f"store must be {wanted}, not {store!r}: storescope.adapt makes one of what has tools"
        )
    if inspect.iscoroutinefunction(store.call_tool) is not is_async:
        raise TypeError(f"store must be {wanted}, and {store!r} has the other face")
