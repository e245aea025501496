"""Chosen traces as one OTLP/JSON object: of two objects in a file, Jaeger's upload keeps one."""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

from storescope.insight.gathering import Gathering
from storescope.insight.otlp import MALFORMED, TRACES, groups, identity


def merge(documents: Iterable[dict[str, Any]], trace_ids: Container[str]) -> dict[str, Any]:
    """Gather the spans of some traces, each once, untouched, under the resource and scope that they had."""
    gathered = Gathering(TRACES)
    seen: set[tuple[str, str]] = set()
    for document in documents:
        for resource_spans, scope_spans, spans in groups(document, lambda text: None):
            if chosen := [span for span in spans if _is_new(span, trace_ids, seen)]:
                gathered.add(resource_spans, scope_spans, chosen)
    return gathered.document()


def _is_new(span: Any, trace_ids: Container[str], seen: set[tuple[str, str]]) -> bool:
    try:
        ids = identity(span)
    except MALFORMED:
        return False
    if ids[0] not in trace_ids or ids in seen:
        return False
    seen.add(ids)
    return True
