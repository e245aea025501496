"""Stacks of operations: from the frame that opened one to what runs, or waits, below it."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from operator import attrgetter
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any, Final

#: Code of the frames, outermost first; None stands for frames, or for stacks, that are left out.
Stack = tuple[CodeType | None, ...]

#: How many frames of a thread are looked at for operations, from the innermost.
_MAX_WALK: Final = 2048

_PARTS: Final[Mapping[type, attrgetter[tuple[FrameType | None, Any]]]] = {
    CoroutineType: attrgetter("cr_frame", "cr_await"),
    AsyncGeneratorType: attrgetter("ag_frame", "ag_await"),
    GeneratorType: attrgetter("gi_frame", "gi_yieldfrom"),
}
#: What the interpreter puts between two of these, and shows to its garbage collector alone.
_WRAPPERS: Final = {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "anext_awaitable"}


def running_stacks(
    threads: Mapping[int, FrameType], wanted: Mapping[FrameType, object], max_depth: int
) -> dict[FrameType, tuple[int, Stack]]:
    """Return, for each wanted frame that some thread is in, the thread and the stack from it inwards.

    Threads are searched in their order until every wanted frame is found.
    """
    found: dict[FrameType, tuple[int, Stack]] = {}
    for thread, innermost in threads.items():
        codes: list[CodeType | None] = []
        frame: FrameType | None = innermost
        while frame is not None and len(codes) < _MAX_WALK:
            codes.append(frame.f_code)
            if frame in wanted:
                found[frame] = thread, _outermost_first(codes, max_depth)
                if len(found) == len(wanted):
                    return found
            frame = frame.f_back
    return found


def suspended_stack(frame: FrameType, outermost: Any, max_depth: int) -> Stack:
    """Return the stack from a frame inwards that no thread is in, along what each coroutine waits for.

    `outermost` is a coroutine in or below which the frame is; where it is not, or is None, only the frame is known.
    """
    codes: list[CodeType | None] = []
    waiting = outermost
    for _ in range(_MAX_WALK):
        parts = _PARTS.get(type(waiting))
        if parts is None:
            if type(waiting).__name__ not in _WRAPPERS:
                break
            waiting = next((inner for inner in gc.get_referents(waiting) if _is_link(inner)), None)
            continue
        its_frame, waiting = parts(waiting)
        if its_frame is not None and (codes or its_frame is frame):
            codes.insert(0, its_frame.f_code)
    return _outermost_first(codes, max_depth) if codes else (frame.f_code,)


def _is_link(inner: object) -> bool:
    return type(inner) in _PARTS or type(inner).__name__ in _WRAPPERS


def _outermost_first(codes: list[CodeType | None], max_depth: int) -> Stack:
    """Keep the frame of the operation and the innermost ones where a stack is too deep."""
    if len(codes) > max_depth:
        return (codes[-1], None, *reversed(codes[: max_depth - 2]))
    return tuple(reversed(codes))
