"""Programs of several processes, each with a store of its own: multiprocessing and gunicorn."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from integration.anystore import SET_UP
from integration.harness import Runner, Span, named, read_spans
from receivers import hanging_receiver

pytestmark = [
    pytest.mark.anystore,
    pytest.mark.skipif(
        sys.platform == "win32", reason="this system has no fork, and gunicorn does not run on it"
    ),
]

#: A child's own end to the end of its process, in seconds, on a busy machine; see `test_export.py`.
PROMPT = 4.0

LAUNCHER = Path(sys.executable).with_name("opentelemetry-instrument")


def calls(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.name == "tools/call echo"]


def counts(directory: Path) -> list[int]:
    """Return how many requests each process has counted, by the last line of its file."""
    last = [path.read_text("utf-8").splitlines()[-1] for path in directory.glob("metrics-*.jsonl")]
    found = [re.search(r'"mcp\.client\.operation\.duration".*?"count":"(\d+)"', line) for line in last]
    return [int(match[1]) for match in found if match]


#: A process, a pool's worker and an executor's worker at the same time, each with its own store.
CHILDREN = f"""{SET_UP}
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from opentelemetry import trace

def work(name):
    set_up(name).call_tool("lab_echo", {{"text": name}})
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with trace.get_tracer("application").start_as_current_span("all of them"):
        process = context.Process(target=work, args=["process.json"])
        process.start()
        pool = context.Pool(1)
        executor = ProcessPoolExecutor(1, context)
        results = [pool.apply_async(work, ["pool.json"]), executor.submit(work, "executor.json")]
        process.join()
        results[0].get()
        results[1].result()
    pool.close()
    pool.join()
    executor.shutdown()
    print(process.exitcode)
"""


@pytest.mark.parametrize(
    "method",
    [
        "fork",
        # One generation is enough to tell how new interpreters begin and end; 1.5.18 takes seconds to import in each.
        pytest.param("spawn", marks=pytest.mark.mcpstore2),
        pytest.param("forkserver", marks=pytest.mark.mcpstore2),
    ],
)
def test_children_of_multiprocessing_are_observed_once_each(method: str, runner: Runner) -> None:
    """`Process`, `Pool` and `ProcessPoolExecutor`: every span and record is there, at its end, and none twice.

    A forked child goes on with the trace that it was forked in; what a new interpreter does is a trace of its own.
    """
    finished = runner.run(CHILDREN, method, timeout=40, attempts=2).check()

    assert finished.stdout == "0\n"
    spans = finished.spans()
    if method != "fork" and not calls(spans):
        pytest.skip("this release of the launcher does not reach new interpreters")
    outermost = named(spans, "all of them")
    assert len(calls(spans)) == len({span.span_id for span in calls(spans)}) == 3
    assert {span.parent_id for span in calls(spans)} == {outermost.span_id if method == "fork" else ""}
    assert {span.resource["service.name"] for span in spans} == {"app"}
    assert sorted(counts(finished.directory)) == [1, 1, 1]
    assert "forked" not in finished.stderr


UNFINISHED = f"""{SET_UP}
import multiprocessing

def work():
    store = set_up()
    threading.Thread(target=store.call_tool, args=("lab_sleep", {{"seconds": 9}}), daemon=True).start()
    time.sleep(0.3)

process = multiprocessing.get_context("fork").Process(target=work)
process.start()
process.join()
print(process.exitcode)
"""


@pytest.mark.mcpstore2
def test_a_call_that_hangs_when_a_child_of_multiprocessing_ends_is_seen(runner: Runner) -> None:
    """Such a child ends without exit hooks; what it was in the middle of is closed all the same."""
    finished = runner.run(UNFINISHED, timeout=30, attempts=2).check()

    assert finished.stdout == "0\n"
    (call,) = [span for span in finished.spans() if span.name.startswith("tools/call")]
    assert call.attributes["error.type"] == "storescope.unfinished"


FORKED_DURING_EXPORTS = """
import os, sys, time, warnings
warnings.simplefilter("ignore")
from opentelemetry import metrics, trace

