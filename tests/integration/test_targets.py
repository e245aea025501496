"""The table of patched natives is complete: what is not in it stands here, with the reason."""

from __future__ import annotations

import inspect
import itertools
from typing import Any

import pytest

from storescope.stores.adapter import Role, Style
from storescope.stores.mcpstore_v2_targets import FROM_MEMORY, TARGETS

pytestmark = pytest.mark.mcpstore2

BOTH = ("", "Async")

#: Reason; the classes (without `Async`); their methods, of either face.
OMITTED: tuple[tuple[str, str, str], ...] = (
    (
        "hands out an object or a name that the store holds",
        "MCPStore ScopeContext Service",
        "for_store for_agent scope find_tool find_service list_services",
    ),
    (
        "reads the store's own records about services and agents",
        "MCPStore ScopeContext Service Tool",
        "info state config show_config show_scope_config find_agent find_instance instance_info scope_info "
        "service_state list_agents list_instances list_instances_scoped list_scopes list_services_viewed "
        "get_definition_config get_effective_config export_instance_config current_store namespace",
    ),
    (
        "reads the store's own records about its sessions",
        "MCPStore",
        "find_session find_session_by_user_session_id get_session get_session_status list_sessions "
        "list_session_services show_session_config export_sessions_snapshot get_active_session_for_context "
        "get_session_context_state is_auto_session_enabled_for_context",
    ),
    (
        "changes a note in the store's own records about its sessions",
        "MCPStore",
        "import_sessions_snapshot update_session_metadata set_active_session_for_context "
        "enable_auto_session_for_context disable_auto_session_for_context set_session_tool_visibility",
    ),
    (
        "is the application's own key-value data, kept by the store",
        "MCPStore",
        "get_session_state_value list_session_state set_session_state set_session_state_with_retry "
        "delete_session_state delete_session_state_with_retry clear_session_state",
    ),
    (
        "describes a tool, prompt or resource otherwise than its server does: set-up, not work",
        "MCPStore Service Tool Prompt Resource ResourceTemplate",
        "enable disable get_override set_override delete_override list_tool_overrides list_prompt_overrides "
        "list_resource_overrides list_resource_template_overrides get_tool_override set_tool_override "
        "delete_tool_override create_llm_friendly_tool_override create_parameter_renamed_tool_override "
        "create_validated_tool_override get_tool_preference get_tool_preferences set_tool_preference "
        "clear_tool_preference get_context_tool_visibility set_context_tool_visibility "
        "clear_context_tool_visibility",
    ),
    (
        "tells about OpenAPI imports of before, or prepares one as a file",
        "MCPStore",
        "get_openapi_import last_openapi_import list_openapi_imports bundle_openapi_artifact "
        "bundle_openapi_artifact_from_spec bundle_openapi_spec bundle_openapi_spec_from_spec",
    ),
    (
        "is the store's own telemetry and upkeep; its event history has raw arguments in it",
        "MCPStore",
        "event_history event_capability_report reset_cache_request_metrics restart_control_reactor",
    ),
    ("is a part of setting a store up, which is one operation already", "MCPStore", "load_from_config"),
    ("computes a name from what it is given", "PerspectiveResolver", "resolve_tool"),
    ("is an accessor of the native class without work of its own", "ResourceTemplate", "no_extra"),
)
OMISSIONS = {
    f"{face}{owner}.{method}"
    for _, owners, methods in OMITTED
    for face, owner, method in itertools.product(BOTH, owners.split(), methods.split())
}


def natives() -> dict[str, Any]:
    """Return every public method of every native class of the installed release."""
    import mcpstore._rust as native

    return {
        f"{name}.{method}": getattr(owner, method)
        for name, owner in vars(native).items()
        if inspect.isclass(owner)
        for method in dir(owner)
        if not method.startswith("_") and callable(getattr(owner, method))
    }


def test_every_native_is_a_target_or_an_omission_with_a_reason() -> None:
    """Nothing public of the installed release is forgotten, and nothing is both."""
    targets = {target.name for target in TARGETS}

    assert sorted(natives().keys() - targets - OMISSIONS) == []
    assert sorted(targets & OMISSIONS) == []


def test_every_target_exists() -> None:
    """The table names nothing that the installed release does not have."""
    assert sorted({target.name for target in TARGETS} - natives().keys()) == []


def test_no_target_stands_twice() -> None:
    """One native is patched once."""
    names = [target.name for target in TARGETS]

    assert len(names) == len(set(names))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_positional_parameters_are_the_natives(target: Any) -> None:
    """Arguments are read by the names that the native itself gives them."""
    parameters = inspect.signature(natives()[target.name]).parameters.values()
    positional = [
        parameter.name
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        and parameter.name != "self"
    ]

    assert list(target.parameters) == positional


def test_roles_and_styles_follow_from_names() -> None:
    """MCP methods are requests, the rest operations; classes with `Async` hand out futures."""
    for target in TARGETS:
        assert (target.role is Role.REQUEST) == ("/" in target.operation)
        assert (target.style is Style.FUTURE) == target.name.startswith("Async")
    assert {target.operation for target in TARGETS} >= FROM_MEMORY
