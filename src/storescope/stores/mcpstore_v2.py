"""mcpstore 2.x: a Rust core of whose native methods every user operation crosses exactly one."""

from __future__ import annotations

import re
from asyncio import Future, isfuture
from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import Any, Final

from storescope import semconv
from storescope.stores.adapter import Described, Outcome, PatchTarget, Reader, Role, Style, Subject
from storescope.stores.mcp_responses import read_tool_result
from storescope.stores.mcpstore_v2_targets import FROM_MEMORY, TARGETS
from storescope.stores.subjects import (
    UNKNOWN_SCOPE,
    UNKNOWN_SERVICE,
    DescriptionCache,
    Scope,
    ServiceIdentity,
    operation_subject,
    public_uri,
    request_subject,
    service_identity,
)

#: Error codes that mcpstore puts before the colon of a bare RuntimeError.
ERROR_CODES: Final = frozenset(
    """
    auth_failed call_cancelled call_disconnected call_timed_out capability_unsupported config_invalid
    connection_auth_required connection_closed connection_refused connection_spawn_failed connection_timed_out
    connection_tls connection_unsupported elicitation_cancelled elicitation_input_required
    elicitation_invalid_response elicitation_timed_out handshake_incompatible handshake_rejected
    handshake_uncorrelated health_check_failed internal invalid_input not_connected oauth_provider_failed
    openapi_request_failed probe_timed_out secure_storage_unavailable service_not_found service_unavailable
    session_not_active session_not_found stop_failed task_failed task_not_cancellable task_not_found
    task_state_failed tool_failed tool_not_available
    """.split()
)
#: The codes of requests that went out. `internal`, mostly a name that could not be resolved, is not among them.
SENT_CODES: Final = frozenset({"call_cancelled", "call_disconnected", "call_timed_out", "tool_failed"})
#: Operations after which names or services may be others than before.
CHANGES: Final = frozenset(
    """
    add_service add_service_config declare_service_scope import_openapi_service import_openapi_service_from_spec
    import_openapi_service_from_spec_text patch_service remove_service remove_service_scope
    reset_config reset_scope restart_service swap_store update_service
    """.split()
)
#: Operations of a scope after which a service is connected, so that all can be known of it.
CONNECTS: Final = frozenset({"restart_service", "wait_service"})

SETUP: Final = "setup_store"

_JSONRPC_CODE: Final = re.compile(r"Mcp error: (-?\d{1,6})\b")

#: Yields what natives return, futures or results, and is sent the results; returns what it found.
LookUp = Generator[Any, Any, Any]