def work(name):
    with trace.get_tracer("test").start_as_current_span(name):
        metrics.get_meter("test").create_counter("calls").add(1)

work("parent")
time.sleep(0.5)
child = os.fork()
if child == 0:
    work("child")
    sys.exit()
began = time.monotonic()
os.waitpid(child, 0)
print(time.monotonic() - began)
"""


def test_a_child_that_is_forked_during_exports_ends_promptly(runner: Runner) -> None:
    """Its parent's exports, which hang, are not waited for in the child; what both recorded is in the files."""
    with hanging_receiver() as receiver:
        env = {
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "otlp",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_METRIC_EXPORT_INTERVAL": "50",
        }
        finished = runner.run(FORKED_DURING_EXPORTS, env=env).check()

    assert float(finished.stdout) < PROMPT
    assert sorted(span.name for span in finished.spans()) == ["child", "parent"]
    assert len(list(finished.directory.glob("metrics-*.jsonl"))) == 2


#: An application that sets its store up with its first request.
IN_WORKERS = f"""{SET_UP}
store = None

def app(environ, start_response):
    global store
    if store is None:
        store = set_up(f"{{os.getpid()}}.json")
    store.call_tool("lab_echo", {{"text": "hi"}})
    start_response("200 OK", [])
    time.sleep(0.1)
    return [str(os.getpid()).encode()]
"""

#: One that has set its store up before gunicorn forks its workers.
BEFORE_FORK = IN_WORKERS.replace("store = None\n", "store = set_up()\nstore.call_tool('lab_echo', {})\n")


@contextmanager
def gunicorn(runner: Runner, source: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Serve an application by two preloaded workers under the launcher; hand out gunicorn and where it listens."""
    (runner.folder / "shop.py").write_text(source, "utf-8")
    command = [str(LAUNCHER), sys.executable, "-m", "gunicorn", "shop:app", "--preload", "--workers=2"]
    command += ["--bind=127.0.0.1:0", "--graceful-timeout=1"]
    with subprocess.Popen(
        command,
        cwd=runner.folder,
        env=runner.environment(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stderr is not None
        try:
            url = next(
                match[1] for line in server.stderr if (match := re.search(r"Listening at: (\S+)", line))
            )
            yield server, url
        finally:
            if server.poll() is None:
                os.killpg(server.pid, signal.SIGKILL)


def ask(url: str, answers: list[int]) -> None:
    with urlopen(url, timeout=30) as response:
        answers.append(int(response.read()))


def ask_in_vain(url: str) -> None:
    with contextlib.suppress(OSError):
        ask(url, [])


def test_workers_of_gunicorn_are_observed(runner: Runner) -> None:
    """Preloaded: each worker's spans and records arrive, also those of the moment before a graceful stop."""
    with gunicorn(runner, IN_WORKERS) as (server, url):
        answers: list[int] = []
        while len(set(answers)) < 2:
            threads = [threading.Thread(target=ask, args=(url, answers)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        server.terminate()
        _, stderr = server.communicate(timeout=30)

    assert server.returncode == 0
    assert len(calls(read_spans(runner.directory))) == len(answers)
    assert sum(counts(runner.directory)) == len(answers)
    for worker in set(answers):
        assert list(runner.directory.glob(f"traces-*-{worker}-*.jsonl"))
    assert {span.resource["service.name"] for span in read_spans(runner.directory)} == {"gunicorn"}
    assert "storescope: " not in stderr


def test_a_store_that_gunicorn_preloaded_is_warned_about(runner: Runner) -> None:
    """It was set up before the workers were forked: one line says, before the call hangs, that it cannot work."""
    with gunicorn(runner, BEFORE_FORK) as (server, url):
        asking = threading.Thread(target=ask_in_vain, args=(url,))
        asking.start()
        assert server.stderr is not None
        line = next(line for line in server.stderr if "storescope: " in line)
        assert re.match(
            r"storescope: a store is used in process \d+, which was forked after one had been set up", line
        )
        os.killpg(server.pid, signal.SIGKILL)
        assert "storescope: " not in server.communicate(timeout=30)[1]
        asking.join()
