"""The local file where several processes write, or one dies or forks: real processes, each with its file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from unit.telemetry_files import KIB, batch, files_in, names_in, total_size

from storescope.export import FileSpanExporter
from storescope.settings import Settings

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither fork nor rlimits")

PROLOGUE = """
import os, signal, sys, threading
from pathlib import Path
from opentelemetry.sdk.trace.export import SpanExportResult
from storescope.export import FileSpanExporter
from storescope.settings import Settings
from unit.telemetry_files import KIB, batch

SUCCESS = SpanExportResult.SUCCESS
folder = Path(sys.argv[1])
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "telemetry"


def run(program: str, folder: Path) -> subprocess.Popen[str]:
    """Start a Python program that has an exporter and batches at hand."""
    source = PROLOGUE + textwrap.dedent(program)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", source, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for a program and return what it printed; it must have ended well."""
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return output


@needs_posix
def test_many_processes_share_the_folder(folder: Path) -> None:
    """None of them fails, all lines are whole, and together they stay within the size."""
    program = """
        exporter = FileSpanExporter(Settings(directory=folder, directory_max_bytes=1024 * KIB))
        assert all(exporter.export(batch(size=10 * KIB)) is SUCCESS for _ in range(100))
    """
    for process in [run(program, folder) for _ in range(4)]:
        assert finish(process) == ""
    assert len(names_in(*files_in(folder))) > 50
    assert total_size(folder) <= 1024 * KIB


def test_a_killed_process_leaves_one_torn_line_at_most(folder: Path) -> None:
    """Its other lines can be read, and so can everybody else's."""
    program = """
        exporter = FileSpanExporter(Settings(directory=folder))
        while exporter.export(batch("killed", 300 * KIB)) is SUCCESS:
            pass
    """
    exporter = FileSpanExporter(Settings(directory=folder))
    exporter.export(batch("mine"))
    exporter.shutdown()
    process = run(program, folder)
    deadline = time.monotonic() + 30
    while total_size(folder) < 5_000 * KIB and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    mine, theirs = files_in(folder)
    assert names_in(mine) == ["mine"]
    *whole, torn = theirs.read_text("ascii").split("\n")
    assert len(whole) >= 10
    assert all(json.loads(line) for line in whole)
    assert len(torn) < 310 * KIB


@needs_posix
def test_a_forked_child_writes_a_file_of_its_own(folder: Path) -> None:
    """Even when the parent's threads are writing at that moment, neither waits for the other's lock."""
    program = """
        exporter = FileSpanExporter(Settings(directory=folder))
        done = threading.Event()

        def write():
            while not done.is_set():
                assert exporter.export(batch("parent", 100 * KIB)) is SUCCESS

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        for _ in range(10):
            if not (child := os.fork()):
                signal.alarm(20)
                os._exit(0 if exporter.path is None and exporter.export(batch("child")) is SUCCESS else 1)
            assert os.waitpid(child, 0)[1] == 0
        done.set()
        for writer in writers:
            writer.join()
        assert exporter.export(batch("last")) is SUCCESS
        print(os.getpid())
    """
    pid = finish(run(program, folder)).strip()
    parents = [file for file in files_in(folder) if f"-{pid}-" in file.name]
    children = [file for file in files_in(folder) if file not in parents]
    assert [names_in(file) for file in children] == [["child"]] * 10
    assert names_in(*parents)[-1] == "last"
    assert set(names_in(*parents)) == {"parent", "last"}


@needs_posix
def test_a_disk_that_fills_up_in_the_middle_of_a_line_leaves_whole_lines(folder: Path) -> None:
    """What was written of a line is taken back; the next one, when there is room again, stands by itself."""
    program = """
        import resource
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        exporter = FileSpanExporter(Settings(directory=folder))
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (50 * KIB, hard))  # a write gets so far, then an error
        print([exporter.export(batch(name, 20 * KIB)).name for name in ("one", "two", "torn", "torn")])
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        print(exporter.export(batch("after", 20 * KIB)).name)
    """
    process = run(program, folder)
    output, errors = process.communicate(timeout=60)
    assert output.split("\n")[:2] == ["['SUCCESS', 'SUCCESS', 'FAILURE', 'FAILURE']", "SUCCESS"]
    assert errors.count("\n") == 1
    assert str(folder) in errors
    (file,) = files_in(folder)
    assert names_in(file) == ["one", "two", "after"]
