"""The order of a batch: what is executed together, in which turn, and what is executed once for several."""

from __future__ import annotations

import threading
from math import ceil
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storescope.core.batching.batch_plan import TYPE_ORDER, Operation, deal, plan, share, stages
from storescope.core.errors import NotRun
from storescope.core.store import ToolResult

few = settings(max_examples=60, deadline=None)
types = st.lists(st.sampled_from(["read", "write", "delete", "create", "rename", "touch"]), max_size=40)


def operation(kind: str, tool: str = "tool", idempotent: bool = True, **arguments: Any) -> Operation:
    return Operation(kind, tool, arguments, idempotent=idempotent)


def nested(levels: int) -> list[Any]:
    value: list[Any] = [(2**70,)]  # which takes the longer way to a key
    for _ in range(levels):
        value = [value]
    return value


class Unreadable(dict):  # type: ignore[type-arg]
    """A dict that raises what no caller expects."""

    def items(self) -> Any:
        raise ZeroDivisionError


def kinds(parted: list[list[Operation]]) -> list[str]:
    return [" ".join(each.operation_type for each in stage) for stage in parted]


def test_types_have_their_turns() -> None:
    """The known ones in their order, then the others as they came; none is dropped."""
    operations = [operation(kind) for kind in "touch write read create rename read delete touch".split()]
    assert kinds(stages(operations, "type", TYPE_ORDER)) == [
        "read read",
        "write",
        "delete",
        "create",
        "touch touch",
        "rename",
    ]
    assert kinds(stages(operations, "type", ("rename",)))[0] == "rename"


def test_the_order_of_addition_is_kept() -> None:
    """A turn ends where the type changes."""
    operations = [operation(kind) for kind in "read read write read read".split()]
    assert kinds(stages(operations, "added", TYPE_ORDER)) == ["read read", "write", "read read"]


@few
@given(types, st.sampled_from(["type", "added"]), st.integers(1, 9), st.integers(1, 9))
def test_every_operation_is_planned_once(added: list[str], order: str, workers: int, batch_size: int) -> None:
    """In one chunk of one stage, and stages are of one type; those of one type keep their order."""
    operations = [operation(kind, number=number) for number, kind in enumerate(added)]
    planned = plan(operations, order, TYPE_ORDER, workers, batch_size)
    flat = [each for stage in planned for chunk in stage for group in chunk for each in group]
    assert sorted(map(id, flat)) == sorted(map(id, operations))
    assert all(len({each.operation_type for c in stage for g in c for each in g}) == 1 for stage in planned)
    assert all(0 < len(chunk) <= batch_size for stage in planned for chunk in stage)
    for kind in set(added):
        assert [each for each in flat if each.operation_type == kind] == [
            each for each in operations if each.operation_type == kind
        ]


@few
@given(st.integers(1, 300), st.integers(1, 64), st.integers(1, 40))
def test_no_worker_idles_while_another_has_a_heap(number: int, workers: int, batch_size: int) -> None:
    """Chunks are as large as `batch_size` allows and an even share asks for, and no larger."""
    chunks = deal([[operation("write")] for _ in range(number)], workers, batch_size)
    assert sum(map(len, chunks)) == number
    assert max(map(len, chunks)) == min(batch_size, ceil(number / workers))


def test_identical_reads_are_one_group() -> None:
    """Same tool, equal arguments in any order, same timeout."""
    same = [Operation("read", "f", {"a": 1, "b": [2]}, idempotent=True) for _ in range(2)]
    same.append(Operation("read", "f", {"b": [2], "a": 1}, idempotent=True))
    others = [
        operation("read", "f", a=1, b=[3]),
        operation("read", "g", a=1, b=[2]),
        operation("read", "f", a=True, b=[2]),
        Operation("read", "f", {"a": 1, "b": [2]}, idempotent=True, timeout=3.0),
    ]
    assert share([*same, *others]) == [same, *[[other] for other in others]]


@pytest.mark.parametrize(
    "pair",
    [
        [operation("write", a=1), operation("write", a=1)],
        [operation("read", idempotent=False, a=1), operation("read", idempotent=False, a=1)],
        [operation("read", a=threading.Lock()), operation("read", a=threading.Lock())],
        [operation("read", a=nested(200)), operation("read", a=nested(200))],
        [operation("read", a=Unreadable(x=(1,))), operation("read", a=Unreadable(x=(1,)))],
        [operation("list", a=1), operation("list", a=1)],
    ],
    ids=[
        "writes",
        "reads that may not be repeated",
        "no key",
        "too deep for a key",
        "raises",
        "another type",
    ],
)
def test_what_may_differ_is_not_shared(pair: list[Operation]) -> None:
    """Only reads are, and of those only what can be told to be the same."""
    assert share(pair) == [[pair[0]], [pair[1]]]


def test_reads_are_not_shared_across_what_stands_between() -> None:
    """In the order of addition, a read after a write is another one."""
    operations = [operation(kind, path="a") for kind in "read read write read".split()]
    planned = plan(operations, "added", TYPE_ORDER, 5, 20)
    assert [[len(group) for chunk in stage for group in chunk] for stage in planned] == [[2], [1], [1]]


def test_an_operation_is_begun_or_cancelled_once() -> None:
    """Of eight threads that claim it one gets it; whoever comes later is told."""
    for _ in range(50):
        handle, won = operation("read"), []
        gate = threading.Barrier(8)

        def claim(handle: Operation = handle, won: list[int] = won, gate: threading.Barrier = gate) -> None:
            gate.wait()
            if handle.claim():
                won.append(1)

        threads = [threading.Thread(target=claim) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [1]
        assert not handle.cancel()


def test_a_handle_tells_its_state() -> None:
    """Queued, running, done; a result that is not there is an error, not a wait."""
    handle = operation("read", "read_file")
    assert repr(handle) == "<Operation read 'read_file', queued>"
    with pytest.raises(NotRun, match=r"read_file \(read\) has not run yet"):
        handle.result()
    handle.claim()
    assert (repr(handle), handle.done()) == ("<Operation read 'read_file', running>", False)
    handle.settle(ToolResult("text"))
    assert (handle.result().value, handle.done()) == ("text", True)
    assert repr(handle) == "<Operation read 'read_file', done>"
