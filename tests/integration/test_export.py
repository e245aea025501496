"""Whole programs under `opentelemetry-instrument`: where their telemetry goes, and how they end."""

from __future__ import annotations

import errno
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from integration.harness import Runner, read_spans
from receivers import Receiver, grpc_receiver, hanging_receiver, http_receiver, refused_port

LAUNCHER = str(Path(sys.executable).with_name("opentelemetry-instrument"))

#: A program's own end to the end of its process, in seconds: a second is promised where nothing gets through, and a
#: busy machine is granted three more. The stock exporters, unbounded, take 12 and more.
PROMPT = 4.0

PRELUDE = """
import atexit, os, sys, time
from opentelemetry import metrics, trace
tracer = trace.get_tracer("test")
calls = metrics.get_meter("test").create_counter("calls")
def work(*names):
    for name in names:
        with tracer.start_as_current_span(name):
            calls.add(1)
def end():
    print("end", time.monotonic(), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """A program that has ended."""

    returncode: int
    stdout: str
    stderr: str
    #: When its process was gone.
    at: float

    @property
    def took_to_end(self) -> float:
        """Seconds from the program's last statement to the end of its process."""
        return self.at - float(re.findall(r"^end (\S+)$", self.stdout, re.MULTILINE)[-1])

    def lines(self, text: str) -> list[str]:
        """Return the lines of stderr that contain a text."""
        return [line for line in self.stderr.splitlines() if text in line]


@dataclass(frozen=True)
class Programs:
    """Runs programs in a folder of their own, with the agent's own distribution and configurator."""

    folder: Path

    @property
    def directory(self) -> Path:
        return self.folder / "telemetry"

    def command(self, source: str) -> list[str]:
        path = self.folder / "app.py"
        path.write_text(PRELUDE + source, "utf-8")
        return [LAUNCHER, sys.executable, str(path)]

    def environment(self, env: Mapping[str, str]) -> dict[str, str]:
        ours = {"OTEL_PYTHON_DISTRO": "storescope", "OTEL_PYTHON_CONFIGURATOR": "storescope"}
        unnamed = {"OTEL_TRACES_EXPORTER": "", "OTEL_METRICS_EXPORTER": ""}
        return Runner(self.folder).environment(**{**ours, **unnamed, **env})

    def start(
        self, command: str | Sequence[str], env: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[str]:
        """Start a program, given as its source or its command."""
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        } | options
        return subprocess.Popen(
            self.command(command) if isinstance(command, str) else command,
            cwd=self.folder,
            env=self.environment(env),
            text=True,
            **options,
        )

    def run(
        self, command: str | Sequence[str], env: Mapping[str, str] | None = None, **options: Any
    ) -> Ended:
        """Run a program to its end."""
        with self.start(command, env or {}, **options) as process:
            stdout, stderr = process.communicate(timeout=60)
            at = time.monotonic()
            # Not ours: the loader says this wherever the official distribution is installed too.
            ours = [line for line in (stderr or "").splitlines(keepends=True) if "not loaded" not in line]
            return Ended(process.returncode, stdout or "", "".join(ours), at)

    def file(self) -> list[str]:
        """Return the names of the spans in the local files."""
        return [span.name for span in read_spans(self.directory)]

    def text(self, pattern: str) -> str:
        return "".join(path.read_text("utf-8") for path in self.directory.glob(pattern))

    def services(self) -> set[str]:
        return {span.resource["service.name"] for span in read_spans(self.directory)}


@pytest.fixture
def programs(tmp_path: Path) -> Programs:
    return Programs(tmp_path)


#: Exporters are named, so that a receiver on the developer's machine takes no part.
FILE = {"OTEL_TRACES_EXPORTER": "storescope_file", "OTEL_METRICS_EXPORTER": "storescope_file"}


def otlp(receiver: Receiver, protocol: str = "http/protobuf", **more: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        **more,
    }


