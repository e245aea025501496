"""The native methods of mcpstore 2.x that are patched, as one table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from storescope.stores.adapter import PatchTarget, Role, Style

MODULE: Final = "mcpstore._rust"

#: Lists that the store answers from its memory, without a request.
FROM_MEMORY: Final = frozenset(
    {"list_tools", "list_tools_in_session", "list_session_tools", "list_tool_entries"}
)

BOTH: Final = ("", "Async")
SYNC: Final = ("",)

# Class; which of its faces (sync, async) have the method; method; the MCP method that it sends, or the operation of
# the store that it is where that is not its own name; the native's positional parameters.
_ROWS: Final[tuple[tuple[str, tuple[str, ...], str, str, str], ...]] = (
    ("ScopeContext", BOTH, "call_tool", "tools/call", "tool_name args"),
    ("Tool", BOTH, "call", "tools/call", "args"),
    ("MCPStore", SYNC, "call_tool", "tools/call", "instance_id tool_name args"),
    ("MCPStore", BOTH, "call_tool_in_session", "tools/call", "session_key instance_id tool_name args"),
    ("MCPStore", SYNC, "list_changed_tools", "tools/list", "instance_id force_refresh"),
    ("ScopeContext", BOTH, "list_resources", "resources/list", ""),
    ("Service", BOTH, "list_resources", "resources/list", ""),
    ("MCPStore", SYNC, "list_resources", "resources/list", "instance_id"),
    ("MCPStore", SYNC, "list_resources_in_session", "resources/list", "session_key"),
    ("ScopeContext", BOTH, "list_resource_templates", "resources/templates/list", ""),
    ("Service", BOTH, "list_resource_templates", "resources/templates/list", ""),
    ("MCPStore", SYNC, "list_resource_templates", "resources/templates/list", "instance_id"),
    ("MCPStore", SYNC, "list_resource_templates_in_session", "resources/templates/list", "session_key"),
    ("Service", BOTH, "find_resource", "resources/list", "uri"),
    ("Service", BOTH, "find_resource_template", "resources/templates/list", "uri_template"),
    ("Resource", BOTH, "info", "resources/list", ""),
    ("ResourceTemplate", BOTH, "info", "resources/templates/list", ""),
    ("Service", BOTH, "read_resource", "resources/read", "uri"),
    ("Resource", BOTH, "read", "resources/read", ""),
    ("MCPStore", SYNC, "read_resource", "resources/read", "instance_id uri"),
    ("MCPStore", SYNC, "read_resource_in_session", "resources/read", "session_key uri instance_id"),
    ("ScopeContext", BOTH, "list_prompts", "prompts/list", ""),
    ("Service", BOTH, "list_prompts", "prompts/list", ""),
    ("MCPStore", SYNC, "list_prompts", "prompts/list", "instance_id"),
    ("MCPStore", SYNC, "list_prompts_in_session", "prompts/list", "session_key"),
    ("Service", BOTH, "find_prompt", "prompts/list", "prompt_name"),
    ("Prompt", BOTH, "info", "prompts/list", ""),
    ("Service", BOTH, "get_prompt", "prompts/get", "prompt_name arguments"),
    ("Prompt", BOTH, "get", "prompts/get", "args"),
    ("MCPStore", SYNC, "get_prompt", "prompts/get", "instance_id prompt_name arguments"),
    ("MCPStore", SYNC, "get_prompt_in_session", "prompts/get", "session_key instance_id prompt_name arguments"),
    # Lists from memory.
    ("ScopeContext", BOTH, "list_tools", "", ""),
    ("Service", BOTH, "list_tools", "", ""),
    ("MCPStore", SYNC, "list_tools", "", "instance_id"),
    ("MCPStore", BOTH, "list_tools_in_session", "", "session_key"),
    ("MCPStore", SYNC, "list_session_tools", "", "session_key"),
    ("MCPStore", SYNC, "list_tool_entries", "", "instance_id filter"),
    # Services.
    ("ScopeContext", BOTH, "add_service", "", "config"),
    ("ScopeContext", BOTH, "add_service_config", "", "service_name config"),
    ("ScopeContext", BOTH, "wait_service", "", ""),
    ("ScopeContext", BOTH, "restart_service", "", ""),
    ("ScopeContext", BOTH, "disconnect_service", "", ""),
    ("ScopeContext", BOTH, "remove_service", "", ""),
    ("ScopeContext", BOTH, "patch_service", "", ""),
    ("ScopeContext", BOTH, "update_service", "", ""),
    ("ScopeContext", BOTH, "reset_config", "", ""),
    ("Service", BOTH, "wait_service", "", "timeout"),
    ("Service", BOTH, "restart_service", "", ""),
    ("Service", BOTH, "disconnect_service", "", ""),
    ("Service", BOTH, "remove_service", "", ""),
    ("Service", BOTH, "patch_service", "", "updates"),
    ("Service", BOTH, "update_service", "", "config"),
    ("MCPStore", BOTH, "add_service", "", "service_name config"),
    ("MCPStore", BOTH, "restart_service", "", "instance_id"),
    ("MCPStore", BOTH, "remove_service", "", "service_name"),
    ("MCPStore", SYNC, "connect_service", "", "instance_id"),
    ("MCPStore", SYNC, "disconnect_service", "", "instance_id"),
    ("MCPStore", SYNC, "patch_service", "", "service_name base_updates"),
    ("MCPStore", SYNC, "update_service", "", "service_name base_config"),
    ("MCPStore", SYNC, "declare_service_scope", "", "service_name scope descriptor"),
    ("MCPStore", SYNC, "remove_service_scope", "", "service_name scope"),
    ("MCPStore", SYNC, "wait_instance_ready", "", "instance_id timeout_secs"),
    ("MCPStore", SYNC, "check_instances", "", "instance_ids"),
    ("MCPStore", BOTH, "import_openapi_service", "", "name spec_url options"),
    ("MCPStore", BOTH, "import_openapi_service_from_spec", "", "name spec_url spec options"),
    ("MCPStore", BOTH, "import_openapi_service_from_spec_text", "", "name spec_url spec_text options"),
    # Sessions of the store; they are not MCP sessions.
    ("MCPStore", BOTH, "create_session", "", "session_id scope agent_id lease_seconds metadata"),
    ("MCPStore", BOTH, "close_session", "", "session_key reason"),
    ("MCPStore", BOTH, "close_sessions", "", "scope agent_id reason"),
    ("MCPStore", SYNC, "cleanup_sessions", "", "scope agent_id"),
    ("MCPStore", SYNC, "restart_sessions", "", "scope agent_id"),
    ("MCPStore", SYNC, "extend_session", "", "session_key lease_seconds"),
    ("MCPStore", SYNC, "extend_session_with_retry", "", "session_key lease_seconds max_attempts delay_millis"),
    ("MCPStore", BOTH, "bind_service_to_session", "", "session_key instance_id"),
    ("MCPStore", SYNC, "bind_service_to_session_with_retry", "", "session_key instance_id max_attempts delay_millis"),
    ("MCPStore", BOTH, "unbind_service_from_session", "", "session_key instance_id"),
    ("MCPStore", SYNC, "unbind_service_from_session_with_retry", "",
     "session_key instance_id max_attempts delay_millis"),
    # The store itself.
    ("MCPStore", BOTH, "setup", "setup_store", "config_path"),
    ("MCPStore", BOTH, "setup_with_options", "setup_store",
     "config_path source_mode store store_config namespace node_mode"),
    ("MCPStore", BOTH, "reset_config", "", ""),
    ("MCPStore", SYNC, "reset_scope", "", "scope"),
    ("MCPStore", SYNC, "swap_store", "", "store config"),
    ("MCPStore", SYNC, "cache_inspect", "", ""),
    ("MCPStore", SYNC, "cache_health_check", "", ""),
)  # fmt: skip


def _targets() -> Iterator[PatchTarget]:
    for owner, faces, method, operation, parameters in _ROWS:
        for face in faces:
            yield PatchTarget(
                module=MODULE,
                name=f"{face}{owner}.{method}",
                role=Role.REQUEST if "/" in operation else Role.OPERATION,
                operation=operation or method,
                style=Style.FUTURE if face else Style.SYNC,
                parameters=tuple(parameters.split()),
                payload="args" if operation == "tools/call" else "",
            )


TARGETS: Final = tuple(_targets())
