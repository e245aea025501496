"""Recorded telemetry as requests of bounded size, each span once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from storescope.insight import otlp
from storescope.insight.gathering import Gathering
from storescope.insight.otlp import METRICS, TRACES, Layout
from storescope.insight.source import METRIC_FILES, TRACE_FILES, Place, Source

#: Spans or metrics, and bytes of JSON, that a request holds; a single one that is larger is a request of its own.
MAX_ITEMS: Final = 1000
MAX_BYTES: Final = 1024 * 1024

#: What a folder is searched for.
PATTERNS: Final = (TRACE_FILES, METRIC_FILES)
LAYOUTS: Final = (TRACES, METRICS)


@dataclass(frozen=True, slots=True)
class Request:
    """One OTLP/JSON object to be sent, and how many spans or metric points it holds."""

    layout: Layout
    body: bytes
    count: int


def requests(source: Source, max_items: int = MAX_ITEMS, max_bytes: int = MAX_BYTES) -> Iterator[Request]:
    """Yield all of `source`. What cannot be sent becomes a note. Raises InsightError in the end if there was nothing.

    Reads as it goes: what is in memory is a request of each signal, and the ids of the spans.
    """
    found = False
    pending = {layout: _Pending(layout, max_items, max_bytes) for layout in LAYOUTS}
    seen: set[tuple[str, str]] = set()
    for place, document in source.documents():
        layouts = [
            layout for layout in LAYOUTS if isinstance(document, dict) and layout.resources in document
        ]
        if not layouts:
            source.note(place, otlp.what_else(document))
        for layout in layouts:
            for of_resource, of_scope, item in _items(source, place, document, layout, seen):
                found = True
                yield from pending[layout].add(of_resource, of_scope, item)
    for rest in pending.values():
        yield from rest.take()
    if not found:
        raise source.nothing_found("spans or metrics")


def _items(
    source: Source, place: Place, document: dict[str, Any], layout: Layout, seen: set[tuple[str, str]]
) -> Iterator[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]]:
    """Yield what a document holds of a signal; a span that came before is left out."""

    def refuse(text: str) -> None:
        source.note(place, text)

    for of_resource, of_scope, items in otlp.groups(document, refuse, layout):
        for item in items:
            if layout is TRACES:
                try:
                    ids = otlp.identity(item)
                except otlp.MALFORMED as error:
                    refuse(f"a malformed span ({otlp.reason(error)})")
                    continue
                if ids in seen:
                    continue
                seen.add(ids)
            elif not isinstance(item, dict):
                refuse("a malformed metric (it is not an object)")
                continue
            yield of_resource, of_scope, item


class _Pending:
    """The request of a signal that is being filled."""

    def __init__(self, layout: Layout, max_items: int, max_bytes: int) -> None:
        self._layout = layout
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._begin()

    def _begin(self) -> None:
        self._gathered = Gathering(self._layout)
        self._items = self._count = self._bytes = 0

    def add(
        self, of_resource: dict[str, Any], of_scope: dict[str, Any], item: dict[str, Any]
    ) -> Iterator[Request]:
        """Add an item. Yields the request that was full before it."""
        size = len(json.dumps(item))
        if self._items and (self._items == self._max_items or self._bytes + size > self._max_bytes):
            yield from self.take()
        self._gathered.add(of_resource, of_scope, [item])
        self._items += 1
        self._bytes += size
        self._count += 1 if self._layout is TRACES else _points(item)

    def take(self) -> Iterator[Request]:
        """Yield what there is, if there is something, and begin anew."""
        if self._items:
            body = json.dumps(self._gathered.document(), separators=(",", ":")).encode()
            yield Request(self._layout, body, self._count)
            self._begin()


def _points(metric: dict[str, Any]) -> int:
    return sum(
        len(points)
        for data in metric.values()
        if isinstance(data, dict) and isinstance(points := data.get("dataPoints"), list)
    )