def names(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


# Which destination


def test_with_no_collector_everything_is_in_the_local_file_and_stdout_is_the_programs_own(
    programs: Programs,
) -> None:
    """A fresh machine, and nothing configured."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 4318)) != errno.ECONNREFUSED:
            pytest.skip("something listens on port 4318 of this machine")
    ended = programs.run('work("a", "b"); end()')
    assert ended.returncode == 0
    assert ended.took_to_end < PROMPT
    assert re.fullmatch(r"end \S+\n", ended.stdout)
    assert programs.file() == ["a", "b"]
    assert '"calls"' in programs.text("metrics-*.jsonl")


def test_nothing_heavy_is_imported_before_it_is_chosen(programs: Programs) -> None:
    """The local file needs no exporter but ours, and HTTP no gRPC."""
    source = 'print(*(name for name in ("grpc", "requests", "mcp", "mcpstore") if name in sys.modules))'
    assert programs.run(source, FILE).stdout.split() == []
    with http_receiver() as receiver:
        assert programs.run(source, otlp(receiver)).stdout.split() == ["requests"]


def test_only_one_variable_is_written(programs: Programs) -> None:
    """Besides the launcher's own, programs that the application starts see our process id and nothing else."""
    source = (
        "claimed = os.environ.pop('STORESCOPE_PID', None) == str(os.getpid()); os.environ.pop('PYTHONPATH', None)\n"
        "print(sorted(os.environ.items())); print(claimed)"
    )
    launched = programs.run(source, FILE).stdout.splitlines()
    plain = programs.run(programs.command(source)[1:], FILE).stdout.splitlines()
    assert launched[0] == plain[0]
    assert (launched[1], plain[1]) == ("True", "False")


def test_a_named_exporter_of_somebody_else_is_used_beside_otlp(programs: Programs) -> None:
    """Here the console."""
    with http_receiver() as receiver:
        ended = programs.run('work("a")', otlp(receiver, OTEL_TRACES_EXPORTER="otlp,console"))
    assert receiver.spans == ["a"]
    assert '"name": "a"' in ended.stdout
    assert not programs.directory.exists()


def test_a_named_metric_exporter_of_somebody_else_is_used(programs: Programs) -> None:
    """And `none` is none."""
    ended = programs.run('work("a")', {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "console"})
    assert '"name": "calls"' in ended.stdout
    assert not programs.directory.exists()


def test_logs_are_exported_where_an_exporter_is_named(programs: Programs) -> None:
    """By the SDK's own handler, within the same bounds."""
    source = 'import logging; logging.getLogger("shop").error("out of stock"); end()'
    switched_on = {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"}
    with http_receiver() as receiver:
        programs.run(source, otlp(receiver, **switched_on))
    assert "out of stock" in receiver.logs
    with hanging_receiver() as receiver:
        assert programs.run(source, otlp(receiver, **switched_on)).took_to_end < PROMPT


def test_the_sdks_own_variables_are_obeyed(programs: Programs) -> None:
    """Sampler and limits as everywhere; what no release knows is left to the SDK."""
    programs.run('work("a")', FILE | {"OTEL_TRACES_SAMPLER": "always_off"})
    assert programs.file() == []
    programs.run('work("a")', FILE | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "1"})
    assert programs.file() == ["a"]


@pytest.mark.parametrize(
    "mistake",
    [
        {"OTEL_BSP_MAX_QUEUE_SIZE": "1"},
        {"OTEL_PYTHON_ID_GENERATOR": "nobodys"},
        {"OTEL_CONFIG_FILE": "nowhere.yaml"},
    ],
)
def test_a_mistake_in_the_variables_does_not_reach_the_application(
    mistake: dict[str, str], programs: Programs
) -> None:
    """It runs without telemetry, or with what the SDK makes of it."""
    ended = programs.run('work("a"); print("ran")', FILE | mistake)
    assert ended.returncode == 0
    assert ended.stdout == "ran\n"


def test_an_exporter_that_cannot_be_built_leaves_the_file(programs: Programs) -> None:
    """Here because its timeout is no number, which some releases forgive."""
    with refused_port() as receiver:
        ended = programs.run('work("a"); end()', otlp(receiver, OTEL_EXPORTER_OTLP_COMPRESSION="brotli"))
    assert ended.returncode == 0
    assert programs.file() == ["a"]


def test_a_disabled_sdk_is_not_set_up(programs: Programs) -> None:
    """No provider, no file, no thread."""
    source = 'import threading; work("a"); print(type(trace.get_tracer_provider()).__name__, threading.active_count())'
    assert programs.run(source, FILE | {"OTEL_SDK_DISABLED": "true"}).stdout == "ProxyTracerProvider 1\n"
    assert not programs.directory.exists()


@pytest.mark.parametrize(
    ("arguments", "env", "service"),
    [
        (["app.py"], {}, "app"),
        (["-m", "pkg.app"], {}, "pkg.app"),
        (["-c", "import app"], {}, "python"),
        (["app.py"], {"OTEL_SERVICE_NAME": "shop"}, "shop"),
        (["app.py"], {"OTEL_RESOURCE_ATTRIBUTES": "team=a,service.name=shop"}, "shop"),
    ],
)
def test_a_service_is_named_after_its_program_unless_the_user_names_it(
    arguments: list[str], env: dict[str, str], service: str, programs: Programs
) -> None:
    """The launcher runs before `sys.argv` is right."""
    programs.command('work("a")')
    (programs.folder / "pkg").mkdir()
    (programs.folder / "pkg" / "app.py").write_text(PRELUDE + 'work("a")', "utf-8")
    programs.run([LAUNCHER, sys.executable, *arguments], FILE | env)
    assert programs.services() == {service}


def test_from_code_the_same_is_set_up_but_never_over_what_the_application_has_set(programs: Programs) -> None:
    """`storescope.instrument()` in a program that the launcher did not start."""
    source = 'import storescope; storescope.instrument(); work("a"); storescope.instrument()'
    ended = programs.run(programs.command(source)[1:], FILE | {"STORESCOPE_VERBOSE": "1"})
    assert programs.file() == ["a"]
    assert len(ended.lines("storescope: ")) == 1
    own = (
        "from opentelemetry.sdk.trace import TracerProvider; mine = TracerProvider(); "
        "trace.set_tracer_provider(mine); import storescope; storescope.instrument(); work('b'); "
        "print(trace.get_tracer_provider() is mine)"
    )
    ended = programs.run(programs.command(own)[1:], FILE)
    assert (ended.stdout, ended.stderr) == ("True\n", "")
    assert programs.file() == ["a"]
    assert len(list(programs.directory.glob("metrics-*"))) == 2


# A receiver that takes it, and one that does not


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_gets_everything_and_no_file_is_written(protocol: str, programs: Programs) -> None:
    """Also what was queued when the program ended."""
    with http_receiver() if protocol != "grpc" else grpc_receiver() as receiver:
        ended = programs.run(f"work(*{names(1000)}); end()", otlp(receiver, protocol))
    assert sorted(receiver.spans) == sorted(names(1000))
    assert "calls" in receiver.metrics
    assert ended.stderr == ""
    assert not programs.directory.exists()


def test_a_slow_receiver_that_keeps_acknowledging_gets_everything(programs: Programs) -> None:
    """A full queue, at 300 ms a request: longer than the exit timeout, in which each request would fit."""
    with http_receiver(delay=0.3) as receiver:
        ended = programs.run(f"work(*{names(2048)}); end()", otlp(receiver))
    assert sorted(receiver.spans) == sorted(names(2048))
    assert ended.took_to_end > 1.2
    assert not programs.directory.exists()


def test_a_receiver_that_acknowledges_for_too_long_gets_no_more_time(programs: Programs) -> None:
    """What is left by then is in the file."""
    bounds = {"STORESCOPE_FLUSH_TIMEOUT": "0.9", "STORESCOPE_EXIT_TIMEOUT": "0.9"}
    with http_receiver(delay=0.5) as receiver:
        ended = programs.run(f"work(*{names(2048)}); end()", otlp(receiver, **bounds))
    assert ended.took_to_end < PROMPT
    assert 0 < len(receiver.spans) < 2048
    assert {*receiver.spans, *programs.file()} == set(names(2048))


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_receiver_of_traces_only_gets_them_and_the_metrics_go_to_the_file(
    protocol: str, programs: Programs
) -> None:
    """Plain Jaeger; one line says so, and none of the stock exporter's own."""
    with (
        http_receiver(lambda signal, earlier: 404 if signal == "metrics" else 200)
        if protocol != "grpc"
        else grpc_receiver(frozenset({"metrics"}))
    ) as receiver:
        source = 'work("a"); metrics.get_meter_provider().force_flush(); work("b")'
        ended = programs.run(source, otlp(receiver, protocol))
    assert sorted(receiver.spans) == ["a", "b"]
    assert receiver.requests.count("metrics") == 1
    assert programs.text("metrics-*.jsonl").count('"calls"') == 2
    assert programs.file() == []
    assert len(ended.stderr.splitlines()) == 1
    assert "takes no metrics" in ended.stderr


def test_a_receiver_that_comes_back_gets_what_it_missed(programs: Programs) -> None:
    """The stock exporter tries again, and nothing goes to the file meanwhile."""
    with http_receiver(lambda signal, earlier: 503 if earlier == 0 else 200) as receiver:
        programs.run('work("a"); trace.get_tracer_provider().force_flush(); work("b")', otlp(receiver))
    assert receiver.spans == ["a", "b"]
    assert programs.file() == []


def test_what_falls_into_a_long_outage_is_in_the_file_and_the_rest_arrives(programs: Programs) -> None:
    """Longer than the timeout, here one that the user set."""
    flush = "trace.get_tracer_provider().force_flush();"
    with http_receiver(lambda signal, earlier: 503 if earlier == 0 else 200) as receiver:
        programs.run(
            f'work("a"); {flush} work("b"); {flush}', otlp(receiver, OTEL_EXPORTER_OTLP_TIMEOUT="0.3")
        )
    assert receiver.spans == ["b"]
    assert programs.file() == ["a"]


# Exit


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("dead", [refused_port, hanging_receiver])
def test_where_nothing_gets_through_the_program_ends_within_a_second_and_all_is_in_the_file(
    dead: Any, protocol: str, programs: Programs
) -> None:
    """A port that refuses, and a receiver that accepts and hangs; several batches of spans, and metrics."""
    with dead() as receiver:
        ended = programs.run(f"work(*{names(1200)}); end()", otlp(receiver, protocol))
    assert ended.returncode == 0
    assert ended.took_to_end < PROMPT
    assert sorted(programs.file()) == sorted(names(1200))
    assert '"calls"' in programs.text("metrics-*.jsonl")
    assert len(ended.lines("kept in")) == 1
    assert ended.stderr.splitlines()[-1] == ended.lines("kept in")[0]
    assert "Traceback" not in ended.stderr


def test_exports_that_hang_already_when_the_program_ends_do_not_hold_it_up(programs: Programs) -> None:
    """Both signals are under way, and more is queued."""
    often = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_METRIC_EXPORT_INTERVAL": "50"}
    with hanging_receiver() as receiver:
        ended = programs.run('work("asked"); time.sleep(0.6); work("queued"); end()', otlp(receiver, **often))
    assert ended.took_to_end < PROMPT
    assert programs.file() == ["asked", "queued"]
    unconfirmed = [
        line for line in programs.text("*.jsonl").splitlines() if "storescope.export.unconfirmed" in line
    ]
    assert len(unconfirmed) == 2
    assert len(ended.lines("kept in")) == 1


def test_the_wait_at_exit_can_be_set(programs: Programs) -> None:
    """To nothing, for instance."""
    with hanging_receiver() as receiver:
        ended = programs.run('work("a"); end()', otlp(receiver, STORESCOPE_EXIT_TIMEOUT="0"))
    assert ended.took_to_end < 1
    assert programs.file() == ["a"]


def test_an_application_may_shut_its_providers_down_itself(programs: Programs) -> None:
    """Nothing is shut down twice, and a dead receiver delays that no more than the exit."""
    source = (
        'work("a"); end(); trace.get_tracer_provider().shutdown(); metrics.get_meter_provider().shutdown()'
    )
    with hanging_receiver() as receiver:
        ended = programs.run(source, otlp(receiver, STORESCOPE_EXIT_TIMEOUT="0.5"))
    assert ended.took_to_end < PROMPT
    assert programs.file() == ["a"]
    assert "shutdown" not in ended.stderr


def test_spans_of_the_applications_own_exit_hooks_are_exported(programs: Programs) -> None:
    """Hooks that it registered run before ours."""
    programs.run('atexit.register(work, "last"); work("a")', FILE)
    assert programs.file() == ["a", "last"]


#: Ctrl-C, also where whoever runs the tests in the background has it ignored.
INTERRUPT = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "os.kill(os.getpid(), signal.SIGINT); time.sleep(9)"
)


