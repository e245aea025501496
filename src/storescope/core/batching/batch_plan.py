"""What a batch does, and in which order: pure planning, the same for threads and for tasks."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from math import ceil

from storescope.core.errors import Cancelled, NotRun
from storescope.core.payloads.keys import stable_key
from storescope.core.store import Arguments, ToolResult

READ = "read"
#: The guide's order of types: whatever is read is read before anything changes.
TYPE_ORDER = (READ, "write", "delete", "create")

#: Operations of which one is executed, and all get its result. A group of one is the rule.
Group = list["Operation"]
#: What one worker takes at a time and executes in order.
Chunk = list[Group]


class Operation:
    """One call in a batch: a handle that tells what came of it."""

    __slots__ = ("_open", "_result", "arguments", "idempotent", "operation_type", "timeout", "tool_name")

    def __init__(
        self,
        operation_type: str,
        tool_name: str,
        arguments: Arguments,
        *,
        timeout: float | None = None,
        idempotent: bool = False,
    ) -> None:
        self.operation_type = operation_type
        self.tool_name = tool_name
        self.arguments = arguments
        self.timeout = timeout
        self.idempotent = idempotent
        self._open = [True]
        self._result: ToolResult | None = None

    def done(self) -> bool:
        """Whether there is a result."""
        return self._result is not None

    def result(self) -> ToolResult:
        """Return what came of it, without waiting; raise NotRun as long as nothing did.

        To wait for it, call the batch's `optimize_batch_execution()`: it returns when no run has it any more.
        """
        if self._result is None:
            raise NotRun(f"{self.tool_name} ({self.operation_type}) has not run yet")
        return self._result

    def cancel(self) -> bool:
        """Keep it from being executed and return True; False if it has begun or has a result already."""
        if not self.claim():
            return False
        self.settle(self.cancelled_result())
        return True

    def cancelled_result(self) -> ToolResult:
        """Return what it gets that was cancelled in time."""
        return ToolResult(error=Cancelled(f"{self.tool_name} was cancelled before it began"), attempts=0)

    def claim(self) -> bool:
        """Begin, for whoever executes or cancels it: True for the first who asks, and only for that one."""
        try:
            self._open.pop()  # atomic, without a lock that a fork could leave taken
        except IndexError:
            return False
        return True

    def settle(self, result: ToolResult) -> None:
        """Keep the result; for whoever claimed it."""
        self._result = result

    def __repr__(self) -> str:
        state = "done" if self._result else "queued" if self._open else "running"
        return f"<Operation {self.operation_type} {self.tool_name!r}, {state}>"


def plan(
    operations: Iterable[Operation], order: str, type_order: Sequence[str], workers: int, batch_size: int
) -> list[list[Chunk]]:
    """Return stages of chunks: those of a stage may be executed at once, and the stages only in turn."""
    return [deal(share(stage), workers, batch_size) for stage in stages(operations, order, type_order)]


def stages(operations: Iterable[Operation], order: str, type_order: Sequence[str]) -> list[list[Operation]]:
    """Part operations by type. By "type": each type once, the known first and the others as they came.

    By "added": a stage ends where the next operation is of another type.
    """
    if order == "added":
        return [list(stage) for _, stage in groupby(operations, key=lambda each: each.operation_type)]
    by_type: dict[str, list[Operation]] = {known: [] for known in type_order}
    for operation in operations:
        by_type.setdefault(operation.operation_type, []).append(operation)
    return [stage for stage in by_type.values() if stage]


def share(stage: Iterable[Operation]) -> list[Group]:
    """Put identical reads of a stage together: nothing that is executed between them can tell them apart."""
    groups: dict[Hashable, Group] = {}
    for operation in stage:
        groups.setdefault(_identity(operation), []).append(operation)
    return list(groups.values())


def _identity(operation: Operation) -> Hashable:
    """Return what identical reads have in common; any other operation is only like itself."""
    if operation.operation_type != READ or not operation.idempotent:
        return operation
    try:
        return stable_key(operation.tool_name, operation.arguments), operation.timeout
    except Exception:  # what has no key is like no other, whatever its own code raised
        return operation


def deal(groups: list[Group], workers: int, batch_size: int) -> list[Chunk]:
    """Cut groups into chunks of at most `batch_size`, smaller where a worker would have none."""
    size = min(batch_size, ceil(len(groups) / workers))
    return [groups[start : start + size] for start in range(0, len(groups), size)]
