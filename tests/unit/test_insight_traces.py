"""Trees: whatever a file holds of a trace, each of its spans is shown once."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from unit.recordings import batch, span

from storescope.insight.otlp import decode
from storescope.insight.traces import Trace, build_traces


def traces(*spans: dict[str, object]) -> list[Trace]:
    refused: list[str] = []
    built = build_traces(decode(batch(*spans), "file", refused.append))
    assert refused == []
    return list(built.values())


def outline(trace: Trace) -> list[tuple[int, str]]:
    return [(branch.depth, branch.span.name) for branch in trace.branches]


def test_children_follow_their_parent_in_the_order_of_their_starts() -> None:
    """A trace reads from top to bottom as time went, whatever the order of export."""
    (trace,) = traces(
        span("grandchild", number=4, parent=3, at=0.4),
        span("second", number=3, parent=1, at=0.3),
        span("first", number=2, parent=1, at=0.1),
        span("root", number=1, took=1.0),
    )
    assert outline(trace) == [(0, "root"), (1, "first"), (1, "second"), (2, "grandchild")]
    assert [branch.last for branch in trace.branches] == [True, False, True, True]


def test_traces_are_kept_apart() -> None:
    """Spans of two traces never mix, though their numbers are the same."""
    one, two = traces(span("a", trace=1), span("b", trace=2))
    assert (outline(one), outline(two)) == ([(0, "a")], [(0, "b")])


def test_a_span_without_its_parent_is_a_root() -> None:
    """A parent that another program recorded elsewhere, or that is still open, is not missed."""
    (trace,) = traces(span("orphan", number=2, parent=9, at=0.2), span("other", number=3, parent=8))
    assert outline(trace) == [(0, "other"), (0, "orphan")]


def test_a_repeated_span_is_shown_once() -> None:
    """A batch whose fate was unknown is in the file twice."""
    (trace,) = traces(
        span("root"), span("child", number=2, parent=1), span("root"), span("child", number=2, parent=1)
    )
    assert outline(trace) == [(0, "root"), (1, "child")]


def test_a_cycle_is_cut_at_its_first_span() -> None:
    """Spans that are each other's parents are all shown."""
    (trace,) = traces(
        span("b", number=2, parent=1, at=0.1),
        span("a", number=1, parent=2),
        span("self", number=3, parent=3, at=0.2),
    )
    assert outline(trace) == [(0, "self"), (0, "a"), (1, "b")]


def test_a_child_on_a_clock_of_its_own_stays_with_its_parent() -> None:
    """A child that seems to begin before its parent widens the trace's time, nothing else."""
    (trace,) = traces(span("root", at=10.0, took=1.0), span("early", number=2, parent=1, at=4.0, took=0.5))
    assert outline(trace) == [(0, "root"), (1, "early")]
    assert trace.end - trace.start == 7_000_000_000


def test_a_span_that_ends_before_it_starts_has_no_duration() -> None:
    """A clock that was set back does not make a duration negative."""
    (trace,) = traces(span(took=-5.0))
    assert (trace.root.duration, trace.end - trace.start) == (0, 0)


def test_a_chain_may_be_deep() -> None:
    """Thousands of levels are laid out without recursion."""
    (trace,) = traces(*(span(str(n), number=n, parent=n - 1) for n in range(1, 5001)))
    assert trace.branches[-1].depth == 4999


@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 14), st.floats(0, 10)), min_size=1, max_size=40))
def test_every_span_stands_in_its_tree_once(links: list[tuple[int, int, float]]) -> None:
    """Missing parents, cycles and repetitions in any mixture lose and double nothing."""
    (trace,) = traces(*(span(number=number, parent=parent, at=at) for number, parent, at in links))
    shown = [int(branch.span.span_id, 16) for branch in trace.branches]
    assert sorted(shown) == sorted({number for number, _, _ in links})
    depths = [branch.depth for branch in trace.branches]
    assert depths[0] == 0
    assert all(below <= above + 1 for above, below in pairwise(depths))