@pytest.mark.parametrize(
    ("ending", "returncode"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("raise RuntimeError('oops')", 1),
        (INTERRUPT, -signal.SIGINT),
    ],
)
def test_everything_finished_is_in_the_file_when_the_program_ends_by_itself(
    ending: str, returncode: int, programs: Programs
) -> None:
    """Normally, by `sys.exit`, by an exception, and by Ctrl-C; it ends as it would have."""
    ended = programs.run(f"work(*{names(1000)}); {ending}", FILE)
    assert ended.returncode == returncode
    assert sorted(programs.file()) == sorted(names(1000))


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL, "os._exit(0)"])
def test_what_finished_a_second_before_the_process_is_killed_is_in_the_file(
    ending: signal.Signals | str, programs: Programs
) -> None:
    """No signal handler is installed for that, and no exit hook runs."""
    finish = ending if isinstance(ending, str) else "time.sleep(9)"
    source = f"""
import signal
work(*{names(600)})
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
time.sleep(1); {finish}
"""
    with programs.start(source, FILE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        if isinstance(ending, signal.Signals):
            time.sleep(1)
            process.send_signal(ending)
        process.communicate(timeout=30)
    assert sorted(programs.file()) == sorted(names(600))


# The closing line


def test_the_closing_line_says_what_was_seen_and_where_it_is(programs: Programs) -> None:
    """On stderr, where the user asked for it."""
    ended = programs.run('work("a")', FILE | {"STORESCOPE_VERBOSE": "1"})
    (line,) = ended.stderr.splitlines()
    assert re.fullmatch(
        r"storescope: 0 operations, 0 errors; in telemetry/traces-\S+\.jsonl and telemetry/metrics-\S+\.jsonl; "
        r"to see them: storescope view",
        line,
    )
    assert ended.stdout == ""
    with http_receiver() as receiver:
        ended = programs.run('work("a")', otlp(receiver, STORESCOPE_VERBOSE="1"))
    assert ended.stderr == f"storescope: 0 operations, 0 errors; sent to {receiver.endpoint}\n"


def test_the_closing_line_counts_operations_and_errors(programs: Programs) -> None:
    """Those of the stores; other spans are none."""
    source = "from storescope.instrumentation.tally import tally; tally.read = lambda: (3, 1)"
    ended = programs.run(source, FILE | {"STORESCOPE_VERBOSE": "1"})
    assert ended.stderr == "storescope: 3 operations, 1 error\n"


@pytest.mark.parametrize(
    ("env", "expected"),
    [({}, True), ({"STORESCOPE_QUIET": "1"}, False), ({"STORESCOPE_ENABLED": "0"}, False)],
)
def test_the_closing_line_is_for_people(env: dict[str, str], expected: bool, programs: Programs) -> None:
    """It is printed on a terminal, unless the user wants quiet, or no agent."""
    leader, follower = pty.openpty()
    ended = programs.run('work("a")', FILE | env, stderr=follower)
    os.close(follower)
    try:
        printed = os.read(leader, 4096).decode()
    except OSError:
        printed = ""  # nothing was printed before the last one closed it
    os.close(leader)
    assert ended.returncode == 0
    assert ("storescope: 0 operations" in printed) is expected
    assert not programs.run('work("a")', FILE | env).stderr


def test_the_closing_line_does_not_depend_on_logging(programs: Programs) -> None:
    """Stores take away the root logger's handlers and level."""
    source = (
        "import logging; logging.root.handlers.clear(); logging.root.setLevel(1000); logging.disable(1000)"
    )
    assert programs.run(source, FILE | {"STORESCOPE_VERBOSE": "1"}).stderr.startswith(
        "storescope: 0 operations"
    )


@pytest.mark.parametrize(
    "broken", ["sys.stderr.close()", "sys.stderr = None", "os.close(2)", "os.close(2); os.dup2(unread, 2)"]
)
def test_a_broken_stderr_disturbs_nobody(broken: str, programs: Programs) -> None:
    """Closed, missing, or a pipe that nobody reads."""
    source = f"read, unread = os.pipe(); os.close(read); work('a'); {broken}"
    ended = programs.run(source, FILE | {"STORESCOPE_VERBOSE": "1"})
    assert ended.returncode == 0
    assert programs.file() == ["a"]


# Processes


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command that starts a Python program from an instrumented one, so that it is instrumented as well.

    Older launchers do not reach the programs that the application starts; these then start them by the launcher.
    """
    programs = Programs(tmp_path_factory.mktemp("launcher"))
    reached = programs.run("print('auto_instrumentation' in os.environ.get('PYTHONPATH', ''))", FILE)
    return [sys.executable] if reached.stdout == "True\n" else [LAUNCHER, sys.executable]


REPORT = "print(type(trace.get_tracer_provider()).__name__, flush=True)"


def test_a_server_that_the_program_spawned_stays_dormant(programs: Programs, interpreter: list[str]) -> None:
    """It inherits everything, the launcher's path too, and is talked to through its standard streams."""
    server = programs.folder / "server.py"
    server.write_text(PRELUDE + f"{REPORT}\nwork('served'); sys.stdin.read()", "utf-8")
    source = f"""
import subprocess
work("called")
server = subprocess.Popen([*{interpreter}, {str(server)!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
sys.stdout.write(server.communicate()[0].decode())
"""
    assert programs.run(source, FILE | {"OTEL_SERVICE_NAME": "shop"}).stdout == "ProxyTracerProvider\n"
    assert programs.file() == ["called"]
    light = "import sys; print([name for name in sys.modules if name.startswith('opentelemetry.sdk')])"
    server.write_text(f"{light}\nsys.stdin.read()", "utf-8")
    assert programs.run(source, FILE | {"OTEL_SERVICE_NAME": "shop"}).stdout == "[]\n"
    server.write_text(PRELUDE + f"{REPORT}\nwork('served'); sys.stdin.read()", "utf-8")
    awake = FILE | {"OTEL_SERVICE_NAME": "shop", "STORESCOPE_SERVERS": "on"}
    assert programs.run(source, awake).stdout == "TracerProvider\n"
    assert programs.services() == {"shop", "server"}


def test_a_dormant_server_loads_no_instrumentation_of_others_either(programs: Programs) -> None:
    """Our distribution decides for all of them."""
    source = """
from storescope.instrumentation.distro import StorescopeDistro
class Theirs:
    def load(self):
        print("loaded")
        return lambda: Theirs()
    def instrument(self, **kwargs):
        pass
StorescopeDistro().load_instrumentor(Theirs())
"""
    parent = {"STORESCOPE_PID": str(os.getpid())}
    assert programs.run(source, FILE | parent, stdin=subprocess.PIPE).stdout == ""
    assert programs.run(source, FILE | parent).stdout == "loaded\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_are_awake_and_lose_nothing(
    method: str, programs: Programs, interpreter: list[str]
) -> None:
    """Each start method, in a program whose own input and output are pipes; they end without exit hooks."""
    if LAUNCHER in interpreter and method != "fork":
        pytest.skip("this release of the launcher does not reach new interpreters")
    source = f"""
import multiprocessing, warnings
if __name__ == "__main__":
    warnings.simplefilter("ignore")
    context = multiprocessing.get_context({method!r})
    work("parent")
    child = context.Process(target=work, args=["child"])
    child.start()
    child.join()
    print(child.exitcode)
"""
    ended = programs.run(source, FILE, stdin=subprocess.PIPE)
    assert ended.stdout == "0\n"
    assert sorted(programs.file()) == ["child", "parent"]
    assert programs.services() == {"app"}


