"""Trees of spans: whatever is missing, doubled or out of step, every span stands in one exactly once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from storescope.insight.model import Span


@dataclass(frozen=True, slots=True)
class Branch:
    """One span's place in its tree."""

    span: Span
    depth: int
    #: Whether no sibling follows.
    last: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans of one trace, each followed by its children in the order of their starts."""

    trace_id: str
    branches: tuple[Branch, ...]

    @property
    def root(self) -> Span:
        """Return its first span."""
        return self.branches[0].span

    @property
    def start(self) -> int:
        """Return its first start, in nanoseconds since 1970; on another clock a child may begin before its parent."""
        return min(branch.span.start for branch in self.branches)

    @property
    def end(self) -> int:
        """Return its last end, in nanoseconds since 1970."""
        return max(branch.span.start + branch.span.duration for branch in self.branches)

    @property
    def errors(self) -> int:
        """Return how many of its spans failed."""
        return sum(branch.span.failed for branch in self.branches)


def build_traces(spans: Iterable[Span]) -> dict[str, Trace]:
    """Group spans by trace, drop repeated ones, and order each trace as a tree."""
    grouped: dict[str, dict[str, Span]] = defaultdict(dict)
    for span in spans:
        grouped[span.trace_id].setdefault(span.span_id, span)
    return {trace_id: Trace(trace_id, _tree(members)) for trace_id, members in grouped.items()}


def _tree(members: dict[str, Span]) -> tuple[Branch, ...]:
    """Lay a trace out. A span whose parent is not among `members` is a root; so is the first span of a cycle."""
    in_order = sorted(members.values(), key=lambda span: (span.start, -span.end))
    children: dict[str, list[Span]] = defaultdict(list)
    roots = []
    for span in in_order:
        if span.parent_id in members and span.parent_id != span.span_id:
            children[span.parent_id].append(span)
        else:
            roots.append(span)
    branches: list[Branch] = []
    placed: set[str] = set()
    for first in [*roots, *in_order]:
        pending = [] if first.span_id in placed else [Branch(first, 0, last=True)]
        while pending:
            branch = pending.pop()
            branches.append(branch)
            placed.add(branch.span.span_id)
            below = [child for child in children[branch.span.span_id] if child.span_id not in placed]
            pending.extend(
                Branch(child, branch.depth + 1, last=child is below[-1]) for child in reversed(below)
            )
    return tuple(branches)
