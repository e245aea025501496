"""Whose a tool is: its service, and the scope and agent that a store's context works for."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final

from storescope.core.payloads.keys import stable_key
from storescope.core.store import Owner
from storescope.stores.mcpstore_v1 import AGENT_SEPARATOR

#: Yields what a store returns, awaitables or values, and is sent the values; returns the owner.
OwnerLookUp = Generator[Any, Any, Owner]


def _in_mcpstore_v1(context: Any, list_tools: Callable[[], Any], tool_name: str) -> OwnerLookUp:
    """Look a tool up in the list of all that a context of mcpstore 1.5.x has."""
    agent = getattr(getattr(context, "_context", context), "_agent_id", None) or ""
    services = {tool.name: tool.service_name for tool in (yield list_tools())}
    service = services.get(tool_name, "").partition(AGENT_SEPARATOR)[0]
    return Owner(service, "agent" if agent else "store", agent)


def _in_mcpstore_v2(context: Any, _list_tools: Callable[[], Any], tool_name: str) -> OwnerLookUp:
    """Ask a context of mcpstore 2.x, in about 0.2 ms; its scope is an attribute of the facade, a method of natives."""
    scope = context.scope() if callable(context.scope) else context.scope
    tool = yield context.find_tool(tool_name)
    info = yield tool.info()
    return Owner(info["service_name"], scope["type"], scope.get("agent_id", ""))


def _in_pool(pool: Any, _list_tools: Callable[[], Any], _tool_name: str) -> OwnerLookUp:
    """Take the configuration of a pool's service for the service; where a factory opens connections there is none."""
    yield from ()
    return Owner(stable_key(pool.service_config).hex() if pool.service_config else "")


_LOOK_UPS: Final[Mapping[str, Callable[..., OwnerLookUp]]] = {
    "AgentContext": _in_mcpstore_v2,
    "AgentProxy": _in_mcpstore_v1,
    "AsyncOptimizedConnectionPool": _in_pool,
    "AsyncScopeContext": _in_mcpstore_v2,
    "MCPStoreContext": _in_mcpstore_v1,
    "OptimizedConnectionPool": _in_pool,
    "ScopeContext": _in_mcpstore_v2,
    "StoreContext": _in_mcpstore_v2,
    "StoreProxy": _in_mcpstore_v1,
}


def owner_look_up(source: object) -> Callable[..., OwnerLookUp] | None:
    """Return how a store tells the owner of a tool, by the name of its class; None where it tells none apart."""
    names = (kind.__name__ for kind in type(source).__mro__)
    return next((_LOOK_UPS[name] for name in names if name in _LOOK_UPS), None)