def test_a_program_that_the_application_runs_is_awake(programs: Programs, interpreter: list[str]) -> None:
    """By `subprocess.run`, with its output captured."""
    child = programs.folder / "child.py"
    child.write_text(PRELUDE + "work('child')", "utf-8")
    source = f"import subprocess; subprocess.run([*{interpreter}, {str(child)!r}], capture_output=True, check=True)"
    assert programs.run(source, FILE).returncode == 0
    assert programs.file() == ["child"]
    assert programs.services() == {"child"}


def test_the_application_itself_may_stand_in_a_shell_pipe(programs: Programs) -> None:
    """Pipes on both sides make no server of it: nobody has claimed it."""
    application = " ".join(programs.command("work(sys.stdin.read().strip()); print('out')"))
    ended = programs.run(["sh", "-c", f"echo in | {application} | cat"], FILE)
    assert ended.stdout == "out\n"
    assert programs.file() == ["in"]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_forked_child_exports_by_connections_of_its_own(protocol: str, programs: Programs) -> None:
    """It ends normally, so that its exit is bounded too; the parent's connection is not disturbed."""
    source = """
import warnings
warnings.simplefilter("ignore")
work("before"); trace.get_tracer_provider().force_flush()
child = os.fork()
if child == 0:
    work("child"); sys.exit()
os.waitpid(child, 0)
work("parent")
"""
    with http_receiver() if protocol != "grpc" else grpc_receiver() as receiver:
        ended = programs.run(source, otlp(receiver, protocol, STORESCOPE_VERBOSE="1"))
    assert ended.returncode == 0
    assert sorted(receiver.spans) == ["before", "child", "parent"]
    assert not programs.directory.exists()
    assert len(ended.lines("storescope: ")) == 1


