"""The `storescope` command: what programs recorded under the agent, shown and handed on."""

from __future__ import annotations

import contextlib
import errno
import gc
import io
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from storescope import __version__
from storescope.settings import Settings

# What the commands need is imported when they run: `storescope --help` answers at once.
if TYPE_CHECKING:
    from rich.text import Text

    from storescope.cli.timeline import Glyphs
    from storescope.insight import Recording, Source

#: Lines of the timeline, unless --last asks for a number of traces.
_ROOM: Final = 40


class Failure(click.ClickException):
    """What was asked for cannot be done: said in plain words, with exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message."""
        click.echo(f"storescope: {self.format_message()}", file=file, err=True)


@click.group("storescope", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="storescope")
def main() -> None:
    """See where an MCP store spends its time.

    Run your program under the agent, then look at what it did:

    \b
      opentelemetry-instrument python app.py
      storescope view

    No program at hand? `storescope demo` brings one.
    """  # noqa: D301 - click reads the control character


@main.command(short_help="Show what programs did: a timeline, and a table per tool.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--last", type=click.IntRange(min=1), metavar="N", help="The N newest traces, of whichever run."
)
@click.option("--slow", is_flag=True, help="Slowest traces first.")
@click.option("--errors", is_flag=True, help="Only traces in which something failed.")
@click.option(
    "--service",
    metavar="NAME",
    help="Only traces and operations of NAME: an MCP service of the store, or a program (its OpenTelemetry"
    " service.name).",
)
@click.option("--json", "as_json", is_flag=True, help="Print traces and tables as JSON, for programs.")
@click.option(
    "--export",
    "target",
    type=click.Path(path_type=Path, allow_dash=True, dir_okay=False),
    metavar="PATH",
    help="Write the traces to PATH as one OTLP JSON object, for Jaeger's upload; - is standard output.",
)
@click.option("--force", is_flag=True, help="Let --export overwrite a file.")
def view(
    file: Path | None,
    last: int | None,
    slow: bool,
    errors: bool,
    service: str | None,
    as_json: bool,
    target: Path | None,
    force: bool,
) -> None:
    """Show what programs did: a timeline, and a table per tool.

    FILE is an OTLP JSON file of traces or a folder of traces-*.jsonl files; by default it is the folder in which
    the agent records (STORESCOPE_DIR, else .storescope).

    Without options this is the newest run of a program, and the table covers that run. With --last, --slow or
    --errors it is every run in FILE, and so is the table. The screen shows as many traces as fit on it; --json
    and --export have all that were chosen.

    \b
    Examples:
      storescope view                        the newest run
      storescope view --last 1               the newest trace alone
      storescope view --slow --service notes the slowest operations of one MCP service
      storescope view --errors --json        every trace with an error, for programs
      storescope view --export trace.json    a file for Jaeger: Search > Upload
    """  # noqa: D301 - click reads the control character
    from storescope.insight import InsightError, Query, Recording, Source

    if as_json and target is not None:
        raise click.UsageError("--json and --export exclude each other.")
    query = Query(last=last, slow=slow, errors=errors, service=service)
    try:
        with _collector_paused():
            recording = Recording(Source.at(file or Settings.from_env().directory), query)
        if target is not None:
            _export(recording, target, force)
        elif as_json:
            _print_json(recording)
        else:
            _show(recording)
    except InsightError as error:
        raise Failure(str(error)) from error
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise  # whoever read the output has seen enough; click ends quietly
        raise Failure(f"the output cannot be written: {error.strerror}.") from error


@main.command(short_help="Run a small agent and an MCP server, and show what was recorded.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the recorded files; by default demo, below the folder in which the agent records.",
)
def demo(folder: Path | None) -> None:
    """Run a small agent and an MCP server, and show what was recorded.

    An agent-like program searches, reads and publishes notes through mcpstore 2.x and a small MCP server. It runs
    as your program would: unchanged, under opentelemetry-instrument. Nothing leaves this machine.

    \b
    Examples:
      storescope demo
      storescope demo --dir recordings
    """  # noqa: D301 - click reads the control character
    from storescope.demo import launch
    from storescope.insight import InsightError, Query, Recording, Source

    folder = folder or Settings.from_env().directory / "demo"
    try:
        launch.check_store()
        click.echo(f"$ {launch.COMMAND}")
        files = launch.record(folder)
        click.echo()
        _show(Recording(Source(files), Query()))
    except (launch.DemoError, InsightError) as error:
        raise Failure(str(error)) from error
    click.echo("\nAgain with your own program:\n  opentelemetry-instrument python app.py\n  storescope view")


