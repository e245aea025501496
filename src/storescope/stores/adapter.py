"""What the agent must know of a kind of store: where to patch it, and how to read a call and its result."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Attributes = Mapping[str, "str | bool | int | float"]


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
    TRACER = "tracer"
    """Hands out the tracer of a store that makes spans itself: a no-op one inside an operation of ours."""


class Style(enum.Enum):
    """How a callable hands over its result."""

    SYNC = "sync"
    COROUTINE = "coroutine"
    FUTURE = "future"
    """Returns an `asyncio.Future` whose work has already begun: it is passed on as it is."""


class Subject:
    """What an operation is about, with the names and attributes that every call of it shares."""

    __slots__ = ("metric_attributes", "span_attributes", "span_name")

    def __init__(self, span_name: str, span_attributes: Attributes, metric_attributes: Attributes) -> None:
        self.span_name = span_name
        self.span_attributes = span_attributes
        self.metric_attributes = metric_attributes


class Described:
    """One call, as read from the patched callable's arguments.

    An adapter may keep one and hand it out for every call of the same tool, so that a call builds nothing twice.
    """

    #: Called once the wrapped call has started; hands over a better subject when it has found one.
    resolve: Callable[[Callable[[Subject], None]], None] | None = None
    #: Called with the result of a call that succeeded.
    after: Callable[[Any], None] | None = None
    #: What a phase shows about the operation that it is a part of.
    outer: Subject | None = None

    def __init__(self, subject: Subject) -> None:
        #: What is known before the call runs.
        self.subject = subject


Reader = Callable[[Any, "tuple[Any, ...]", "dict[str, Any]"], "Described | None"]
"""Reads a call, from `instance, args, kwargs`, before it runs; None leaves the call alone."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a result or an exception says about its operation."""

    error_type: str | None = None
    message: str = ""
    #: False where the request is known never to have been sent.
    reached_server: bool = True
    #: More that only the end of the call shows, for the span.
    attributes: Attributes | None = None


@dataclass(frozen=True, slots=True)
class PatchTarget:
    """One callable of a store: where it stands, what it is, and the names of its positional parameters."""

    module: str
    name: str
    role: Role
    #: The MCP method of a request, the operation of a store, or the phase of an operation.
    operation: str
    style: Style = Style.SYNC
    parameters: tuple[str, ...] = ()
    #: The parameter with what is sent to the server, for its size; "" where nothing is, or it is not measured.
    payload: str = ""

    def given(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Name the arguments of a call, whichever way they were passed."""
        return {**dict(zip(self.parameters, args, strict=False)), **kwargs}


class StoreAdapter(Protocol):
    """A kind of store. The entry-point group `storescope_store` names callables that make one."""

    name: str
    targets: tuple[PatchTarget, ...]

    def reader(self, target: PatchTarget) -> Reader:
        """Return what reads the calls of a target. It must tolerate arguments that the call itself will refuse."""

    def read_result(self, target: PatchTarget, result: Any) -> Outcome | None:
        """Read what a call returned; None where it succeeded and there is no more to say."""

    def read_response(self, target: PatchTarget, result: Any) -> object:
        """Return the texts and data that came back from the server, for their size; None where nothing did."""

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        """Read what a call raised. Cancellation never comes here."""
