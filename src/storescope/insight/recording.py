"""What programs recorded: indexed once, then read again only where chosen traces stand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from storescope.insight import export
from storescope.insight.index import Index
from storescope.insight.model import InsightError
from storescope.insight.selection import Query, Selection, select
from storescope.insight.source import Place, Source
from storescope.insight.traces import Trace, build_traces


class Recording:
    """The answer to a query, and the way back to the spans of the traces that it chose."""

    def __init__(self, source: Source, query: Query) -> None:
        """Read all of `source`. Raises InsightError where nothing can be shown."""
        self.source = source
        self._index = Index(source.spans(), query.service)
        self.selection: Selection = select(self._index, query)

    def first_traces(self, lines: int) -> list[str]:
        """Return the ids of the first chosen traces, at least one, that take up to this many lines on a screen."""
        chosen: list[str] = []
        for trace_id in self.selection.traces:
            entry = self._index.traces[trace_id]
            lines -= entry.spans + entry.errors
            if chosen and lines < 0:
                break
            chosen.append(trace_id)
        return chosen

    def load(self, trace_ids: Sequence[str]) -> list[Trace]:
        """Read the trees of some traces, in this order. Raises InsightError if their files are gone."""
        wanted = set(trace_ids)
        spans = self.source.spans_at(self._places(trace_ids))
        traces = build_traces(span for span in spans if span.trace_id in wanted)
        if not traces:
            raise InsightError("the files were removed while they were read. Try again.")
        return [traces[trace_id] for trace_id in trace_ids if trace_id in traces]

    def files(self) -> list[Path]:
        """Return the files that were looked at: those of the newest run, or all."""
        if not self.selection.query.newest_run:
            return list(self.source.files)
        return [
            self.source.files[number]
            for number in sorted({p.file for p in self._places(self.selection.traces)})
        ]

    def export(self) -> dict[str, Any]:
        """Return all chosen traces as one OTLP/JSON object."""
        places = self._places(self.selection.traces)
        return export.merge(
            (document for _, document in self.source.documents_at(places)), self.selection.traces
        )

    def _places(self, trace_ids: Iterable[str]) -> set[Place]:
        return {place for trace_id in trace_ids for place in self._index.traces[trace_id].places}