@main.command(short_help="Send recorded telemetry to an OTLP/HTTP receiver.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "--endpoint",
    metavar="URL",
    help="The receiver, such as http://localhost:4318; by default what OTEL_EXPORTER_OTLP_ENDPOINT or the signal's"
    " own variable says, else http://localhost:4318.",
)
def send(file: Path | None, endpoint: str | None) -> None:
    """Send recorded telemetry to an OTLP/HTTP receiver.

    FILE is an OTLP JSON file of traces or metrics, or a folder of traces-*.jsonl and metrics-*.jsonl files; by
    default it is the folder in which the agent records (STORESCOPE_DIR, else .storescope). A span that was recorded
    twice is sent once. Files stay as they are, and what is sent again arrives again.

    A signal that the receiver does not take, as Jaeger takes no metrics, is said so and is no failure.

    \b
    Examples:
      storescope send                                       all that was recorded here
      storescope send --endpoint http://jaeger:4318         to a Jaeger or Collector elsewhere
      storescope send .storescope/demo/traces-*-1.jsonl     one file
    """  # noqa: D301 - click reads the control character
    from storescope.cli.sending import Sending
    from storescope.insight import InsightError

    settings = Settings.from_env()
    try:
        sending = Sending(file or settings.directory, endpoint, settings.otel)
    except InsightError as error:
        raise Failure(str(error)) from error
    for line in sending.report():
        click.echo(line)
    _print_notes(sending.source)
    if failure := sending.failure():
        raise Failure(failure)


@main.command("batch", short_help="Make many calls of tools of an MCP server, a few at a time.")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.argument("command", nargs=-1, metavar="[COMMAND]...")
@click.option("--url", metavar="URL", help="The server, where it is reached over streamable HTTP.")
@click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Sessions, and calls at once.",
)
@click.option(
    "--order",
    type=click.Choice(["type", "added"]),
    default="type",
    show_default=True,
    help="Reads, writes, deletes, creates, others; or as they stand in FILE.",
)
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="For each call."
)
@click.option(
    "--retries", type=click.IntRange(min=0), default=0, show_default=True, help="For calls of type read."
)
def run_batch(
    file: IO[str],
    command: tuple[str, ...],
    url: str | None,
    concurrency: int,
    order: str,
    timeout: float | None,
    retries: int,
) -> None:
    """Make many calls of tools of an MCP server, a few at a time, and print a JSON line for each, in their order.

    FILE has one call on each line: {"type": "read", "tool_name": "read_note", "arguments": {"title": "budget"}};
    - is standard input. The server is COMMAND (after --), or is reached at --url. Types run one after another, and
    identical reads once. The exit code is 1 if a call failed; the others are made all the same.

    \b
    Examples:
      storescope batch calls.jsonl -- python -m storescope.demo.server
      storescope batch calls.jsonl --url http://localhost:8000/mcp --concurrency 10 > results.jsonl
    """  # noqa: D301 - click reads the control character
    from storescope.cli import batching
    from storescope.core.errors import PoolError

    if bool(command) == bool(url):
        raise click.UsageError("Give the server: either a COMMAND after --, or --url.")
    service = {"url": url} if url else {"command": command[0], "args": list(command[1:])}
    if timeout is not None and not math.isfinite(timeout):
        raise click.BadParameter("must be a number of seconds.", param_hint="--timeout")
    if command and shutil.which(command[0]) is None:
        raise Failure(f"{command[0]} is no program that can be run.")
    failed = 0
    try:
        calls = batching.read_calls(file)
        options = {"order": order, "operation_timeout": timeout, "retries": retries}
        for document, succeeded in batching.execute(calls, service, concurrency, **options):
            click.echo(json.dumps(document, ensure_ascii=False))
            failed += not succeeded
    except (batching.BadCall, ImportError, PoolError, ValueError) as error:
        raise Failure(str(error)) from error
    if failed:
        raise Failure(f"{failed} of {len(calls)} calls failed.")


