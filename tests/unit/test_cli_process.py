"""The command as a process: pipes, terminals, encodings, and how little it loads."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from unit.recordings import batch, call, calls, write

STORESCOPE = [sys.executable, "-c", "from storescope.cli import main; main(prog_name='storescope')"]
needs_posix = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows has neither head nor pseudo-terminals"
)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return write(
        tmp_path / "traces-1.jsonl",
        batch(*calls(3), call("lösche", trace=9, number=9, error="E", message="m")),
    )


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [*STORESCOPE, *(str(argument) for argument in arguments)]
    return subprocess.run(
        command, capture_output=True, check=False, timeout=30, env={**os.environ, **environment}
    )


def in_terminal(width: int, *arguments: object, **environment: str) -> str:
    """Run the command in a pseudo-terminal and return what it shows."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    clean = {
        key: value
        for key, value in os.environ.items()
        if key not in {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
    }
    process = subprocess.Popen(
        [*STORESCOPE, *(str(argument) for argument in arguments)],
        stdin=follower, stdout=follower, stderr=follower, env={**clean, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(follower)
    shown = bytearray()
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux reports the end so
            break
        if not part:
            break
        shown += part
    os.close(leader)
    assert process.wait(timeout=30) == 0
    return shown.decode()


def test_help_loads_neither_opentelemetry_nor_rich() -> None:
    """Who asks for help waits for nothing that help does not need."""
    code = (
        "import sys\nfrom storescope.cli import main\nmain(['--help'], standalone_mode=False)\n"
        "heavy = {'opentelemetry', 'rich', 'wrapt', 'psutil', 'mcpstore', 'storescope.insight'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout.endswith("loaded: []\n")


def test_view_loads_no_opentelemetry(recorded: Path) -> None:
    """Reading files needs neither the agent nor the SDK."""
    code = (
        f"import sys\nfrom storescope.cli import main\nmain(['view', {str(recorded)!r}], standalone_mode=False)\n"
        "names = ('opentelemetry', 'storescope.core', 'storescope.stores', 'storescope.instrumentation')\n"
        "print('loaded:', [name for name in names if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    assert result.stdout.endswith("loaded: []\n")


@pytest.mark.parametrize("option", ["--last=5000", "--json", "--export=-"])
def test_a_reader_that_leaves_is_no_error_message(tmp_path: Path, option: str) -> None:
    """`storescope view | head` is quiet."""
    file = write(tmp_path / "traces-1.jsonl", batch(*calls(3000)))
    process = subprocess.Popen(
        [*STORESCOPE, "view", str(file), option], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait(timeout=30)


def test_a_pipe_has_no_colour_and_no_width(recorded: Path) -> None:
    """What goes into a pipe is plain text, however narrow a terminal the environment speaks of."""
    wide = run("view", recorded)
    narrow = run("view", recorded, COLUMNS="30", TERM="xterm-256color")
    assert b"\x1b" not in wide.stdout
    assert narrow.stdout == wide.stdout
    assert "tools/call lösche" in wide.stdout.decode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_an_encoding_that_lacks_characters_is_no_error(recorded: Path, encoding: str) -> None:
    """Bars are drawn in ASCII then, and what cannot be written is replaced."""
    result = run("view", recorded, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert result.returncode == 0
    assert result.stderr == b""
    assert b"==" in result.stdout
    assert "tools/call lösche".encode(encoding, "replace") in result.stdout


@needs_posix
@pytest.mark.parametrize("width", [80, 120, 200])
def test_a_terminal_gets_colour_and_its_width(recorded: Path, width: int) -> None:
    """Failures are red, and no line but the one with the file is wider than the terminal."""
    shown = in_terminal(width, "view", recorded)
    assert "\x1b[31m" in shown
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(len(line) for line in lines if not line.startswith("Recorded in")) <= width
    assert sum("tools/call" in line for line in lines) == 4


@needs_posix
def test_no_color_is_honoured(recorded: Path) -> None:
    """NO_COLOR leaves no colour in a terminal either."""
    shown = in_terminal(100, "view", recorded, NO_COLOR="1")
    assert "\x1b[31m" not in shown
    assert "\x1b[36m" not in shown
    assert "tools/call echo" in shown


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_an_output_that_cannot_be_written_is_said_in_plain_words(recorded: Path) -> None:
    """A full disk behind a redirection is no reason for a traceback."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*STORESCOPE, "view", str(recorded)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
