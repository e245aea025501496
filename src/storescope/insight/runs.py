"""Runs of a program: the processes of one name that were at work at the same time, such as its workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storescope.insight.index import ProcessEntry
from storescope.insight.model import Process


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a program. Times are nanoseconds since 1970."""

    program: str
    processes: frozenset[Process]
    start: int
    end: int


def find_runs(processes: Mapping[Process, ProcessEntry]) -> list[Run]:
    """Group processes whose times overlap, and return the runs in the order of their ends."""
    finished: list[Run] = []
    latest: dict[str, Run] = {}
    for process, entry in sorted(processes.items(), key=lambda item: item[1].start):
        run = latest.get(process.program)
        if run is not None and entry.start <= run.end:
            run = Run(run.program, run.processes | {process}, run.start, max(run.end, entry.end))
        else:
            if run is not None:
                finished.append(run)
            run = Run(process.program, frozenset({process}), entry.start, entry.end)
        latest[process.program] = run
    return sorted([*finished, *latest.values()], key=lambda run: run.end)