def test_a_program_in_the_background_is_the_one_that_its_servers_belong_to(programs: Programs) -> None:
    """Going there by fork leaves the id of a process that ends."""
    source = """
import warnings
warnings.simplefilter("ignore")
child = os.fork()
if child:
    os.waitpid(child, 0)
else:
    print(os.environ["STORESCOPE_PID"] == str(os.getpid()))
"""
    assert programs.run(source, FILE).stdout == "True\n"


# Beside the official distribution

OFFICIAL = bool(entry_points(group="opentelemetry_distro", name="distro"))


@pytest.mark.skipif(not OFFICIAL, reason="opentelemetry-distro is not installed")
@pytest.mark.parametrize("distro", ["storescope", "distro", ""])
@pytest.mark.parametrize("configurator", ["storescope", "configurator", ""])
def test_beside_the_official_distribution_nothing_breaks(
    distro: str, configurator: str, programs: Programs
) -> None:
    """Whichever is picked, by the user or by the loader."""
    picked = {"OTEL_PYTHON_DISTRO": distro, "OTEL_PYTHON_CONFIGURATOR": configurator}
    env = {name: value for name, value in picked.items() if value}
    with grpc_receiver() as receiver:
        ended = programs.run(
            programs.command('work("a"); end()'), otlp(receiver, "grpc", OTEL_LOGS_EXPORTER="none", **env)
        )
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr
    if "storescope" in (distro, configurator) and distro != "storescope":
        assert receiver.spans == ["a"]


@pytest.mark.skipif(not OFFICIAL, reason="opentelemetry-distro is not installed")
def test_with_the_official_distributions_defaults_our_configurator_still_keeps_what_is_not_taken(
    programs: Programs,
) -> None:
    """It names OTLP over gRPC for everything, which counts as if the user had."""
    env = {"OTEL_PYTHON_DISTRO": "distro", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    with refused_port() as receiver:
        ended = programs.run('work("a"); end()', {**env, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint})
    assert ended.took_to_end < PROMPT
    assert programs.file() == ["a"]
