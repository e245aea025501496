"""What a user sees: lines that fit, bars that stand where time went, foreign text made harmless."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.cells import cell_len
from unit.recordings import Json, batch, call, calls, span, write

from storescope import semconv
from storescope.cli.screen import View, render
from storescope.cli.timeline import ASCII, MAX_LINES, UNICODE, Glyphs
from storescope.insight import Query, Recording, Source, words

HIT = {semconv.CACHE_RESULT: "hit"}


def show(
    folder: Path, *spans: Json, width: int | None = 100, glyphs: Glyphs = UNICODE, **query: object
) -> list[str]:
    if spans:
        write(folder / "traces-1.jsonl", batch(*spans))
    recording = Recording(Source.at(folder), Query(**query))
    view = View(recording.selection, recording.load(list(recording.selection.traces)), recording.files())
    return [line.plain for line in render(view, glyphs, width)]


def line_with(lines: list[str], text: str) -> str:
    return next(line for line in lines if text in line)


def test_operations_of_a_run_stand_on_one_time_axis(tmp_path: Path) -> None:
    """Calls without a parent are shown together: each bar begins where the one before ended."""
    lines = show(
        tmp_path,
        call("first", trace=1, number=1, at=0.0, took=1.0),
        call("second", trace=2, number=2, at=1.0, took=1.0),
        call("third", trace=3, number=3, at=2.0, took=2.0),
    )
    assert lines[0].startswith("app.py  ")
    assert lines[0].endswith("ran 4.00 s, 3 operations, 0 failed")
    axis = lines[1].index("took") + 6
    first, second, third = (line[axis:] for line in lines[2:5])
    width = len(third)
    assert lines[1][axis:].rstrip().endswith("4.00 s")
    assert first.strip() == "━" * (width // 4)
    assert second == " " * (width // 4) + "━" * (width // 4)
    assert third == " " * (width // 2) + "━" * (width // 2)


def test_a_trace_is_a_tree_with_services_phases_agents_and_hits(tmp_path: Path) -> None:
    """Each line says what its span was about."""
    lines = show(
        tmp_path,
        span("handle request", took=1.0),
        call("echo", number=2, parent=1, at=0.1, took=0.5, **{semconv.AGENT_ID: "bob"}),
        span(
            "connect",
            number=3,
            parent=2,
            at=0.1,
            took=0.1,
            **{semconv.PHASE: "connect", semconv.SERVICE_NAME: "lab"},
        ),
        span("list_tools lab", number=4, parent=1, at=0.7, **{semconv.STORE_OPERATION: "list_tools"}, **HIT),
    )
    assert [line[2 : lines[1].index("service")].rstrip() for line in lines[2:6]] == [
        "handle request",
        "├─ tools/call echo",
        "│  └─ connect",
        "└─ list_tools lab",
    ]
    assert "lab · agent bob" in lines[3]
    assert "lab · phase" in lines[4]
    assert "cache hit" in lines[5]


def test_an_error_is_marked_and_said_once(tmp_path: Path) -> None:
    """Type and message stand below the line; a parent that fails with its child's words does not repeat them."""
    lines = show(
        tmp_path,
        call("publish", took=1.0, error="tool_error", message="the board is read-only"),
        span("call", number=2, parent=1, error="tool_error", message="the board is read-only"),
    )
    assert lines[2].startswith("✗ tools/call publish")
    assert lines[3] == "    tool_error: the board is read-only"
    assert sum("read-only" in line for line in lines) == 1


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_lines_fit_the_terminal(tmp_path: Path, width: int) -> None:
    """The timeline is never wider than the terminal, however long the names; neither is the table from 80 on."""
    lines = show(
        tmp_path,
        call("a_tool_with_a_rather_long_name_that_goes_on" * 2, error="tool_error", message="no " * 60),
        call("読む", trace=2, number=2, at=1, service="a service with a long name, too"),
        span("x" * 300, trace=3, number=3, at=2),
        width=width,
    )
    table = lines.index(next(line for line in lines if line.startswith("Where the time went")))
    assert max(cell_len(line) for line in lines[1:table]) <= width
    if width >= 80:
        assert max(cell_len(line) for line in lines[:-1]) <= width


def test_a_pipe_gets_everything(tmp_path: Path) -> None:
    """Without a terminal nothing is cut or folded."""
    name, message = "n" * 150, "m" * 250
    lines = show(tmp_path, call(name, error="E", message=message), width=None)
    assert f"tools/call {name}" in lines[2]
    assert lines[3] == f"    E: {message}"


def test_a_terminal_without_unicode_gets_letters(tmp_path: Path) -> None:
    """All that is drawn is ASCII then."""
    lines = show(
        tmp_path,
        span("root", took=1.0),
        call("echo", number=2, parent=1, error="E", message="m", **{semconv.AGENT_ID: "bob"}),
        glyphs=ASCII,
    )
    assert "".join(lines).isascii()
    assert line_with(lines, "tools/call echo").startswith("x `- tools/call echo")


