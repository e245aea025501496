"""A waterfall: one line per span, as a tree, with what it was about, how long it took, and a bar where it ran."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from storescope import semconv
from storescope.cli.layout import GAP, Column, Layout, fold
from storescope.insight import words
from storescope.insight.model import Span
from storescope.insight.traces import Branch, Trace

#: Lines of one trace at most; --json has all of it.
MAX_LINES: Final = 200
MAX_DEPTH: Final = 12
#: A narrower terminal gets no bars.
MIN_WIDTH_FOR_BARS: Final = 60
#: How wide the bars are, in characters: at least, at most, and where there is no terminal to fit into.
BAR_MIN: Final = 16
BAR_MAX: Final = 60
BAR_IN_PIPES: Final = 40

_COLUMNS: Final = (Column("operation", minimum=20), Column("service", minimum=8), Column("took", right=True))
_REMARK_INDENT: Final = 4


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The characters that lines are drawn with."""

    passed: str
    warned: str
    failed: str
    bar: str
    left_half: str
    right_half: str
    fork: str
    end: str
    stem: str
    dot: str


UNICODE: Final = Glyphs("✓", "!", "✗", "━", "╸", "╺", "├─ ", "└─ ", "│  ", " · ")
ASCII: Final = Glyphs("+", "!", "x", "=", "=", "=", "|- ", "`- ", "|  ", ", ")


@dataclass(frozen=True, slots=True)
class Line:
    """One span on the screen. `zero` is where its time axis starts, in nanoseconds since 1970."""

    span: Span
    zero: int
    cells: tuple[Text, Text, Text]
    style: str
    #: What is said below it.
    remarks: tuple[Text, ...]


class Timeline:
    """Traces on one time axis, or each from its own start, so that lengths compare."""

    def __init__(
        self, traces: Sequence[Trace], glyphs: Glyphs, *, program: str = "", from_zero: bool = False
    ) -> None:
        """`program` stands in the heading: only spans of another one name theirs."""
        self._program = program
        self._glyphs = glyphs
        self._from_zero = from_zero
        start = min(trace.start for trace in traces)
        if from_zero:
            self._scale = max(trace.end - trace.start for trace in traces)
        else:
            self._scale = max(trace.end for trace in traces) - start
        self._lines = [
            line for trace in traces for line in self._lines_of(trace, trace.start if from_zero else start)
        ]

    def render(self, width: int | None) -> Iterator[Text]:
        """Yield lines that fit into `width`, or that take what they need if it is None."""
        rows = [line.cells for line in self._lines]
        bar_width = self._bar_width(Layout.fit(_COLUMNS, rows, None).width, width)
        columns = (*_COLUMNS, Column(_axis(self._scale, bar_width), minimum=bar_width))
        layout = Layout.fit(columns, [(*cells, Text(" " * bar_width)) for cells in rows], width)
        yield layout.titles("  operation")
        for line in self._lines:
            yield layout.line((*line.cells, self._bar(line, bar_width)))
            for remark in line.remarks:
                yield from fold(remark, _REMARK_INDENT, width)

    def _bar_width(self, others: int, width: int | None) -> int:
        if width is None:
            return BAR_IN_PIPES
        if width < MIN_WIDTH_FOR_BARS:
            return 0
        return max(BAR_MIN, min(BAR_MAX, width - others - GAP))

    def _lines_of(self, trace: Trace, zero: int) -> Iterator[Line]:
        stems: list[bool] = []
        said = ""
        shown = trace.branches[:MAX_LINES]
        for number, branch in enumerate(shown, 1):
            del stems[branch.depth :]
            stems.append(not branch.last)
            remarks = []
            message = _error_text(branch.span)
            if message and message != said:  # a parent may fail with its child's words
                remarks.append(Text(message, "red"))
                said = message
            if number == MAX_LINES < len(trace.branches):
                remarks.append(Text(_what_is_left_off(trace.branches[MAX_LINES:]), "dim"))
            yield self._line(branch.span, zero, stems, tuple(remarks))

    def _line(self, span: Span, zero: int, stems: Sequence[bool], remarks: tuple[Text, ...]) -> Line:
        style = _style(span)
        about = self._about(span, len(stems) - 1)
        mark = f"{self._glyphs.failed} " if span.failed else "  "
        name = Text.assemble((mark, "red"), (self._guides(stems), "dim"), (words.plain(span.name), style))
        took = Text(words.duration(span.duration), style)
        return Line(span, zero, (name, Text(about, style or "dim"), took), style or "cyan", remarks)

    def _guides(self, stems: Sequence[bool]) -> str:
        """Draw the tree left of a span; `stems` tells for each level whether a sibling follows below."""
        if len(stems) == 1:
            return ""
        *above, own = stems[1:][-MAX_DEPTH:]
        drawn = "".join(self._glyphs.stem if follows else " " * len(self._glyphs.stem) for follows in above)
        return drawn + (self._glyphs.fork if own else self._glyphs.end)

    def _about(self, span: Span, depth: int) -> str:
        """Say what a name leaves out: service, agent, whether it is a phase, and who answered."""
        attributes = span.attributes
        agent = attributes.get(semconv.AGENT_ID)
        cache_result = attributes.get(semconv.CACHE_RESULT)
        parts = (
            words.moment(span.start, "%d %b %H:%M:%S") if self._from_zero and not depth else "",
            span.process.program if span.process.program != self._program else "",
            attributes.get(semconv.SERVICE_NAME, ""),
            f"agent {agent}" if agent else "",
            "phase" if semconv.PHASE in attributes else "",
            f"cache {cache_result}" if cache_result else "",
        )
        return self._glyphs.dot.join(words.plain(str(part), 60) for part in parts if part)

    def _bar(self, line: Line, width: int) -> Text:
        """Draw when the span ran, in steps of half a character; the shortest is one step."""
        steps = 2 * width
        scale = max(1, self._scale)
        begin = min(steps - 1, (line.span.start - line.zero) * steps // scale)
        end = round((line.span.start + line.span.duration - line.zero) * steps / scale)
        cells = [" "] * width
        for step in range(max(0, begin), min(steps, max(begin + 1, end))):
            half = self._glyphs.right_half if step % 2 else self._glyphs.left_half
            cells[step // 2] = half if cells[step // 2] == " " else self._glyphs.bar
        return Text("".join(cells).rstrip(), line.style)


def _style(span: Span) -> str:
    if span.failed:
        return "red"
    if span.answered_by_cache:
        return "green"
    return "dim" if semconv.PHASE in span.attributes else ""


def _axis(scale: int, width: int) -> str:
    end = words.duration(scale)
    return "0".ljust(width - len(end)) + end if width else ""


def _error_text(span: Span) -> str:
    if not span.failed:
        return ""
    parts = (str(span.attributes.get(semconv.ERROR_TYPE, "")), span.message)
    return words.plain(": ".join(part for part in parts if part) or "failed")


def _what_is_left_off(branches: Sequence[Branch]) -> str:
    failed = sum(branch.span.failed for branch in branches)
    errors = f", {failed:,} of them failed" if failed else ""
    return f"... and {words.plural(len(branches), 'more span')} of this trace{errors}; --json has all of it"
