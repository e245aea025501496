"""A store whose calls do nothing, in the shape of mcpstore 2.x's natives, so that the real adapter patches it."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

RESULT = {"content": [{"type": "text", "text": "hello"}], "is_error": False}


class Service:
    def info(self) -> dict[str, Any]:
        return {
            "service_name": "lab",
            "instance_id": "20592210",
            "scope": {"type": "store"},
            "effective_config": {"command": "server"},
            "mcp": {"protocolVersion": "2025-11-25"},
        }


class Tool:
    def info(self) -> dict[str, Any]:
        return {
            "tool_name": "echo",
            "instance_id": "20592210",
            "service_name": "lab",
            "scope": {"type": "store"},
        }


class ScopeContext:
    def scope(self) -> dict[str, Any]:
        return {"type": "store"}

    def call_tool(self, tool_name: str, args: object = None) -> dict[str, Any]:
        return RESULT

    def find_tool(self, tool_name: str) -> Tool:
        return Tool()

    def find_service(self, **names: object) -> Service:
        return Service()


class MCPStore:
    @staticmethod
    def setup_with_options() -> MCPStore:
        return MCPStore()

    def for_store(self) -> ScopeContext:
        return ScopeContext()


def install() -> None:
    """Put the store where the adapter waits for it."""
    native = ModuleType("mcpstore._rust")
    for native_class in (ScopeContext, MCPStore):
        setattr(native, native_class.__name__, native_class)
    sys.modules["mcpstore"] = ModuleType("mcpstore")
    sys.modules["mcpstore._rust"] = native