@pytest.mark.parametrize(
    "evil",
    ["\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "a\rb", "a\nb", "a\u202eb", "\ud800", "\x00", "a\u2028b"],
)
def test_foreign_text_cannot_steer_the_terminal(tmp_path: Path, evil: str) -> None:
    """Escape sequences, line breaks and reordering in any name or message are shown as text."""
    file = tmp_path / "traces-1.jsonl"
    write(
        file,
        batch(
            call(
                evil,
                service=evil,
                error=evil,
                message=evil,
                **{semconv.AGENT_ID: evil, semconv.CACHE_RESULT: evil},
            ),
            span(evil, number=2, parent=1, **{semconv.PHASE: evil}),
            program=evil,
        ),
    )
    harmless = show(tmp_path, width=None)
    assert len(harmless) == len(show(tmp_path, width=None, service=evil))
    text = "\n".join(harmless)
    assert text.encode("utf-8")
    assert all(character.isprintable() for character in text.replace("\n", ""))


def test_markup_is_text(tmp_path: Path) -> None:
    """A tool may have brackets and colons in its name."""
    assert (
        line_with(show(tmp_path, call("[bold]x[/bold] :smile:")), "tools/call").count(
            "[bold]x[/bold] :smile:"
        )
        == 1
    )


def test_the_slowest_traces_begin_at_zero(tmp_path: Path) -> None:
    """With --slow the bars compare lengths, and each trace says when it was."""
    lines = show(
        tmp_path,
        call("fast", trace=1, number=1, at=0.0, took=0.5),
        call("slow", trace=2, number=2, at=50.0, took=2.0),
        slow=True,
        width=120,
    )
    assert lines[0].startswith("Slowest first, app.py")
    slow, fast = lines[2], lines[3]
    assert "tools/call slow" in slow
    assert "15 Jan" in slow
    assert slow.index("━") == fast.index("━")
    assert slow.count("━") == 4 * fast.count("━")


def test_what_is_left_off_is_said(tmp_path: Path) -> None:
    """A trace of thousands of spans ends with their number, a view of few traces with how to see more."""
    spans = [span(number=n, parent=1 if n > 1 else 0, error="E" if n == 300 else None) for n in range(1, 301)]
    lines = show(tmp_path, *spans)
    assert line_with(lines, "more span") == (
        f"    ... and {300 - MAX_LINES} more spans of this trace, 1 of them failed; --json has all of it"
    )
    write(tmp_path / "traces-1.jsonl", batch(*calls(9)))
    recording = Recording(Source.at(tmp_path), Query())
    view = View(recording.selection, recording.load(recording.first_traces(4)), recording.files())
    assert "The 4 newest of 9 traces; --last N shows more." in [
        line.plain for line in render(view, UNICODE, 80)
    ]


def test_the_table_says_what_it_covers_and_where_it_is_from(tmp_path: Path) -> None:
    """Title, columns, numbers and the file stand in plain words."""
    lines = show(tmp_path, *calls(3, took=0.0123), *calls(1, first=9, **HIT))
    assert "Where the time went  all operations in this run, most time first" in lines
    header = line_with(lines, "p95")
    assert header.split() == "tool service calls errors total p50 p95 max sent received".split()
    assert lines[lines.index(header) + 1].split() == (
        "echo lab 3 0 36.9 ms 12.3 ms 12.3 ms 12.3 ms 30 B 300 B".split()
    )
    assert line_with(lines, "cached echo")
    assert lines[-1] == f"Recorded in {tmp_path / 'traces-1.jsonl'}"


def test_other_runs_are_mentioned(tmp_path: Path) -> None:
    """Whoever sees the newest run learns that there are others, and how to see them."""
    write(tmp_path / "traces-2.jsonl", batch(*calls(1, first=50, at=-99), instance="old"))
    lines = show(tmp_path, *calls(2))
    assert lines[-1] == "1 other run recorded beside: --last N, --slow and --errors look at all of them."
    every = show(tmp_path, last=9)
    assert sum(line.startswith("app.py  ") for line in every) == 2
    assert "all operations in 2 runs" in line_with(every, "Where the time went")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.00 ms"),
        (40_000, "0.04 ms"),
        (9_994_999, "9.99 ms"),
        (9_995_000, "10.0 ms"),
        (13_240_000, "13.2 ms"),
        (99_960_000, "100 ms"),
        (999_499_999, "999 ms"),
        (999_500_000, "1.00 s"),
        (119_400_000_000, "119 s"),
        (245_000_000_000, "4 min 5 s"),
        (7_260_000_000_000, "2 h 1 min"),
    ],
)
def test_durations_have_three_digits(nanoseconds: int, text: str) -> None:
    """Milliseconds, seconds, minutes, hours: whatever reads best."""
    assert words.duration(nanoseconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, "-"), (0, "0 B"), (999, "999 B"), (1200, "1.20 kB"), (5e7, "50.0 MB")]
)
def test_sizes_have_three_digits(count: int | None, text: str) -> None:
    """Bytes in decimal units; a dash where the size is not known."""
    assert words.size(count) == text
