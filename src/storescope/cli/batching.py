"""What `storescope batch` does: reads calls, makes them over a pool of MCP sessions, draws how far it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from rich.console import Console
from rich.progress import Progress

import storescope
from storescope.core import BatchOptimizer, OptimizedConnectionPool, ToolResult

_NAMES: Final = ("type", "tool_name", "arguments")
#: Seconds in which the first session has to be open.
_OPENING_TIME: Final = 10.0


class BadCall(Exception):
    """A line that is no call; the message says which and why."""


def read_calls(lines: Iterable[str]) -> list[Mapping[str, Any]]:
    """Return the calls of JSON lines; empty lines are none."""
    return [_read(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _read(number: int, line: str) -> Mapping[str, Any]:
    try:
        call = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadCall(f"line {number} is no JSON: {error}") from error
    if not isinstance(call, dict) or not isinstance(call.get("tool_name"), str):
        raise BadCall(f'line {number} must be an object with a "tool_name", not {line.strip()[:80]}')
    if unknown := sorted(set(call) - set(_NAMES)):
        raise BadCall(f"line {number} has {unknown[0]!r}; a call has {', '.join(_NAMES)}")
    if not isinstance(call.get("arguments", {}), dict) or not isinstance(call.get("type", ""), str):
        raise BadCall(f'line {number}: "arguments" must be an object, "type" a text')
    return call


def execute(
    calls: Iterable[Mapping[str, Any]], service: dict[str, Any], concurrency: int, **options: Any
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Make the calls, over up to `concurrency` sessions; yield for each what is printed, and whether it succeeded."""
    with (
        OptimizedConnectionPool(service, min_size=1, max_size=concurrency) as pool,
        _progress() as progress,
    ):
        pool.wait(_OPENING_TIME)
        store = storescope.adapt(pool)
        batch = BatchOptimizer(store, max_concurrent=concurrency, progress=progress, **options)
        for call in calls:
            batch.add_operation(call.get("type", "call"), call["tool_name"], call.get("arguments", {}))
        results = batch.optimize_batch_execution()
    for result in results:
        yield _document(store, result), result.ok


def _document(store: Any, result: ToolResult) -> dict[str, Any]:
    document: dict[str, Any] = {"duration": round(result.duration, 6), "attempts": result.attempts}
    if result.value is not None:
        _, _, document["value"] = store.dump_result(result.value)
    if result.error is not None:
        document["error"] = f"{type(result.error).__name__}: {result.error}"
    return document


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Draw a bar on stderr where it is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("calls", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