@main.command(short_help="Show every setting, and the value that is in force.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, for programs.")
@click.option("--markdown", is_flag=True, help="Print the page docs/configuration.md.")
def config(as_json: bool, markdown: bool) -> None:
    """Show every setting, and the value that is in force.

    All settings are environment variables. This is what the agent would read if it were started here.

    \b
    Examples:
      storescope config
      STORESCOPE_CAPTURE=arguments storescope config --json
    """  # noqa: D301 - click reads the control character
    from storescope.cli import configuration

    if as_json and markdown:
        raise click.UsageError("--json and --markdown exclude each other.")
    if markdown:
        click.echo(configuration.markdown(), nl=False)
        return
    readings, otel = Settings.readings(), Settings.otel_variables()
    if as_json:
        click.echo(json.dumps(configuration.document(readings, otel), indent=2))
    else:
        _print(lambda glyphs, width: configuration.render(readings, otel, width))


@main.command(
    short_help="Examine this environment: what would be observed, where it would go, what is wrong."
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, for programs.")
def doctor(as_json: bool) -> None:
    """Examine this environment: what would be observed, where it would go, what is wrong, and what to do about it.

    Run it where your program runs: with the same Python, the same environment variables, in the same folder. It
    imports the stores that are installed, asks receivers with an empty export, and leaves everything as it is.

    The exit code is 1 if there is a problem; warnings are none.

    \b
    Examples:
      storescope doctor
      storescope doctor --json
    """  # noqa: D301 - click reads the control character
    from storescope.cli import doctor as examination

    diagnosis = examination.examine()
    if as_json:
        click.echo(json.dumps(diagnosis.document(), indent=2))
    else:
        _print(lambda glyphs, width: examination.render(diagnosis, glyphs, width))
    if diagnosis.has_problems:
        raise click.exceptions.Exit(1)


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """Hold cyclic garbage collection off: reading makes no cycles, and looking for them takes a third of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _show(recording: Recording) -> None:
    """Print timeline and table."""
    from storescope.cli import screen

    last = recording.selection.query.last
    chosen = list(recording.selection.traces) if last else recording.first_traces(_ROOM)
    shown = screen.View(recording.selection, recording.load(chosen), recording.files())
    _print(lambda glyphs, width: screen.render(shown, glyphs, width))
    _print_notes(recording.source)


def _print(render: Callable[[Glyphs, int | None], Iterable[Text]]) -> None:
    """Print lines: as wide as the terminal, or as they need in a pipe or file."""
    from rich.console import Console

    from storescope.cli import timeline

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names that the terminal's encoding lacks
    console = Console(highlight=False, markup=False, emoji=False)
    glyphs = timeline.UNICODE if console.encoding.startswith("utf") else timeline.ASCII
    for line in render(glyphs, console.width if sys.stdout.isatty() else None):
        console.print(line, soft_wrap=True)


def _print_json(recording: Recording) -> None:
    from storescope.insight.document import build_document

    traces = recording.load(list(recording.selection.traces))
    click.echo(json.dumps(build_document(recording.source, recording.selection, traces), indent=2))


def _export(recording: Recording, target: Path, force: bool) -> None:
    content = json.dumps(recording.export())
    if str(target) == "-":
        click.echo(content)
        return
    try:
        with target.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(content + "\n")
    except FileExistsError as error:
        raise Failure(f"{target} exists already; --force overwrites it.") from error
    except OSError as error:
        raise Failure(f"{target} cannot be written: {error.strerror}.") from error
    count = len(recording.selection.traces)
    traces = f"{count:,} trace{'' if count == 1 else 's'}"
    click.echo(f"Wrote {traces} to {target}. To see them in Jaeger: Search > Upload.", err=True)
    _print_notes(recording.source)


def _print_notes(source: Source) -> None:
    for note in source.notes:
        click.echo(f"Skipped {note}", err=True)
    if source.notes_left_off:
        click.echo(f"Skipped {source.notes_left_off:,} more.", err=True)