class McpstoreV2:
    """Reads the calls of mcpstore 2.x.

    What a name stands for is looked up once and kept, as long as no second store is set up: with several, one alias
    can mean several tools, and a native does not tell which store it belongs to.
    """

    name = "mcpstore-2"
    targets = TARGETS

    def __init__(self) -> None:
        self._stores = 0
        self._aliases = DescriptionCache()
        self._changes = 0
        self._services: dict[str, tuple[ServiceIdentity, Scope]] = {}

    def reader(self, target: PatchTarget) -> Reader:
        """Return what reads the calls of a target, by the class that owns it."""
        owner = target.name.partition(".")[0].removeprefix("Async")
        if owner == "ScopeContext" and target.operation == "tools/call":
            return partial(self._aliased_tool, target)
        readers: dict[str, Callable[..., Described]] = {
            "ScopeContext": self._on_scope,
            "MCPStore": self._on_store,
            "Service": self._on_held,
            "Tool": self._on_held,
        }
        return partial(readers.get(owner, self._on_listed), target)

    def read_result(self, target: PatchTarget, result: Any) -> Outcome | None:
        """Read `{"content": …, "is_error": …}`; whatever else a native returns is a success."""
        if target.operation == "tools/call":
            if isinstance(result, dict) and result.get("is_error"):
                return read_tool_result(result)
        elif target.operation == "resources/read":
            return _read_resource(result)
        return None

    def read_response(self, target: PatchTarget, result: Any) -> object:
        """Return the texts and data of a tool's result."""
        if target.operation != "tools/call" or not isinstance(result, dict):
            return None
        parts = result.get("content") or []
        if len(parts) == 1:  # as most results have
            return parts[0].get("text", parts[0].get("data"))
        return [part.get("text", part.get("data")) for part in parts]

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        """Read the code before the colon of a bare RuntimeError, else the exception's type."""
        if type(error) is not RuntimeError:
            return Outcome(type(error).__qualname__, str(error), reached_server=False)
        code, _, rest = str(error).partition(": ")
        if code not in ERROR_CODES:
            return Outcome(semconv.ERROR_OTHER, str(error))
        status = _JSONRPC_CODE.search(rest)
        attributes = {semconv.RPC_RESPONSE_STATUS_CODE: status[1]} if status else None
        return Outcome(code, rest, reached_server=code in SENT_CODES, attributes=attributes)

    def _aliased_tool(
        self, target: PatchTarget, context: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Described:
        """`ScopeContext.call_tool(tool_name, args)`, the usual call: what is kept makes it a look into a dict."""
        alias = args[0] if args else kwargs.get("tool_name")
        scope = context.scope()
        if not isinstance(alias, str):
            return Described(request_subject(target.operation, UNKNOWN_SERVICE, _scope(scope)))
        kept = self._aliases.get((scope.get("agent_id"), alias))
        if kept is not None:
            return kept
        look_up = self._find_alias(target, context, _scope(scope), alias)
        as_called = request_subject(target.operation, UNKNOWN_SERVICE, _scope(scope), tool=alias)
        return _complete(target, as_called, look_up)

    def _on_scope(
        self, target: PatchTarget, context: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Described:
        """`ScopeContext.list_prompts()`, `.restart_service(service_name=…)` and their like."""
        described = self._named(target, target.given(args, kwargs), _scope(context.scope()))
        if target.operation in CONNECTS:
            described.after = partial(self._learn, kwargs)
        return described

    def _on_store(
        self, target: PatchTarget, store: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Described:
        """`MCPStore.call_tool(instance_id, tool_name, args)` and all else that a store is asked directly."""
        given = target.given(args, kwargs)
        if given.get("instance_id"):
            return self._looked_up(target, given, self._find_instance(target, store, given))
        described = self._named(target, given, Scope(_text_or_none(given.get("agent_id"))))
        if target.operation == SETUP:
            described.after = self._count_store
        return described

    def _on_held(
        self, target: PatchTarget, held: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Described:
        """`Tool.call(args)`, `Service.list_prompts()`: objects that know what they stand for."""
        given = target.given(args, kwargs)
        return self._looked_up(target, given, self._find_held(target, held, given))

    def _on_listed(
        self, target: PatchTarget, _held: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Described:
        """`Resource.read()`, `Prompt.get(args)`: the store keeps neither, and would ask the server for their names."""
        return Described(_subject(target, target.given(args, kwargs), UNKNOWN_SERVICE, UNKNOWN_SCOPE))

    def _named(self, target: PatchTarget, given: Mapping[str, Any], scope: Scope) -> Described:
        """An operation on a whole scope, or on the service that the caller names."""
        service, _ = self._services.get(given.get("instance_id", ""), (None, None))
        described = Described(
            _subject(target, given, service or ServiceIdentity(_service_name(given)), scope)
        )
        return self._forgetting(target, described)

    def _looked_up(self, target: PatchTarget, given: Mapping[str, Any], look_up: LookUp) -> Described:
        as_called = _subject(target, given, UNKNOWN_SERVICE, UNKNOWN_SCOPE)
        return self._forgetting(target, _complete(target, as_called, look_up))

    def _forgetting(self, target: PatchTarget, described: Described) -> Described:
        """Have names looked up again after an operation that can change what they stand for."""
        if target.operation in CHANGES:
            described.after = self._forget
        return described

    def _find_alias(self, target: PatchTarget, context: Any, scope: Scope, alias: str) -> LookUp:
        changes = self._changes
        tool = yield context.find_tool(alias)
        info = yield tool.info()
        service, _ = yield from self._find_service(context, info["instance_id"])
        subject = request_subject(target.operation, service, scope, tool=info["tool_name"], alias=alias)
        if self._is_complete(service) and self._changes == changes:
            self._aliases.put((scope.agent_id, alias), Described(subject))
        return subject

    def _find_held(self, target: PatchTarget, held: Any, given: Mapping[str, Any]) -> LookUp:
        """A `Tool` or a `Service` knows its names, and its service where that is known."""
        info = yield held.info()
        if "effective_config" in info:
            service, scope = self._remember(info)
        else:
            known = ServiceIdentity(info["service_name"]), _scope(info["scope"])
            service, scope = self._services.get(info["instance_id"], known)
        return _subject(target, {"tool_name": info.get("tool_name"), **given}, service, scope)

    def _find_instance(self, target: PatchTarget, store: Any, given: Mapping[str, Any]) -> LookUp:
        instance_id = given["instance_id"]
        if instance_id not in self._services:
            if "session_key" in given:
                session = yield store.get_session(given["session_key"])
                agent_id = session["agent_id"]
            else:
                record = yield store.find_instance(instance_id)
                agent_id = record["scope"].get("agent_id")
            context = store.for_agent(agent_id) if agent_id else store.for_store()
            service, scope = yield from self._find_service(context, instance_id)
        else:
            service, scope = self._services[instance_id]
        return _subject(target, given, service, scope)

    def _find_service(
        self, context: Any, instance_id: str
    ) -> Generator[Any, Any, tuple[ServiceIdentity, Scope]]:
        known = self._services.get(instance_id)
        if known is None:
            service = yield context.find_service(instance_id=instance_id)
            known = self._remember((yield service.info()))
        return known

    def _remember(self, info: Mapping[str, Any]) -> tuple[ServiceIdentity, Scope]:
        config = info["effective_config"]
        version = (info.get("mcp") or {}).get("protocolVersion")
        identity = service_identity(info["service_name"], config.get("url"), config.get("command"), version)
        known = identity, _scope(info["scope"])
        if self._is_complete(identity):
            self._services[info["instance_id"]] = known
        return known

    def _is_complete(self, service: ServiceIdentity) -> bool:
        """Whether a service may be kept: it is connected, so all is known of it, and there is no second store."""
        return self._stores <= 1 and service.protocol_version is not None

    def _learn(self, named: Mapping[str, Any], context: Any) -> None:
        """Get to know a service that has just been connected, so that a `Tool` of it can be told how it is reached."""
        self._forget()
        _advance(self._find_named(context, named), None, _ignore)

    def _find_named(self, context: Any, named: Mapping[str, Any]) -> LookUp:
        names = {key: named[key] for key in ("service_name", "instance_id") if key in named}
        service = yield context.find_service(**names)
        self._remember((yield service.info()))

    def _count_store(self, _store: Any) -> None:
        self._stores += 1
        self._forget()

    def _forget(self, _result: Any = None) -> None:
        self._changes += 1
        self._aliases.clear()
        self._services.clear()


def _complete(target: PatchTarget, as_called: Subject, look_up: LookUp) -> Described:
    """Let a look-up name the call: before it starts where natives answer at once, else while it runs."""
    if target.style is Style.FUTURE:
        described = Described(as_called)
        described.resolve = partial(_advance, look_up, None)
        return described
    found: list[Subject] = []
    _advance(look_up, None, found.append)
    return Described(found[0] if found else as_called)


def _advance(look_up: LookUp, value: Any, deliver: Callable[[Subject], None]) -> None:
    """Run a look-up as far as it goes; a future that it yields takes it further when it is done.

    A name that the store does not know ends the look-up: the call itself is about to say so.
    """
    try:
        step = look_up.send(value)
        while not isfuture(step):
            step = look_up.send(step)
    except StopIteration as found:
        deliver(found.value)
    except (RuntimeError, ValueError, KeyError, TypeError):
        return
    else:
        step.add_done_callback(partial(_advance_later, look_up, deliver))


def _advance_later(look_up: LookUp, deliver: Callable[[Subject], None], step: Future[Any]) -> None:
    if step.cancelled() or step.exception() is not None:
        look_up.close()
    else:
        _advance(look_up, step.result(), deliver)


def _subject(
    target: PatchTarget, given: Mapping[str, Any], service: ServiceIdentity, scope: Scope
) -> Subject:
    if target.role is Role.OPERATION:
        return operation_subject(
            target.operation, service, scope, from_memory=target.operation in FROM_MEMORY
        )
    return request_subject(
        target.operation,
        service,
        scope,
        tool=_text_or_none(given.get("tool_name")) if target.operation == "tools/call" else None,
        prompt=_text_or_none(given.get("prompt_name")) if target.operation == "prompts/get" else None,
        uri=_text_or_none(given.get("uri")) if target.operation == "resources/read" else None,
    )


def _read_resource(result: Any) -> Outcome | None:
    """Learn from a resource which one it is: where a `Resource` was read, the call did not say."""
    contents = result.get("contents") if isinstance(result, dict) else None
    uri = contents[0].get("uri") if contents else None
    return Outcome(attributes={semconv.MCP_RESOURCE_URI: public_uri(uri)}) if isinstance(uri, str) else None


def _scope(scope: Mapping[str, str]) -> Scope:
    return Scope(scope.get("agent_id"))


def _service_name(given: Mapping[str, Any]) -> str | None:
    config = given.get("config")
    names = (
        given.get("service_name"),
        given.get("name"),
        config.get("name") if isinstance(config, dict) else None,
    )
    return next((name for name in names if isinstance(name, str)), None)


def _ignore(_found: object) -> None:
    """Take no notice: the look-up has kept what it found."""


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None


def adapter() -> McpstoreV2:
    """Make an adapter that knows no store yet."""
    return McpstoreV2()
