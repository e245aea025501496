"""What the agent must know of a kind of store: where to patch it, and how to read a call and its result."""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

Attributes = Mapping[str, "str | bool | int | float"]

#: The parameters by which a callable is given the arguments of a tool, the most usual first.
PAYLOAD_PARAMETERS: Final = ("arguments", "args")


class Role(enum.Enum):
    """What a patched callable is to the agent."""

    REQUEST = "request"
    """Goes to an MCP server: a CLIENT span and a record in `mcp.client.operation.duration`."""
    OPERATION = "operation"
    """The store's own work: an INTERNAL span and a record in `storescope.operation.duration`."""
    PHASE = "phase"
    """A part of an operation that is under way: an INTERNAL child span, no record."""
    SESSION = "session"
    """Lives as long as an MCP session: no span, a record in `mcp.client.session.duration`."""
    ENTER = "enter"
    """Begins an MCP session, the instance that it is called on."""
    EXIT = "exit"
    """Ends that session, with the arguments of `__aexit__`: a record in `mcp.client.session.duration`."""
    SPAN = "span"
    """Makes a library's own span, as a context manager; `operation` is its tracer's name. An operation borrows it."""
    BRIDGE = "bridge"
    """Waits in the calling thread for a coroutine, its first argument, that runs in another one."""
    TRACER = "tracer"
    """Hands out the tracer of a store that makes spans itself: a no-op one inside an operation of ours."""


class Style(enum.Enum):
    """How a callable hands over its result."""

    SYNC = "sync"
    COROUTINE = "coroutine"
    FUTURE = "future"
    """Returns an `asyncio.Future` whose work has already begun: it is passed on as it is."""


#: Whether what runs here keeps a connection of a store's: its requests are the store's own.
inside_store: ContextVar[bool] = ContextVar("storescope.inside_store", default=False)


class Subject:
    """What an operation is about, with the names and attributes that every call of it shares."""

    __slots__ = ("metric_attributes", "span_attributes", "span_name")

    def __init__(self, span_name: str, span_attributes: Attributes, metric_attributes: Attributes) -> None:
        self.span_name = span_name
        self.span_attributes = span_attributes
        self.metric_attributes = metric_attributes


#: Of a payload that cannot be told from the other arguments of a call.
UNKNOWN: Final = object()


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
    #: What is sent to the server, where no parameter of the target is just that.
    payload: object = UNKNOWN
    #: Whether the library makes a span for the call itself, by a target of the role SPAN, and ours enriches it.
    borrows_span: bool = False
    #: Whether the call is an operation by itself, or only tells more about one that is under way.
    opens: bool = True

    def __init__(self, subject: Subject) -> None:
        #: What is known before the call runs.
        self.subject = subject


Args = tuple[Any, ...]
Kwargs = dict[str, Any]

Reader = Callable[[Any, Args, Kwargs], "Described | None"]
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


Carry = Callable[[Mapping[str, str], Args, Kwargs], tuple[Args, Kwargs]]
"""Puts the fields of a trace context into what a call sends: returns the arguments to call with instead."""


@dataclass(frozen=True, slots=True)
class PatchTarget:
    """One callable of a store: where it stands, what it is, and the names of its positional parameters.

    Where no style is given, style, parameters and payload are read off the callable when it is patched.
    """

    module: str
    name: str
    role: Role
    #: The MCP method of a request, the operation of a store, or the phase of an operation; "" where each call says.
    operation: str
    style: Style | None = None
    parameters: tuple[str, ...] = ()
    #: The parameter with what is sent to the server, for its size; "" where nothing is, or it is not measured.
    payload: str = ""
    #: How a call can carry trace context to the server; None where the store offers no place for it.
    carry: Carry | None = None
    #: Whether a module without it is worth a warning: the user has named it.
    required: bool = False

    def given(self, args: Args, kwargs: Kwargs) -> Kwargs:
        """Name the arguments of a call, whichever way they were passed."""
        return {**dict(zip(self.parameters, args, strict=False)), **kwargs}

    def fitted(self, owner: object, original: object) -> PatchTarget:
        """Fill in what is to be read off the callable, `original`, as its `owner` has it."""
        if self.style is not None:
            return self
        function = getattr(original, "__func__", original)
        style = Style.COROUTINE if inspect.iscoroutinefunction(function) else Style.SYNC
        names = _parameters(function)
        if inspect.isclass(owner) and not isinstance(original, staticmethod):
            names = names[1:]
        payload = _payload_parameter(function) if self.operation == "tools/call" else ""
        return replace(
            self, style=style, parameters=self.parameters or names, payload=self.payload or payload
        )


def _parameters(function: Any) -> tuple[str, ...]:
    """Return the names of the positional parameters; none where a native callable does not tell."""
    positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    return tuple(parameter.name for parameter in _signature(function) if parameter.kind in positional)


def _payload_parameter(function: Any) -> str:
    """Return the parameter by which a tool is given its arguments, positional or not; "" where none is known."""
    names = [parameter.name for parameter in _signature(function)]
    return next((name for name in PAYLOAD_PARAMETERS if name in names), "")


def _signature(function: Any) -> tuple[inspect.Parameter, ...]:
    try:
        return tuple(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return ()


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
