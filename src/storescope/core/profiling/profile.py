"""What a profiler has found, whichever it was: stacks with their weights, and functions with their times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from operator import attrgetter
from pathlib import PurePath
from types import CodeType
from typing import Literal

from storescope.core import checks


class Exclusivity(str, Enum):
    """Whether a profile is of the profiled calls alone."""

    EXCLUSIVE = "exclusive"
    #: Calls that other threads made at the same time may be in it.
    CONTAMINATED = "contaminated"


class State(str, Enum):
    """What an operation did when a sample was taken."""

    RUNNING = "running"
    #: It was in a thread that used no CPU time: it waited for I/O, a lock, or the interpreter.
    BLOCKED = "blocked"
    #: It was in no thread: a coroutine or generator that waits to be resumed.
    SUSPENDED = "suspended"


@dataclass(frozen=True, slots=True)
class Frame:
    """A function: its qualified name (before 3.11 the bare one), its file, and the line where it begins."""

    function: str
    #: Empty for what is written in C.
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.function} ({PurePath(self.file).name}:{self.line})" if self.file else self.function


@dataclass(frozen=True, slots=True)
class Sample:
    """Equal stacks, folded into one: outermost function first."""

    stack: tuple[Frame, ...]
    seconds: float
    #: How many looks (sampler) or calls (cProfile) are in it.
    count: int
    state: State = State.RUNNING


@dataclass(frozen=True, slots=True)
class FunctionTime:
    """Seconds in one function: `self_time` without, `cumulative` with what it called."""

    frame: Frame
    #: Calls, as cProfile counts them (each resumption of a coroutine is one); of a sampler, the looks that met it.
    count: int
    self_time: float
    cumulative: float


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of some operation went. `top()` and `text()` read it; `storescope.export` writes it to files."""

    name: str
    #: `cprofile` times every call and knows who called whom, two functions deep. `sampler` has whole stacks.
    source: Literal["cprofile", "sampler"]
    samples: tuple[Sample, ...]
    functions: tuple[FunctionTime, ...]
    #: Seconds that were profiled, by the clock on the wall.
    duration: float
    exclusivity: Exclusivity = Exclusivity.EXCLUSIVE
    #: Mean seconds between two looks; 0 where every call was timed.
    period: float = 0.0

    @property
    def seconds(self) -> float:
        """Seconds of all samples together."""
        return sum(sample.seconds for sample in self.samples)

    def top(self, n: int = 20, by: Literal["self", "cumulative"] = "cumulative") -> tuple[FunctionTime, ...]:
        """Return the `n` functions with the most time, most first."""
        checks.whole("n", n)
        checks.one_of("by", by, ("self", "cumulative"))
        time = "self_time" if by == "self" else "cumulative"
        return tuple(sorted(self.functions, key=attrgetter(time), reverse=True)[:n])

    def only(self, *states: State) -> Profile:
        """Return what was found in these states; of a sampler's profile, since cProfile knows only one."""
        for state in states:
            checks.one_of("state", state, tuple(known.value for known in State))
        samples = tuple(sample for sample in self.samples if sample.state in states)
        return replace(self, samples=samples, functions=functions_of(samples))

    def text(self, n: int = 20, by: Literal["self", "cumulative"] = "cumulative") -> str:
        """Return a table of the top functions, milliseconds and shares of all the time that was found."""
        seconds = self.seconds
        lines = [f"{self.name}: {seconds:.3f} s in {len(self.functions)} functions, {self.exclusivity.value}"]
        for state in State:
            found = sum(sample.seconds for sample in self.samples if sample.state is state)
            if found and state is not State.RUNNING:
                lines.append(f"  of these {found:.3f} s {state.value}")
        lines.append(f"{'count':>9} {'self ms':>11} {'%':>5} {'total ms':>11} {'%':>5}  function")
        for f in self.top(n, by):
            own, total = (100 * t / seconds if seconds else 0.0 for t in (f.self_time, f.cumulative))
            times = f"{f.self_time * 1e3:>11.3f} {own:>5.1f} {f.cumulative * 1e3:>11.3f} {total:>5.1f}"
            lines.append(f"{f.count:>9} {times}  {f.frame}")
        return "\n".join(lines) + "\n"


def check_profile(value: object) -> Profile:
    """Return what is a profile."""
    if not isinstance(value, Profile):
        raise TypeError(f"profile must be a Profile, not {value!r}")
    return value


def functions_of(samples: Iterable[Sample]) -> tuple[FunctionTime, ...]:
    """Sum what stacks tell of each function; one that is in a stack twice is counted there once."""
    found: dict[Frame, tuple[int, float, float]] = {}
    for sample in samples:
        leaf = sample.stack[-1]
        for frame in dict.fromkeys(sample.stack):
            count, own, cumulative = found.get(frame, (0, 0.0, 0.0))
            found[frame] = (
                count + sample.count,
                own + (sample.seconds if frame == leaf else 0.0),
                cumulative + sample.seconds,
            )
    return tuple(FunctionTime(frame, *times) for frame, times in found.items())


def frame_of(code: CodeType) -> Frame:
    """Describe the function that a code object is of."""
    return Frame(getattr(code, "co_qualname", code.co_name), code.co_filename, code.co_firstlineno)
