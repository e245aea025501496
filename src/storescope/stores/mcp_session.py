"""`mcp.ClientSession`, the client of the MCP SDK: 1.x, which has no telemetry, and 2.x, which makes spans itself.

mcpstore 1.5.x calls its services through it, so that this is also what it sends trace context by.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, get_args
from weakref import WeakKeyDictionary, WeakSet

from storescope import semconv
from storescope.stores.adapter import (
    Args,
    Described,
    Kwargs,
    Outcome,
    PatchTarget,
    Reader,
    Role,
    Style,
    Subject,
    inside_store,
)
from storescope.stores.mcp_responses import read_mcp_error, read_tool_response, read_tool_result
from storescope.stores.subjects import (
    MAX_DESCRIPTIONS,
    UNKNOWN_SCOPE,
    UNKNOWN_SERVICE,
    ServiceIdentity,
    request_subject,
)

_SESSION: Final = "mcp.client.session"

#: Where mcp 2.x makes its spans: whether it does is known once the session's module is there.
_OWN_TELEMETRY: Final = "mcp.shared._otel"


def _with_trace_context(fields: Mapping[str, str], args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
    """Put fields into `params._meta` of a copy of the request; what the application has put there stays."""
    if _OWN_TELEMETRY in sys.modules:
        return args, kwargs  # it does so itself
    request, *others = args or (kwargs["request"],)
    root = request.root
    params = root.params or _empty_params(root)
    if params.meta is None:
        meta = sys.modules["mcp.types"].RequestParams.Meta(**fields)
    else:
        given = dict(params.meta)
        fields = {name: value for name, value in fields.items() if name not in given}
        meta = params.meta.model_copy(update=fields)
    carrying_root = root.model_copy(update={"params": params.model_copy(update={"meta": meta})})
    carrying = request.model_copy(update={"root": carrying_root})
    return ((carrying, *others), kwargs) if args else ((), {**kwargs, "request": carrying})


def _empty_params(root: Any) -> Any:
    """Make the parameters of a request that has none: of the class that its field is declared with, beside None."""
    annotation = type(root).model_fields["params"].annotation
    return next(kind for kind in (*get_args(annotation), annotation) if inspect.isclass(kind))()


TARGETS: Final = (
    PatchTarget(
        _SESSION,
        "ClientSession.send_request",
        Role.REQUEST,
        "",
        Style.COROUTINE,
        ("request",),
        carry=_with_trace_context,
    ),
    PatchTarget(_SESSION, "ClientSession.__aenter__", Role.ENTER, "session", Style.COROUTINE),
    PatchTarget(_SESSION, "ClientSession.__aexit__", Role.EXIT, "session", Style.COROUTINE),
    PatchTarget(
        "mcp.shared.jsonrpc_dispatcher", "otel_span", Role.SPAN, "mcp-python-sdk", Style.SYNC, ("name",)
    ),
)


#: Sessions that a store keeps: what they send is a part of what the store does. They outlive an adapter.
_of_stores: Final[WeakSet[Any]] = WeakSet()


class McpSession:
    """Reads the requests of client sessions of the MCP SDK."""

    name = "mcp-session"
    targets = TARGETS

    def __init__(self) -> None:
        #: Which server a session is connected to, as the server itself has said.
        self._servers: WeakKeyDictionary[Any, ServiceIdentity] = WeakKeyDictionary()

    def reader(self, target: PatchTarget) -> Reader:
        """Return what reads the calls of a target, by the target's role."""
        readers: Mapping[Role, Reader] = {
            Role.REQUEST: partial(self._request, target),
            Role.ENTER: self._enter,
            Role.EXIT: self._exit,
            Role.SPAN: partial(_own_span, target),
        }
        return readers[target.role]

    def read_result(self, target: PatchTarget, result: Any) -> Outcome | None:
        """Read a tool's result that is marked as an error."""
        return read_tool_result(result)

    def read_response(self, target: PatchTarget, result: Any) -> object:
        """Return the texts and data that came back from a tool."""
        return read_tool_response(result) if hasattr(result, "content") else None

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        """Read what the SDK raises; anything else is its type."""
        return read_mcp_error(error) or Outcome(type(error).__qualname__, str(error))

    def _request(self, target: PatchTarget, session: Any, args: Args, kwargs: Kwargs) -> Described:
        """`send_request(request, …)` takes its number first thing, so that it can be read just before (1.x)."""
        given = target.given(args, kwargs)["request"]
        request: Any = getattr(given, "root", given)
        number = getattr(session, "_request_id", None)
        numbered = {} if number is None else {semconv.JSONRPC_REQUEST_ID: str(number)}
        if session in _of_stores:
            described = Described(Subject("", {semconv.MCP_METHOD_NAME: request.method, **numbered}, {}))
            described.opens = False
            return described
        method, params = request.method, request.params
        server = self._servers.get(session, UNKNOWN_SERVICE)
        uri = getattr(params, "uri", None)
        subject = _subject(method, server, getattr(params, "name", None), None if uri is None else str(uri))
        described = Described(
            Subject(subject.span_name, {**subject.span_attributes, **numbered}, subject.metric_attributes)
        )
        described.borrows_span = _OWN_TELEMETRY in sys.modules
        if method == "tools/call":
            described.payload = params.arguments
        elif method == "initialize":
            described.after = partial(self._initialized, session)
        return described

    def _initialized(self, session: Any, result: Any) -> None:
        server = getattr(result, "serverInfo", None) or getattr(result, "server_info", None)
        version = getattr(result, "protocolVersion", None) or getattr(result, "protocol_version", None)
        self._servers[session] = ServiceIdentity(
            getattr(server, "name", None), protocol_version=None if version is None else str(version)
        )

    def _enter(self, session: Any, _args: Args, _kwargs: Kwargs) -> Described | None:
        if inside_store.get():
            _of_stores.add(session)
            return None
        return self._exit(session, _args, _kwargs)

    def _exit(self, session: Any, _args: Args, _kwargs: Kwargs) -> Described:
        server = self._servers.get(session, UNKNOWN_SERVICE)
        return Described(Subject("", {}, server.attributes()))


@functools.lru_cache(maxsize=MAX_DESCRIPTIONS)
def _subject(method: str, server: ServiceIdentity, name: str | None, uri: str | None) -> Subject:
    """Name a request; most are made many times."""
    return request_subject(
        method,
        server,
        UNKNOWN_SCOPE,
        tool=name if method == "tools/call" else None,
        prompt=name if method == "prompts/get" else None,
        uri=uri,
    )


def _own_span(target: PatchTarget, _instance: Any, args: Args, kwargs: Kwargs) -> Described:
    """`otel_span(name, *, kind, attributes, …)`."""
    given = target.given(args, kwargs)
    return Described(Subject(given["name"], given.get("attributes") or {}, {}))


def adapter() -> McpSession:
    """Make an adapter that knows no session yet."""
    return McpSession()
