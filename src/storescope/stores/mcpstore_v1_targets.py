"""The callables of mcpstore 1.5.x that are patched, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from storescope.stores.adapter import PatchTarget, Role, Style

_CONTEXT: Final = "mcpstore.core.context"
_CLIENT: Final = "mcpstore.mcp.client"

#: Lists that the store answers from its memory, without a request.
FROM_MEMORY: Final = frozenset({"list_tools"})

#: The parameters that hold the arguments of a tool.
PAYLOADS: Final = frozenset({"args", "arguments"})

SYNC: Final = (("", Style.SYNC),)
ASYNC: Final = (("_async", Style.COROUTINE),)
BOTH: Final = SYNC + ASYNC
PLAIN_ASYNC: Final = (("", Style.COROUTINE),)

# Module; class and method; the faces (sync, async) that do the work themselves; the role; the MCP method, operation or
# phase; the positional parameters.
_ROWS: Final = (
    # The outermost choke, where names are resolved, and the one that each executed call crosses once.
    (f"{_CONTEXT}.tool_operations", "ToolOperationsMixin.call_tool", ASYNC, Role.REQUEST, "tools/call",
     "tool_name args return_extracted"),
    ("mcpstore.core.orchestrator.tool_execution", "ToolExecutionMixin.execute_tool_mcpstore", PLAIN_ASYNC,
     Role.REQUEST, "tools/call", "service_name tool_name arguments agent_id"),
    (f"{_CONTEXT}.resources_prompts", "ResourcesPromptsMixin.list_resources", ASYNC, Role.REQUEST,
     "resources/list", "service_name"),
    (f"{_CONTEXT}.resources_prompts", "ResourcesPromptsMixin.list_resource_templates", ASYNC, Role.REQUEST,
     "resources/templates/list", "service_name"),
    (f"{_CONTEXT}.resources_prompts", "ResourcesPromptsMixin.read_resource", ASYNC, Role.REQUEST,
     "resources/read", "uri service_name"),
    (f"{_CONTEXT}.resources_prompts", "ResourcesPromptsMixin.list_prompts", ASYNC, Role.REQUEST,
     "prompts/list", "service_name"),
    (f"{_CONTEXT}.resources_prompts", "ResourcesPromptsMixin.get_prompt", ASYNC, Role.REQUEST,
     "prompts/get", "prompt_name arguments service_name"),
    (f"{_CONTEXT}.resources_prompts", "ResourcesPromptsMixin.list_changed_tools", ASYNC, Role.REQUEST,
     "tools/list", "service_name force_refresh"),
    # What the store does itself.
    ("mcpstore.core.store", "MCPStore.setup_store", BOTH, Role.OPERATION, "setup_store", ""),
    (f"{_CONTEXT}.tool_operations", "ToolOperationsMixin.list_tools", ASYNC, Role.OPERATION, "list_tools",
     "service_name"),
    (f"{_CONTEXT}.service_operations", "ServiceOperationsMixin.add_service", BOTH, Role.OPERATION, "add_service",
     "config"),
    (f"{_CONTEXT}.service_management", "ServiceManagementMixin.wait_service", BOTH, Role.OPERATION,
     "wait_service", "service_name"),
    (f"{_CONTEXT}.service_management", "ServiceManagementMixin.restart_service", ASYNC, Role.OPERATION,
     "restart_service", "service_name"),
    (f"{_CONTEXT}.service_management", "ServiceManagementMixin.disconnect_service", ASYNC, Role.OPERATION,
     "disconnect_service", "service_name"),
    (f"{_CONTEXT}.service_management", "ServiceManagementMixin.delete_service", ASYNC, Role.OPERATION,
     "remove_service", "service_name"),
    (f"{_CONTEXT}.service_management", "ServiceManagementMixin.patch_service", BOTH, Role.OPERATION,
     "patch_service", "service_name"),
    (f"{_CONTEXT}.service_management", "ServiceManagementMixin.update_service", BOTH, Role.OPERATION,
     "update_service", "service_name"),
    (f"{_CONTEXT}.service_management", "ServiceManagementMixin.reset_config", BOTH, Role.OPERATION,
     "reset_config", ""),
    (f"{_CONTEXT}.session_management", "SessionManagementMixin.create_session", SYNC, Role.OPERATION,
     "create_session", ""),
    (f"{_CONTEXT}.session", "Session.bind_service", SYNC, Role.OPERATION, "bind_service", "service_name"),
    (f"{_CONTEXT}.session", "Session.restart_session", SYNC, Role.OPERATION, "restart_session", ""),
    (f"{_CONTEXT}.session", "Session.close_session", SYNC, Role.OPERATION, "close_session", ""),
    # What happens inside, on the connection.
    (f"{_CLIENT}.client", "Client._connect", PLAIN_ASYNC, Role.PHASE, "connect", ""),
    (f"{_CLIENT}.client", "Client.initialize", PLAIN_ASYNC, Role.PHASE, "initialize", ""),
    (f"{_CLIENT}.mixins.tools", "ClientToolsMixin.list_tools", PLAIN_ASYNC, Role.PHASE, "list", ""),
    (f"{_CLIENT}.mixins.tools", "ClientToolsMixin.call_tool_mcp", PLAIN_ASYNC, Role.PHASE, "call", ""),
    (f"{_CLIENT}.mixins.resources", "ClientResourcesMixin.list_resources", PLAIN_ASYNC, Role.PHASE, "list", ""),
    (f"{_CLIENT}.mixins.resources", "ClientResourcesMixin.list_resource_templates", PLAIN_ASYNC, Role.PHASE,
     "list", ""),
    (f"{_CLIENT}.mixins.resources", "ClientResourcesMixin.read_resource_mcp", PLAIN_ASYNC, Role.PHASE, "call", ""),
    (f"{_CLIENT}.mixins.prompts", "ClientPromptsMixin.list_prompts", PLAIN_ASYNC, Role.PHASE, "list", ""),
    (f"{_CLIENT}.mixins.prompts", "ClientPromptsMixin.get_prompt_mcp", PLAIN_ASYNC, Role.PHASE, "call", ""),
    (f"{_CLIENT}.client", "Client._session_runner", PLAIN_ASYNC, Role.SESSION, "session", ""),
    ("mcpstore.core.bridge.unified_executor", "UnifiedBridgeExecutor.run_sync", SYNC, Role.BRIDGE, "run_sync", "coro"),
    (f"{_CLIENT}.telemetry", "get_tracer", SYNC, Role.TRACER, "get_tracer", ""),
)  # fmt: skip


def _targets() -> Iterator[PatchTarget]:
    for module, name, faces, role, operation, parameters in _ROWS:
        for suffix, style in faces:
            names = tuple(parameters.split())
            payload = (
                next((name for name in names if name in PAYLOADS), "") if operation == "tools/call" else ""
            )
            yield PatchTarget(module, name + suffix, role, operation, style, names, payload)


TARGETS: Final = tuple(_targets())
