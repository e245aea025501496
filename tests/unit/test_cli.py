"""The command: what it prints, its exit codes, and plain words for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.command import storescope
from unit.recordings import batch, call, calls, span, write

from storescope import __version__
from storescope.cli import main


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Three calls, of which one fails."""
    failing = call("publish", trace=9, number=9, at=1.0, error="tool_error", message="read-only")
    return write(tmp_path / ".storescope" / "traces-1.jsonl", batch(*calls(2), failing))


def test_view_shows_timeline_table_and_file(recorded: Path) -> None:
    """A file gives the whole view on standard output, nothing beside it, and exit code 0."""
    result = storescope("view", recorded)
    assert result.exit_code == 0
    assert result.stderr == ""
    for words in ("app.py", "tools/call echo", "tool_error: read-only", "p95", str(recorded)):
        assert words in result.stdout


def test_view_reads_the_agents_folder_by_default(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without FILE it is STORESCOPE_DIR, or .storescope where the command runs."""
    monkeypatch.chdir(recorded.parent.parent)
    assert "tools/call echo" in storescope("view").stdout
    monkeypatch.chdir("/")
    assert storescope("view").exit_code == 1
    monkeypatch.setenv("STORESCOPE_DIR", str(recorded.parent))
    assert "tools/call echo" in storescope("view").stdout


def test_view_of_nothing_recorded_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has not recorded yet learns how."""
    monkeypatch.chdir(tmp_path)
    result = storescope("view")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"storescope: {tmp_path / '.storescope'} does not exist.\n"
        "Record a program first: opentelemetry-instrument python app.py (or see: storescope demo)\n"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("just text\n", "line 1: not JSON"),
        ('{"resourceSpans":[{"resou', "line 1: an incomplete line"),
        ('{"resourceMetrics":[]}\n', "line 1: metrics, not spans"),
        ('{"a": 1}\n', "line 1: JSON, but not OTLP"),
    ],
)
def test_a_file_of_another_kind_is_an_answer_not_a_traceback(
    tmp_path: Path, content: str, words: str
) -> None:
    """Exit code 1, and one message that says what and where."""
    file = tmp_path / "file"
    file.write_text(content)
    result = storescope("view", file)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"storescope: {file}")
    assert words in result.stderr


def test_half_a_line_is_skipped_with_a_note(recorded: Path) -> None:
    """What a killed program left half is named on standard error; the rest is shown."""
    recorded.write_text(recorded.read_text() + '{"resourceSpans":[{')
    result = storescope("view", recorded)
    assert result.exit_code == 0
    assert "tools/call echo" in result.stdout
    assert result.stderr.startswith(f"Skipped {recorded}, line 2: an incomplete line")
    recorded.write_text(recorded.read_text() + "\n" + "{torn\n" * 30)
    assert storescope("view", recorded).stderr.endswith("Skipped 11 more.\n")


@pytest.mark.parametrize(
    "arguments",
    [("view", "--last", "0"), ("view", "--last", "x"), ("view", "--nope"), ("vieww",), ("view", "a", "b"),
     ("view", "--json", "--export", "x")],
)  # fmt: skip
def test_wrong_usage_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    """The message points to the help."""
    result = storescope(*arguments)
    assert result.exit_code == 2
    assert "Try 'storescope" in result.stderr


def test_selections_reach_the_screen(recorded: Path) -> None:
    """--errors, --last, --slow and --service choose what is shown."""
    assert "tools/call echo" not in storescope("view", recorded, "--errors").stdout
    assert storescope("view", recorded, "--last", 1).stdout.count("tools/call") == 1
    assert storescope("view", recorded, "--slow").stdout.startswith("Slowest first")
    result = storescope("view", recorded, "--service", "unknown")
    assert result.exit_code == 1
    assert "There are: app.py, lab" in result.stderr


def test_the_screen_shows_what_fits_and_last_shows_more(tmp_path: Path) -> None:
    """A run of a hundred calls shows the newest, unless a number is asked for."""
    file = write(tmp_path / "traces-1.jsonl", batch(*calls(100)))
    few = storescope("view", file).stdout
    assert few.count("tools/call") == 40
    assert "The 40 newest of 100 traces; --last N shows more." in few
    assert storescope("view", file, "--last", 100).stdout.count("tools/call") == 100


