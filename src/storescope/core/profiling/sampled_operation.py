"""One operation that is sampled: its stacks, and the time in each."""

from __future__ import annotations

import inspect
import sys
import threading
import weakref
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol

from storescope.core.profiling import interpreter
from storescope.core.profiling.profile import Frame, Profile, Sample, State, frame_of, functions_of
from storescope.core.profiling.stacks import Stack

if TYPE_CHECKING:
    from typing_extensions import Self

_AWAITING: Final = inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
_RESUMABLE: Final = _AWAITING | inspect.CO_GENERATOR | inspect.CO_ITERABLE_COROUTINE
#: A thread that used less than this part of the time since the last look was waiting.
_IDLE: Final = 0.01
_ELLIPSIS: Final = Frame("…")


class Registry(Protocol):
    """What samples operations."""

    clock: Callable[[], float]
    period: float
    max_stacks: int

    def add(self, frame: FrameType, operation: Operation) -> None:
        """Begin to look at an operation."""

    def remove(self, frame: FrameType, operation: Operation) -> None:
        """Look at it no more."""


class Operation:
    """Something that is sampled while its `with` block runs: the block, and all that it calls or awaits.

    It is known by the frame of the block, which stays the same while a coroutine or generator waits. What it hands
    over to other threads or tasks is no part of it. It can be entered once. Neither entering nor leaving waits.
    """

    __slots__ = (
        "_began",
        "_cpu",
        "_cpu_clock",
        "_frame",
        "_looks",
        "_registry",
        "_seconds",
        "_seen",
        "_task",
        "_unseen",
        "name",
        "thread",
    )

    def __init__(self, registry: Registry, name: str, frame: FrameType | None) -> None:
        self.name = name
        #: The number of the thread that entered it.
        self.thread = 0
        self._registry = registry
        self._frame = frame
        self._task: weakref.ref[Any] | None = None
        self._began: float | None = None
        #: How long it took; None until it has ended.
        self._seconds: float | None = None
        #: Seconds in each state and stack, and how many looks met it.
        self._looks: dict[tuple[State, Stack], tuple[float, int]] = {}
        #: Up to when its time is accounted for, and where time goes in which nobody looked.
        self._seen = 0.0
        self._unseen: tuple[State, Stack] | None = None
        self._cpu_clock: int | None = None
        self._cpu = 0.0

    def __enter__(self) -> Self:
        if self._began is not None:
            raise RuntimeError(f"operation {self.name!r} was entered before")
        frame = self._frame = self._frame or sys._getframe(1)
        self.thread = threading.get_ident()
        flags = frame.f_code.co_flags
        if flags & _RESUMABLE:
            self._unseen = State.SUSPENDED, (frame.f_code,)
        if flags & _AWAITING:
            self._task = _current_task()
        self._cpu_clock = interpreter.cpu_clock()
        if self._cpu_clock is not None:
            self._cpu = interpreter.read_cpu_clock(self._cpu_clock) or 0.0
        self._began = self._seen = self._registry.clock()
        self._registry.add(frame, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._frame is not None and self._began is not None:
            self._registry.remove(self._frame, self)
            self._seconds = self._registry.clock() - self._began
            self._frame = self._task = None

    @property
    def outermost_coroutine(self) -> Any:
        """The coroutine of the task that entered it, in or below which its frame is."""
        task = self._task and self._task()
        return task and task.get_coro()

    @property
    def is_resumable(self) -> bool:
        """Whether it may be in no thread at times."""
        return self._frame is not None and bool(self._frame.f_code.co_flags & _RESUMABLE)

    def saw_running(self, now: float, last_tick: float, thread: int, stack: Stack) -> None:
        """Account for the time since the last tick, in which it was in a thread."""
        state = State.RUNNING
        if thread == self.thread and self._cpu_clock is not None:
            cpu = interpreter.read_cpu_clock(self._cpu_clock)
            if cpu is not None:
                if cpu - self._cpu < _IDLE * (now - self._seen):
                    state = State.BLOCKED
                self._cpu = cpu
        self._saw(now, last_tick, state, stack)

    def saw_suspended(self, now: float, last_tick: float, stack: Stack) -> None:
        """Account for the time since the last tick, in which it waited in no thread."""
        self._saw(now, last_tick, State.SUSPENDED, stack)
        self._unseen = State.SUSPENDED, stack

    def _saw(self, now: float, last_tick: float, state: State, stack: Stack) -> None:
        if self._seconds is not None:
            return
        unseen = last_tick - self._seen
        if (
            unseen >= self._registry.period / 2
        ):  # it was not looked at in the last tick, so it was in no thread
            if self._unseen is not None:
                self._account(*self._unseen, unseen, 0)
            self._seen = last_tick
        self._account(state, stack, now - self._seen, 1)
        self._seen = now

    def _account(self, state: State, stack: Stack, seconds: float, looks: int) -> None:
        key = state, stack
        if key not in self._looks and len(self._looks) >= self._registry.max_stacks:
            key = state, (stack[0], None)
        so_far, count = self._looks.get(key, (0.0, 0))
        self._looks[key] = so_far + seconds, count + looks

    def profile(self) -> Profile:
        """Return what was seen of it until now, or until its end. The time since the last look is in no sample."""
        looks = dict(self._looks)
        seconds = self._elapsed()
        unseen = (self._began or 0.0) + seconds - self._seen
        if self._unseen is not None and unseen > 2 * self._registry.period:
            so_far, count = looks.get(self._unseen, (0.0, 0))
            looks[self._unseen] = so_far + unseen, count
        described: dict[CodeType | None, Frame] = {None: _ELLIPSIS}
        samples = []
        for (state, stack), (time, count) in looks.items():
            for code in stack:
                if code is not None and code not in described:
                    described[code] = frame_of(code)
            samples.append(Sample(tuple(described[code] for code in stack), time, count, state))
        return Profile(
            self.name,
            "sampler",
            tuple(samples),
            functions_of(samples),
            seconds,
            period=self._registry.period,
        )

    def _elapsed(self) -> float:
        if self._seconds is not None:
            return self._seconds
        return 0.0 if self._began is None else self._registry.clock() - self._began

    def __repr__(self) -> str:
        ended = "ended after" if self._seconds is not None else "under way for"
        return f"<Operation {self.name!r}: {ended} {self._elapsed():.3f} s, {len(self._looks)} stacks>"


def _current_task() -> weakref.ref[Any] | None:
    asyncio = sys.modules.get("asyncio")  # not imported for those who have no use for it
    if asyncio is None:
        return None
    try:
        task = asyncio.current_task()
    except RuntimeError:
        return None  # a coroutine of something else
    return None if task is None else weakref.ref(task)
