"""What a call of one target is to the agent: an operation, something inside one, or nothing."""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry.context import get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.propagate import inject

from storescope.instrumentation.forks import breaks_by_fork, lineage
from storescope.instrumentation.operation import (
    Excluded,
    Operation,
    OperationKind,
    current_operation,
    method_of,
)
from storescope.instrumentation.variants import BorrowingOperation, Phase
from storescope.notices import warn_once
from storescope.stores import Args, Kwargs, Role


class Inside:
    """An inner observer of an operation: it opens no span and lends its knowledge to the outermost."""

    __slots__ = ("_kind", "_outer")

    def __init__(self, kind: OperationKind, outer: Operation) -> None:
        self._kind = kind
        self._outer = outer

    def started(self) -> None:
        """Do nothing: what could be read has been."""

    def finish(self, result: Any) -> None:
        """Do nothing: the outermost observer sees the result that counts."""

    def fail(self, error: BaseException) -> None:
        """Tell the operation why it is about to fail."""
        try:
            self._outer.know_error(self._kind.read_error(error))
        except Exception:
            warn_once("storescope could not read an error of %s", self._kind.target.name)

    def leave(self) -> None:
        """Do nothing: the operation remains the current one."""


#: A call that is observed, in whichever way: it is told how the call ends.
Observed = Operation | Inside | Excluded


class Observer:
    """Decides what a call of one target is to the agent: an operation, something inside one, or nothing."""

    def __init__(self, kind: OperationKind) -> None:
        self.kind = kind
        self.breaks_by_fork = breaks_by_fork(kind.adapter, kind.target)
        self.read = kind.adapter.reader(kind.target)
        role = kind.target.role
        parameters, self._payload = kind.target.parameters, kind.target.payload
        by_position = self._payload in parameters
        self._payload_position = parameters.index(self._payload) if by_position else sys.maxsize
        self._opens = role in (Role.REQUEST, Role.OPERATION)
        self.carries = kind.target.carry is not None

    def begin(self, instance: Any, args: Args, kwargs: Kwargs) -> Observed | None:
        """Observe a call that is about to run; None leaves it alone."""
        try:
            if self.breaks_by_fork and lineage.unsure:
                lineage.look()
            telemetry = self.kind.telemetry
            if not (telemetry.live or telemetry.go_live()):
                return None
            if get_current() and not is_instrumentation_enabled():  # an empty context suppresses nothing
                return None
            outer = current_operation()
            if outer is not None and not self._is_apart_from(outer):
                return self._begin_inside(outer, instance, args, kwargs)
            if not self._opens:
                return None
            described = self.read(instance, args, kwargs)
            if described is None or not described.opens:
                return None
            if telemetry.exclusions is not None and telemetry.excludes(described.subject):
                return Excluded()
            position = self._payload_position
            if position < len(args):
                payload = args[position]
            else:
                payload = kwargs.get(self._payload) if self._payload else described.payload
            opens = BorrowingOperation if described.borrows_span else Operation
            return opens(self.kind, described, outer, payload)
        except Exception:
            warn_once("storescope could not read a call of %s", self.kind.target.name)
            return None

    def _is_apart_from(self, outer: Operation | Excluded) -> bool:
        """Whether this is no part of `outer`, though it runs inside.

        Below a request of a library's session there is only its server, which may run in this very process; and what
        the user has named may do anything.
        """
        if isinstance(outer, Excluded) or outer.excluded:
            return False
        is_users = outer.kind.target.required and not outer.kind.is_request
        return is_users or isinstance(outer, BorrowingOperation)

    def _begin_inside(
        self, outer: Operation | Excluded, instance: Any, args: Args, kwargs: Kwargs
    ) -> Observed | None:
        if isinstance(outer, Excluded) or outer.excluded or self._is_other(outer):
            return None
        described = self.read(instance, args, kwargs)
        if described is None or not (
            self.kind.target.operation or method_of(described.subject) == outer.operation
        ):
            return None
        if described.outer is not None and outer.kind.is_request:
            outer.refine(described.outer)
        if self.kind.target.role is Role.PHASE:
            return Phase(self.kind, described, outer)
        outer.refine(described.subject)
        return Inside(self.kind, outer)

    def _is_other(self, outer: Operation) -> bool:
        """Whether this is work that the store does on its own account inside another operation."""
        target = self.kind.target
        if target.role is Role.PHASE or not target.operation:
            return False
        return target.operation != outer.operation

    def carried(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Return the arguments with which the call tells the server of the operation that it is a part of."""
        carry = self.kind.target.carry
        operation = current_operation()
        if carry is None or not isinstance(operation, Operation) or operation.excluded:
            return args, kwargs
        try:
            fields: dict[str, str] = {}
            inject(fields, operation.context)
            return carry(fields, args, kwargs) if fields else (args, kwargs)
        except Exception:
            warn_once("storescope could not put trace context into a call of %s", self.kind.target.name)
            return args, kwargs
