"""`storescope batch`: calls from a file, made on a real server, a line of results for each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.mcpsdk

SERVER = [sys.executable, "-m", "storescope.demo.server"]
CALLS = [
    {"type": "write", "tool_name": "publish", "arguments": {"text": "x"}},
    {"type": "read", "tool_name": "read_note", "arguments": {"title": "budget"}},
    {"tool_name": "word_count", "arguments": {"text": "one two"}},
    {"type": "read", "tool_name": "read_note", "arguments": {"title": "budget"}},
]


def batch(*arguments: str, calls: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from storescope.cli import main; main()", "batch", "-", *arguments]
    return subprocess.run(command, input=calls, capture_output=True, text=True, timeout=60, check=False)


def lines(calls: list[dict[str, Any]]) -> str:
    return "\n".join(map(json.dumps, calls))


def test_each_call_has_its_line() -> None:
    """Values and errors stand in the order of the calls; identical reads are made once; a failure is the exit code."""
    done = batch("--", *SERVER, calls=lines(CALLS))
    published, read, counted, again = map(json.loads, done.stdout.splitlines())

    assert published["error"].startswith("ToolFailed: the notice board is read-only")
    assert read["value"]["content"][0]["text"].startswith("The release party")
    assert counted["value"]["content"][0]["text"] == "2"
    assert again["value"] == read["value"]
    assert [result["attempts"] for result in (published, read, counted, again)] == [1, 1, 1, 0]
    assert done.stderr == "storescope: 1 of 4 calls failed.\n"
    assert done.returncode == 1


def test_success_is_silent() -> None:
    """With nothing failed there is nothing on stderr: no bar where there is no terminal."""
    done = batch("--order", "added", "--", *SERVER, calls=lines(CALLS[1:]))
    assert (done.stderr, done.returncode, len(done.stdout.splitlines())) == ("", 0, 3)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="there are no pseudo-terminals here")
def test_a_terminal_gets_a_progress_bar(tmp_path: Path) -> None:
    """On stderr, so that stdout has the results alone."""
    file = tmp_path / "calls.jsonl"
    file.write_text(lines(CALLS[1:]))
    screen, terminal = os.openpty()
    command = [
        sys.executable,
        "-c",
        "from storescope.cli import main; main()",
        "batch",
        str(file),
        "--",
        *SERVER,
    ]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=terminal, env={**os.environ, "TERM": "xterm"}
    ) as run:
        os.close(terminal)
        assert run.stdout is not None
        results = run.stdout.read().splitlines()
        shown = b""
        try:
            while part := os.read(screen, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(screen)
    assert len(results) == 3
    assert b"calls" in shown
    assert b"100%" in shown


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ("{", "line 1 is no JSON"),
        ("[" * 100_000, "line 1 is no JSON"),
        ('\n{"tool": "x"}', 'line 2 must be an object with a "tool_name", not {"tool": "x"}'),
        ('{"tool_name": "x", "args": {}}', "line 1 has 'args'; a call has type, tool_name, arguments"),
        ('{"tool_name": "x", "arguments": []}', 'line 1: "arguments" must be an object'),
    ],
)
def test_a_line_that_is_no_call_is_named(calls: str, message: str) -> None:
    """Before anything is called."""
    done = batch("--", *SERVER, calls=calls)
    assert message in done.stderr
    assert (done.stdout, done.returncode) == ("", 1)


def test_a_server_is_needed() -> None:
    """One, and not two."""
    assert "either a COMMAND after --, or --url" in batch(calls="").stderr
    assert batch("--url", "http://127.0.0.1:9/mcp", "--", "x", calls="").returncode == 2
    assert "no-such-program is no program" in batch("--", "no-such-program", calls="").stderr
    assert "must be a number of seconds" in batch("--timeout", "nan", "--", *SERVER, calls="").stderr
    nonsense = batch("--url", "nonsense", calls="")
    assert nonsense.stderr.startswith("storescope: ")
    assert "Traceback" not in nonsense.stderr
