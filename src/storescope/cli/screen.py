"""What `storescope view` prints: a timeline per run, a table, and where all that was read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

from rich.text import Text

from storescope.cli.layout import Column, Layout
from storescope.cli.timeline import Glyphs, Timeline
from storescope.insight import words
from storescope.insight.runs import Run
from storescope.insight.selection import Selection
from storescope.insight.tables import Statistics
from storescope.insight.traces import Trace

_COLUMNS: Final = (
    Column("operation", minimum=12),
    Column("service", minimum=8),
    *(
        Column(title, right=True)
        for title in ("calls", "errors", "total", "p50", "p95", "max", "sent", "received")
    ),
)
#: How a row of answers from a cache begins.
_CACHED: Final = {"hit": "cached"}


@dataclass(frozen=True, slots=True)
class View:
    """What is shown: the first traces of a selection, as many as there is room for, and the files looked at."""

    selection: Selection
    traces: Sequence[Trace]
    files: Sequence[Path]


def render(view: View, glyphs: Glyphs, width: int | None) -> Iterator[Text]:
    """Yield the lines of a view, as wide as `width` allows or as they need where it is None."""
    timelines = _slowest if view.selection.query.slow else _runs
    yield from timelines(view, glyphs, width)
    yield from _left_off(view)
    yield from _table(view.selection, width)
    yield Text()
    yield from _where(view)


def _slowest(view: View, glyphs: Glyphs, width: int | None) -> Iterator[Text]:
    programs = {trace.root.process.program for trace in view.traces}
    program = programs.pop() if len(programs) == 1 else ""
    title = f"Slowest first, {words.plain(program)}" if program else "Slowest first"
    yield Text.assemble((title, "bold"), ("  each drawn from its own start", "dim"))
    yield from Timeline(view.traces, glyphs, program=program, from_zero=True).render(width)


def _runs(view: View, glyphs: Glyphs, width: int | None) -> Iterator[Text]:
    """Show traces in the order of time, those of one run together under its program's name."""
    run_of = view.selection.traces
    in_order = sorted(view.traces, key=lambda trace: (*_age(run_of[trace.trace_id]), trace.start))
    for number, (run, traces) in enumerate(groupby(in_order, key=lambda trace: run_of[trace.trace_id])):
        if number:
            yield Text()
        yield _heading(run, view.selection)
        yield from Timeline(list(traces), glyphs, program=run.program).render(width)


def _age(run: Run) -> tuple[int, int, str]:
    return run.end, run.start, run.program


def _heading(run: Run, selection: Selection) -> Text:
    parts = [words.moment(run.start), f"ran {words.duration(run.end - run.start)}"]
    if len(run.processes) > 1:
        parts.append(f"{len(run.processes):,} processes")
    rows = [row for row in selection.statistics if row.subject.kind != "phase"]
    if rows and selection.query.newest_run:
        parts.append(words.plural(sum(row.calls for row in rows), "operation"))
        parts.append(f"{sum(row.errors for row in rows):,} failed")
    return Text.assemble((words.plain(run.program), "bold"), (f"  {', '.join(parts)}", "dim"))


def _left_off(view: View) -> Iterator[Text]:
    shown, chosen = len(view.traces), len(view.selection.traces)
    if shown < chosen:
        which = "slowest" if view.selection.query.slow else "newest"
        yield Text(f"The {shown:,} {which} of {chosen:,} traces; --last N shows more.", "dim")


def _table(selection: Selection, width: int | None) -> Iterator[Text]:
    """Show the statistics of all kinds in the same columns."""
    rows = selection.statistics
    query = selection.query
    whose = f" of {words.plain(query.service)}" if query.service else ""
    runs = "this run" if query.newest_run else words.plural(len(selection.runs), "run")
    if rows:
        yield Text()
        scope = f"  all operations{whose} in {runs}, most time first"
        yield Text.assemble(("Where the time went", "bold"), (scope, "dim"))
    layout = Layout.fit(_COLUMNS, [_cells(row) for row in rows], width)
    for number, (kind, members) in enumerate(groupby(rows, key=lambda row: row.subject.kind)):
        if number:
            yield Text()
        yield layout.titles(kind)
        for row in members:
            yield layout.line(_cells(row))


def _cells(row: Statistics) -> list[Text]:
    cache_result = row.subject.cache_result
    cached = f"{_CACHED.get(cache_result, cache_result)} " if cache_result else ""
    return [
        Text(words.plain(cached + row.subject.name, 80), "green" if cached else ""),
        Text(words.plain(row.subject.service, 60) or "-"),
        Text(f"{row.calls:,}"),
        Text(f"{row.errors:,}", "red" if row.errors else "dim"),
        *(Text(words.duration(value)) for value in (row.total, row.p50, row.p95, row.max)),
        *(Text(words.size(value)) for value in (row.sent, row.received)),
    ]


def _from_here(path: Path) -> str:
    """Write a path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _where(view: View) -> Iterator[Text]:
    files = view.files
    place = (
        _from_here(files[0]) if len(files) == 1 else f"{len(files)} files in {_from_here(files[0].parent)}"
    )
    yield Text(f"Recorded in {words.plain(place)}", "dim")
    if view.selection.other_runs:
        others = words.plural(view.selection.other_runs, "other run")
        yield Text(f"{others} recorded beside: --last N, --slow and --errors look at all of them.", "dim")
