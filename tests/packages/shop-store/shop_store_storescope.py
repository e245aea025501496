"""What storescope must know of shop_store. Importing this imports storescope's own modules, and not the store."""

from __future__ import annotations

from functools import partial
from typing import Any

from storescope import semconv
from storescope.stores import Args, Described, Kwargs, Outcome, PatchTarget, Reader, Role, Subject
from storescope.stores.mcp_responses import read_tool_response, read_tool_result
from storescope.stores.subjects import (
    UNKNOWN_SCOPE,
    DescriptionCache,
    ServiceIdentity,
    operation_subject,
    request_subject,
    service_identity,
)


class ShopAdapter:
    """Reads the calls of shops."""

    name = "shop"
    targets: tuple[PatchTarget, ...] = (
        PatchTarget("shop_store", "Shop.call", Role.REQUEST, "tools/call"),
        PatchTarget("shop_store", "AsyncShop.call", Role.REQUEST, "tools/call"),
        PatchTarget("shop_store", "Shop.add_service", Role.OPERATION, "add_service"),
        PatchTarget("shop_store", "AsyncShop.add_service", Role.OPERATION, "add_service"),
        PatchTarget("shop_store", "_Services._initialize", Role.PHASE, "initialize"),
    )

    def __init__(self) -> None:
        self._calls = DescriptionCache()

    def reader(self, target: PatchTarget) -> Reader:
        """Return what reads the calls of a target, by the target's role."""
        readers = {Role.REQUEST: self._call, Role.OPERATION: self._operation, Role.PHASE: self._phase}
        return partial(readers[target.role], target)

    def read_result(self, target: PatchTarget, result: Any) -> Outcome | None:
        """Read a tool's result that the server marked as an error."""
        return read_tool_result(result) if target.role is Role.REQUEST else None

    def read_response(self, target: PatchTarget, result: Any) -> object:
        """Return the texts and data that came back from a tool."""
        return read_tool_response(result) if target.role is Role.REQUEST else None

    def read_error(self, target: PatchTarget, error: BaseException) -> Outcome:
        """Tell a server's refusal, and a call that went nowhere, from everything else."""
        kind = type(error).__name__
        if kind == "RequestRefused":
            code = str(error.code)  # type: ignore[attr-defined]
            return Outcome(code, str(error), attributes={semconv.RPC_RESPONSE_STATUS_CODE: code})
        if kind == "UnknownService":
            return Outcome(semconv.ERROR_SERVICE_NOT_FOUND, str(error), reached_server=False)
        return Outcome(kind, str(error))

    def _call(self, target: PatchTarget, shop: Any, args: Args, kwargs: Kwargs) -> Described:
        """`call(tool, arguments)`, where the shop's name of a tool is `service.tool`."""
        given = target.given(args, kwargs).get("tool")
        alias = given if isinstance(given, str) else ""
        service, _, tool = alias.partition(".")
        url = shop.url_of(service)
        described = self._calls.get((alias, url)) if tool else None
        if described is None:
            identity = service_identity(service or None, url, None)
            subject = request_subject(target.operation, identity, UNKNOWN_SCOPE, tool=tool, alias=alias)
            described = Described(subject)
            if tool:
                self._calls.put((alias, url), described)
        return described

    def _operation(self, target: PatchTarget, _shop: Any, args: Args, kwargs: Kwargs) -> Described:
        """`add_service(name, url)`."""
        name = target.given(args, kwargs).get("name")
        service = ServiceIdentity(name if isinstance(name, str) else None)
        return Described(operation_subject(target.operation, service, UNKNOWN_SCOPE))

    def _phase(self, target: PatchTarget, _shop: Any, _args: Args, _kwargs: Kwargs) -> Described:
        """Connecting to a service, as a part of the first call of a tool of it."""
        return Described(Subject(target.operation, {semconv.PHASE: target.operation}, {}))
