"""Chosen traces as one OTLP/JSON object: of two objects in a file, Jaeger's upload keeps one."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable
from typing import Any

from storescope.insight.otlp import MALFORMED, groups


def merge(documents: Iterable[dict[str, Any]], trace_ids: Container[str]) -> dict[str, Any]:
    """Gather the spans of some traces, each once, untouched, under the resource and scope that they had."""
    resources: dict[str, dict[str, Any]] = {}
    scopes: dict[tuple[str, str], dict[str, Any]] = {}
    seen: set[tuple[str, str]] = set()
    for document in documents:
        for resource_spans, scope_spans, spans in groups(document, lambda text: None):
            chosen = [span for span in spans if _is_new(span, trace_ids, seen)]
            if not chosen:
                continue
            resource = {key: value for key, value in resource_spans.items() if key != "scopeSpans"}
            scope = {key: value for key, value in scope_spans.items() if key != "spans"}
            identity = json.dumps(resource), json.dumps(scope)
            if identity not in scopes:
                scopes[identity] = scope | {"spans": []}
                whole = resources.setdefault(identity[0], resource | {"scopeSpans": []})
                whole["scopeSpans"].append(scopes[identity])
            scopes[identity]["spans"].extend(chosen)
    return {"resourceSpans": list(resources.values())}


def _is_new(span: Any, trace_ids: Container[str], seen: set[tuple[str, str]]) -> bool:
    try:
        identity = span["traceId"].lower(), span["spanId"].lower()
    except MALFORMED:
        return False
    if identity[0] not in trace_ids or identity in seen:
        return False
    seen.add(identity)
    return True
