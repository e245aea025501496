"""Any callable as a store: those that `STORESCOPE_TARGETS` names, read by the usual names of their parameters."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from storescope.settings import NamedCallable
from storescope.stores.adapter import (
    PAYLOAD_PARAMETERS,
    UNKNOWN,
    Args,
    Described,
    Kwargs,
    Outcome,
    PatchTarget,
    Reader,
    Role,
)
from storescope.stores.mcp_responses import read_tool_response, read_tool_result
from storescope.stores.subjects import UNKNOWN_SCOPE, ServiceIdentity, operation_subject, request_subject


class NamedCallables:
    """Reads calls of what the user has named; an operation with a `/` is an MCP method."""

    name = "named-callables"

    def __init__(self, named: Iterable[NamedCallable]) -> None:
        self.targets = tuple(
            PatchTarget(
                one.module,
                one.name,
                Role.REQUEST if "/" in one.operation else Role.OPERATION,
                one.operation,
                required=True,
            )
            for one in named
        )

    def reader(self, target: PatchTarget) -> Reader:
        """Return what reads the calls of a target."""
        return partial(_read, target)

    def read_result(self, target: PatchTarget, result: Any) -> Outcome | None:
        """Read a tool's result that is marked as an error."""
        return read_tool_result(result) if target.operation == "tools/call" else None

    def read_response(self, target: PatchTarget, result: Any) -> object:
        """Return what came back from a tool."""
        return read_tool_response(result) if target.operation == "tools/call" else None

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        """Read an exception: its type, and what it says."""
        return Outcome(type(error).__qualname__, str(error))


def _read(target: PatchTarget, _instance: Any, args: Args, kwargs: Kwargs) -> Described:
    given = target.given(args, kwargs)
    service = ServiceIdentity(_text(given, "service_name"))
    if target.role is Role.OPERATION:
        return Described(operation_subject(target.operation, service, UNKNOWN_SCOPE))
    name = _text(given, "tool_name", "prompt_name", "name")
    described = Described(
        request_subject(
            target.operation,
            service,
            UNKNOWN_SCOPE,
            tool=name if target.operation == "tools/call" else None,
            prompt=name if target.operation == "prompts/get" else None,
            uri=_text(given, "uri") if target.operation == "resources/read" else None,
        )
    )
    # Where a callable takes whatever it is given by name, no parameter of its own is the payload.
    described.payload = next((given[name] for name in PAYLOAD_PARAMETERS if name in given), UNKNOWN)
    return described


def _text(given: Kwargs, *names: str) -> str | None:
    values = (given.get(name) for name in names)
    return next((value for value in values if isinstance(value, str)), None)
