"""mcpstore 1.5.x: pure Python down to the MCP client, so that the parts of a call can be seen too."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final
from weakref import WeakKeyDictionary

from storescope import semconv
from storescope.stores.adapter import Described, Outcome, PatchTarget, Reader, Role, Subject
from storescope.stores.mcp_responses import read_mcp_error, read_tool_response
from storescope.stores.mcpstore_v1_targets import FROM_MEMORY, TARGETS
from storescope.stores.subjects import (
    UNKNOWN_SCOPE,
    Scope,
    ServiceIdentity,
    operation_subject,
    request_subject,
    service_identity,
)

#: How the store names an agent's service to itself: the agent's own name for it, this, and the agent.
AGENT_SEPARATOR: Final = "_byagent_"

_CAUSES_LOOKED_AT: Final = 10


class McpstoreV1:
    """Reads the calls of mcpstore 1.5.x, and of the MCP client that it brings."""

    name = "mcpstore-1"
    targets = TARGETS

    def __init__(self) -> None:
        #: What a client was connected to; also how a second connection is told from the first.
        self._connected: WeakKeyDictionary[Any, ServiceIdentity] = WeakKeyDictionary()

    def reader(self, target: PatchTarget) -> Reader:
        """Return what reads the calls of a target, by the target's role."""
        if target.name == "ToolExecutionMixin.execute_tool_mcpstore":
            return partial(self._execution, target)
        readers = {
            Role.PHASE: self._phase,
            Role.SESSION: self._session,
        }
        return partial(readers.get(target.role, self._on_context), target)

    def read_result(self, target: PatchTarget, result: Any) -> Outcome | None:
        """Read a result that hides its failure: `is_error` of a call, `success` of everything else."""
        if target.role is Role.PHASE:
            return None
        if target.operation == "tools/call":
            return _unexecuted(result) if getattr(result, "is_error", False) else None
        if isinstance(result, dict) and result.get("success") is False:
            message = str(result.get("error") or result.get("last_error") or result.get("status") or "")
            return Outcome(semconv.ERROR_OTHER, message, reached_server=False)
        return None

    def read_response(self, target: PatchTarget, result: Any) -> object:
        """Return the texts and data of a tool's result, or what the store was asked to extract from it.

        Of a failed call nothing: the text of its result is the store's own.
        """
        if target.operation != "tools/call" or getattr(result, "is_error", False):
            return None
        return read_tool_response(result)

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        """Read the first exception of the chain that has a meaning of its own, else the innermost."""
        innermost = error
        for cause in _causes(error):
            outcome = _known_error(cause)
            if outcome is not None:
                return outcome
            if not hasattr(cause, "exceptions"):  # a group says nothing that its first member does not
                innermost = cause
        return Outcome(type(innermost).__qualname__, str(innermost), reached_server=False)

    def _on_context(
        self, target: PatchTarget, context: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Described:
        """A method of a store's or an agent's context, or of a session."""
        given = target.given(args, kwargs)
        scope = _scope(context)
        service = ServiceIdentity(_service_name(given))
        if target.role is Role.OPERATION:
            from_memory = target.operation in FROM_MEMORY
            return Described(operation_subject(target.operation, service, scope, from_memory=from_memory))
        subject = request_subject(
            target.operation,
            service,
            scope,
            tool=_text_or_none(given.get("tool_name")),
            prompt=_text_or_none(given.get("prompt_name")),
            uri=_text_or_none(given.get("uri")),
        )
        return Described(subject)

    def _execution(
        self, target: PatchTarget, _orchestrator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Described:
        """`execute_tool_mcpstore(service_name, tool_name, …)`: here the names are the wire's."""
        given = target.given(args, kwargs)
        agent_id = _text_or_none(given.get("agent_id"))
        service = ServiceIdentity(_service_name(given))
        tool = _text_or_none(given.get("tool_name"))
        subject = request_subject(target.operation, service, Scope(agent_id), tool=tool)
        return Described(subject)

    def _phase(
        self, target: PatchTarget, client: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]
    ) -> Described | None:
        """A part of a call; it also shows how the service is reached."""
        state = client._session_state
        phase = target.operation
        if phase == "connect":
            if state.session_task is not None and not state.session_task.done():
                return None
            phase = "respawn" if client in self._connected else "connect"
        elif phase == "initialize" and state.initialize_result is not None:
            return None
        identity = self._connected[client] = _identity(client)
        shared = identity.attributes()
        session_id = _session_id(client)
        outer = Subject("", {**shared, semconv.MCP_SESSION_ID: session_id} if session_id else shared, shared)
        described = Described(Subject(phase, {semconv.PHASE: phase}, {}))
        described.outer = outer
        return described

    def _session(
        self, _target: PatchTarget, client: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]
    ) -> Described:
        """An MCP session that has ended; what it was connected to was noted while it lasted."""
        identity = self._connected.get(client) or _identity(client)
        return Described(Subject("", {}, identity.attributes()))


def _unexecuted(result: Any) -> Outcome:
    """Read a call that failed. Why is known where it was executed; if it never was, a name stands for nothing."""
    message = str(getattr(result, "error", None) or "")
    no_service = "available_tools cannot be empty" in message
    error_type = semconv.ERROR_SERVICE_NOT_FOUND if no_service else semconv.ERROR_TOOL_NOT_FOUND
    return Outcome(error_type, message, reached_server=False)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what led to it: the store raises anew inside `except`, anyio puts it into groups."""
    cause: BaseException | None = error
    for _ in range(_CAUSES_LOOKED_AT):
        if cause is None or isinstance(cause, CancelledError):
            return  # below a cancellation is only how anyio brought it about
        yield cause
        grouped: tuple[BaseException, ...] = getattr(cause, "exceptions", ())
        cause = cause.__cause__ or cause.__context__ or next(iter(grouped), None)


def _known_error(error: BaseException) -> Outcome | None:
    """Read an exception of MCP's or of the store's, known by name: importing them would import the store."""
    name = type(error).__name__
    if name == "ToolError":
        return Outcome(semconv.ERROR_TOOL, str(error))
    if name == "ToolNotFoundException":
        return Outcome(semconv.ERROR_TOOL_NOT_FOUND, str(error), reached_server=False)
    if isinstance(error, TimeoutError):
        return Outcome(semconv.ERROR_TIMEOUT, str(error))
    return read_mcp_error(error)


def _identity(client: Any) -> ServiceIdentity:
    transport = getattr(client.transport, "transport", client.transport)
    initialized = client._session_state.initialize_result
    return service_identity(
        None,
        _text_or_none(getattr(transport, "url", None)),
        _text_or_none(getattr(transport, "command", None)),
        str(initialized.protocolVersion) if initialized is not None else None,
    )


def _session_id(client: Any) -> str | None:
    transport = getattr(client.transport, "transport", client.transport)
    return _text_or_none(transport.get_session_id())


def _scope(context: Any) -> Scope:
    """Tell for whom a context, or the context of a session, works."""
    owner = getattr(context, "_context", context)
    if not hasattr(owner, "_agent_id"):
        return UNKNOWN_SCOPE
    return Scope(_text_or_none(owner._agent_id))


def _service_name(given: Mapping[str, Any]) -> str | None:
    name = given.get("service_name", given.get("name", given.get("client_id_or_service_name")))
    config = given.get("config")
    if name is None and isinstance(config, dict):
        name = config.get("name")
    return name.partition(AGENT_SEPARATOR)[0] if isinstance(name, str) else None


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def adapter() -> McpstoreV1:
    """Make an adapter that knows no client yet."""
    return McpstoreV1()