def test_json_has_the_documented_shape(recorded: Path) -> None:
    """All chosen traces and the tables, as one JSON object."""
    recorded.write_text(recorded.read_text() + "{half")
    result = storescope("view", recorded, "--json")
    assert result.stderr == ""
    document = json.loads(result.stdout)
    assert document["format"] == "storescope.view/1"
    assert document["files"] == [str(recorded)]
    assert document["runs"] == [
        {
            "program": "app.py",
            "processes": 1,
            "start": "2027-01-15T08:00:00.000000000Z",
            "duration_seconds": 1.01,
        }
    ]
    assert [len(trace["spans"]) for trace in document["traces"]] == [1, 1, 1]
    newest = document["traces"][0]
    assert (newest["errors"], newest["start"], newest["duration_seconds"]) == (
        1,
        "2027-01-15T08:00:01.000000000Z",
        0.01,
    )
    assert newest["spans"][0]["error"] == {"type": "tool_error", "message": "read-only"}
    assert newest["spans"][0]["attributes"]["gen_ai.tool.name"] == "publish"
    assert document["tools"][0] == {
        "service": "lab",
        "tool": "echo",
        "cache_result": None,
        "calls": 2,
        "errors": 0,
        "total_seconds": 0.02,
        "p50_seconds": 0.01,
        "p95_seconds": 0.01,
        "max_seconds": 0.01,
        "bytes_sent": 20,
        "bytes_received": 200,
    }
    assert (document["operations"], document["phases"], document["other_runs"]) == ([], [], 0)
    assert document["skipped"][0]["line"] == 2


def test_json_takes_any_text(tmp_path: Path) -> None:
    """Halves of characters and escape sequences leave valid, printable JSON."""
    file = write(tmp_path / "traces-1.jsonl", batch(span("\ud800\x1b[31m\u20ac")))
    result = storescope("view", file, "--json")
    assert result.stdout.isascii()
    assert "\x1b" not in result.stdout
    assert json.loads(result.stdout)["traces"][0]["spans"][0]["name"] == "\ud800\x1b[31m\u20ac"


def test_export_writes_one_object_and_never_over_a_file(recorded: Path, tmp_path: Path) -> None:
    """A file that is there stays as it is unless --force says otherwise."""
    target = tmp_path / "trace.json"
    result = storescope("view", recorded, "--export", target)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == f"Wrote 3 traces to {target}. To see them in Jaeger: Search > Upload.\n"
    assert list(json.loads(target.read_text())) == ["resourceSpans"]
    target.write_text("precious")
    refused = storescope("view", recorded, "--export", target)
    assert (refused.exit_code, refused.stderr) == (
        1,
        f"storescope: {target} exists already; --force overwrites it.\n",
    )
    assert target.read_text() == "precious"
    assert storescope("view", recorded, "--errors", "--export", target, "--force").exit_code == 0
    assert len(json.loads(target.read_text())["resourceSpans"][0]["scopeSpans"][0]["spans"]) == 1


def test_export_to_standard_output(recorded: Path) -> None:
    """A dash hands the object to the next program."""
    assert list(json.loads(storescope("view", recorded, "--export", "-").stdout)) == ["resourceSpans"]


def test_export_to_where_nothing_can_be_written(recorded: Path, tmp_path: Path) -> None:
    """A folder that is not there is said, with exit code 1."""
    result = storescope("view", recorded, "--export", tmp_path / "none" / "trace.json")
    assert result.exit_code == 1
    assert "cannot be written: No such file or directory" in result.stderr


def test_a_file_that_cannot_be_read_is_skipped_with_a_note(recorded: Path) -> None:
    """The other files of the folder are shown."""
    unreadable = recorded.with_name("traces-2.jsonl")
    unreadable.mkdir()
    result = storescope("view", recorded.parent)
    assert result.exit_code == 0
    assert "tools/call echo" in result.stdout
    assert result.stderr.startswith(f"Skipped {unreadable}: cannot be read (")


def test_help_has_examples() -> None:
    """The group and each command show how they are used."""
    for arguments, example in (
        (("--help",), "opentelemetry-instrument python app.py"),
        (("view", "--help"), "storescope view --errors --json"),
        (("demo", "-h"), "storescope demo --dir"),
        (("send", "--help"), "storescope send --endpoint http://"),
        (("config", "--help"), "storescope config --json"),
        (("doctor", "--help"), "storescope doctor --json"),
    ):
        result = storescope(*arguments)
        assert result.exit_code == 0
        assert example in result.stdout
    assert storescope("--version").stdout == f"storescope, version {__version__}\n"


def test_the_documentation_names_every_option_and_key(recorded: Path) -> None:
    """docs/view.md leaves out no option of the command and no key of its JSON."""
    text = (Path(__file__).parents[2] / "docs" / "view.md").read_text(encoding="utf-8")
    options = {
        option
        for parameter in main.commands["view"].params
        for option in parameter.opts
        if option[:2] == "--"
    }
    assert {option for option in options if f"`{option}" not in text} == set()
    recorded.write_text(recorded.read_text() + "{half")

    def keys(value: object) -> set[str]:
        if isinstance(value, list):
            return set().union(*map(keys, value))
        if not isinstance(value, dict):
            return set()
        return set(value) | keys([item for key, item in value.items() if key != "attributes"])

    found = keys(json.loads(storescope("view", recorded, "--json").stdout))
    assert {key for key in found if f"`{key}`" not in text} == set()
