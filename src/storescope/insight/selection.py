"""Which traces and which statistics are shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from storescope.insight import words
from storescope.insight.index import Index, TraceEntry
from storescope.insight.model import InsightError
from storescope.insight.runs import Run, find_runs
from storescope.insight.tables import Statistics, statistics


@dataclass(frozen=True, slots=True)
class Query:
    """What was asked for. With none of the first three, it is the newest run of a program."""

    last: int | None = None
    slow: bool = False
    errors: bool = False
    service: str | None = None

    @property
    def newest_run(self) -> bool:
        """Tell whether nothing was asked for but what ran last."""
        return self.last is None and not self.slow and not self.errors


@dataclass(frozen=True, slots=True)
class Selection:
    """An answer. Its table covers all operations of the runs that were looked at, not of the chosen traces only."""

    query: Query
    #: The ids of the chosen traces, each with the run that began it: slowest first if asked for, else newest first.
    traces: Mapping[str, Run]
    runs: tuple[Run, ...]
    #: How many runs were recorded beside these.
    other_runs: int
    statistics: tuple[Statistics, ...]


def select(index: Index, query: Query) -> Selection:
    """Choose traces. Raises InsightError where none fits."""
    found = {key: trace for key, trace in index.traces.items() if trace.matched}
    if not found:
        raise InsightError(
            f"no operation belongs to {query.service!r}.\nThere are: {', '.join(sorted(index.services))}"
        )
    all_runs = find_runs(index.processes)
    run_of = {process: run for run in all_runs for process in run.processes}
    runs = all_runs
    if query.newest_run:
        runs = [max((run_of[trace.process] for trace in found.values()), key=lambda run: run.end)]
        found = {key: trace for key, trace in found.items() if run_of[trace.process] is runs[0]}
    if query.errors:
        looked_at = len(found)
        found = {key: trace for key, trace in found.items() if trace.errors}
        if not found:
            raise InsightError(f"no errors in {words.plural(looked_at, 'trace')}.")
    return Selection(
        query=query,
        traces={key: run_of[trace.process] for key, trace in _ordered(found.items(), query)},
        runs=tuple(runs),
        other_runs=len(all_runs) - len(runs),
        statistics=tuple(statistics(index.processes[p].tallies for run in runs for p in run.processes)),
    )


def _ordered(traces: Iterable[tuple[str, TraceEntry]], query: Query) -> list[tuple[str, TraceEntry]]:
    newest_first = sorted(traces, key=lambda item: (item[1].start, item[0]), reverse=True)[: query.last]
    if query.slow:
        newest_first.sort(key=lambda item: item[1].duration, reverse=True)
    return newest_first
