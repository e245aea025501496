"""Items of OTLP put together again, under the resource and scope that they had, each of which stands once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from storescope.insight.otlp import Layout


class Gathering:
    """One OTLP/JSON object that grows; what is added stays untouched."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._resources: dict[str, dict[str, Any]] = {}
        self._scopes: dict[tuple[str, str], list[Any]] = {}
        #: What was added to last: items come many at a time from one place.
        self._latest: tuple[dict[str, Any], dict[str, Any], list[Any]] | None = None

    def add(self, of_resource: dict[str, Any], of_scope: dict[str, Any], items: Iterable[Any]) -> None:
        """Add items that stood in `of_scope`, which stood in `of_resource`."""
        latest = self._latest
        if latest is None or latest[0] is not of_resource or latest[1] is not of_scope:
            latest = self._latest = of_resource, of_scope, self._list_for(of_resource, of_scope)
        latest[2].extend(items)

    def _list_for(self, of_resource: dict[str, Any], of_scope: dict[str, Any]) -> list[Any]:
        scopes, content = self._layout.scopes, self._layout.items
        resource = {key: value for key, value in of_resource.items() if key != scopes}
        scope = {key: value for key, value in of_scope.items() if key != content}
        identity = json.dumps(resource), json.dumps(scope)
        if identity not in self._scopes:
            self._scopes[identity] = []
            whole = self._resources.setdefault(identity[0], resource | {scopes: []})
            whole[scopes].append(scope | {content: self._scopes[identity]})
        return self._scopes[identity]

    def document(self) -> dict[str, Any]:
        """Return the object."""
        return {self._layout.resources: list(self._resources.values())}
