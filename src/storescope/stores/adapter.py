"""What the agent must know of a kind of store: where to patch it, and how to read a call and its result."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

Attributes = Mapping[str, "str | bool | int | float"]
NO_ATTRIBUTES: Attributes = MappingProxyType({})


class Role(enum.Enum):
    """What a patched callable is to the agent."""

    REQUEST = "request"
    """Goes to an MCP server: a CLIENT span and a record in `mcp.client.operation.duration`."""
    OPERATION = "operation"
    """The store's own work: an INTERNAL span and a record in `storescope.operation.duration`."""
    PHASE = "phase"
    """A part of an operation that is under way: an INTERNAL child span, no record."""
    DETAIL = "detail"
    """Runs inside an operation and knows more about it: no span, it only adds to the operation."""
    SESSION = "session"
    """Lives as long as an MCP session: no span, a record in `mcp.client.session.duration`."""
    QUIET = "quiet"
    """Runs, but what it records itself is kept back while an operation is under way."""


class Style(enum.Enum):
    """How a callable hands over its result."""

    SYNC = "sync"
    COROUTINE = "coroutine"
    FUTURE = "future"
    """Returns an `asyncio.Future` whose work has already begun: it is passed on as it is."""


class Subject:
    """What an operation is about, with the names and attributes that every call of it shares.

    Adapters keep subjects and hand out the same one for the same tool of the same service, so that a call
    builds nothing twice.
    """

    __slots__ = ("metric_attributes", "span_attributes", "span_name")

    def __init__(self, span_name: str, span_attributes: Attributes, metric_attributes: Attributes) -> None:
        self.span_name = span_name
        self.span_attributes = span_attributes
        self.metric_attributes = metric_attributes


class Described:
    """One call, as read from the patched callable's arguments."""

    __slots__ = ("payload", "resolve", "subject")

    def __init__(
        self,
        subject: Subject,
        payload: object = None,
        resolve: Callable[[Callable[[Subject], None]], None] | None = None,
    ) -> None:
        #: What is known before the call runs.
        self.subject = subject
        #: What is sent to the server, for its size; None where nothing is.
        self.payload = payload
        #: Called once the wrapped call has started; hands over a better subject when it has found one.
        self.resolve = resolve


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a result or an exception says about its operation."""

    error_type: str | None = None
    message: str = ""
    #: What came back from the server, for its size.
    payload: object = None
    #: False where the request is known never to have been sent.
    reached_server: bool = True
    #: More that only the end of the call shows, for the span.
    attributes: Attributes = field(default=NO_ATTRIBUTES)


@dataclass(frozen=True, slots=True)
class PatchTarget:
    """One callable of a store: where it stands, and what it is."""

    module: str
    name: str
    role: Role
    #: The MCP method of a request, the operation of a store, or the phase of an operation.
    operation: str
    style: Style = Style.SYNC
    #: How the adapter reads the call; the adapter's own business.
    reader: Any = None


class StoreAdapter(Protocol):
    """A kind of store. Registered in the entry-point group `storescope_store`."""

    name: str
    targets: tuple[PatchTarget, ...]

    def describe(self, target: PatchTarget, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Described | None:
        """Read a call before it runs; None leaves it alone. Must tolerate arguments that the call will refuse."""

    def read_result(self, target: PatchTarget, result: Any) -> Outcome:
        """Read what a call returned."""

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        """Read what a call raised. Cancellation never comes here."""
