"""The local file: private, whole line by line, within its sizes, and never a danger to the program."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExportResult, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from unit.telemetry_files import KIB, batch, files_in, names_in, some_metrics, total_size

from storescope.export import FileMetricExporter, FileSpanExporter
from storescope.settings import Settings

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither modes nor plain links")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "telemetry"


@pytest.fixture
def exporter(folder: Path) -> Iterator[FileSpanExporter]:
    exporter = FileSpanExporter(Settings(directory=folder))
    yield exporter
    exporter.shutdown()


def test_each_batch_is_one_line_of_the_process_s_own_file(exporter: FileSpanExporter, folder: Path) -> None:
    """Batches are appended to one file, in order, and `path` names it."""
    assert exporter.path is None
    for name in ("one", "two", "three"):
        assert exporter.export(batch(name)) is SUCCESS
    assert [exporter.path] == files_in(folder)
    assert names_in(*files_in(folder)) == ["one", "two", "three"]
    assert re.fullmatch(
        rf"traces-\d{{8}}T\d{{6}}\.\d{{6}}Z-{os.getpid()}-\d+\.jsonl", files_in(folder)[0].name
    )


def test_the_sdk_s_processors_write_both_signals_through_it(folder: Path) -> None:
    """Behind a batch processor and a periodic reader, spans and metrics each get a file."""
    settings = Settings(directory=folder)
    tracing = TracerProvider()
    tracing.add_span_processor(BatchSpanProcessor(FileSpanExporter(settings)))
    with tracing.get_tracer("test").start_as_current_span("tools/list"):
        pass
    tracing.shutdown()
    metering = MeterProvider([PeriodicExportingMetricReader(FileMetricExporter(settings))])
    metering.get_meter("test").create_counter("calls").add(1)
    metering.shutdown()
    metrics, traces = files_in(folder)
    assert names_in(traces) == ["tools/list"]
    line = json.loads(metrics.read_text("ascii"))
    assert line["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]["name"] == "calls"


@pytest.mark.parametrize(
    ("signal_name", "exporter_class"), [("traces", FileSpanExporter), ("metrics", FileMetricExporter)]
)
def test_the_exporters_can_be_named_in_the_environment(
    signal_name: str, exporter_class: type, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_TRACES_EXPORTER=storescope_file` finds ours, which reads its folder from the environment."""
    monkeypatch.setenv("STORESCOPE_DIR", str(folder))
    (found,) = entry_points(group=f"opentelemetry_{signal_name}_exporter", name="storescope_file")
    exporter = found.load()()
    assert type(exporter) is exporter_class
    exporter.export(batch() if signal_name == "traces" else some_metrics())
    assert exporter.path.parent == folder
    exporter.shutdown()


def test_an_unconfirmed_batch_is_marked_on_its_resource(folder: Path) -> None:
    """A reader can tell the batches that a server may have got as well, of both signals."""
    spans, metrics = (
        FileSpanExporter(Settings(directory=folder)),
        FileMetricExporter(Settings(directory=folder)),
    )
    spans.export(batch(), unconfirmed=True)
    spans.export(batch())
    metrics.export(some_metrics(), unconfirmed=True)
    mark = {"key": "storescope.export.unconfirmed", "value": {"boolValue": True}}
    metric_file, span_file = files_in(folder)
    first, second = map(json.loads, span_file.read_text().splitlines())
    assert mark in first["resourceSpans"][0]["resource"]["attributes"]
    assert mark not in second["resourceSpans"][0]["resource"]["attributes"]
    assert mark in json.loads(metric_file.read_text())["resourceMetrics"][0]["resource"]["attributes"]
    spans.shutdown()
    metrics.shutdown()


@needs_posix
def test_the_folder_is_private_and_hidden_from_git(exporter: FileSpanExporter, folder: Path) -> None:
    """Whatever the umask, only the user reads the telemetry, and git does not see it."""
    before = os.umask(0)
    try:
        exporter.export(batch())
    finally:
        os.umask(before)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (folder, *folder.iterdir())}
    assert modes.pop("telemetry") == 0o700
    assert set(modes.values()) == {0o600}
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_folder_that_holds_other_things_is_left_as_it_is(exporter: FileSpanExporter, folder: Path) -> None:
    """`STORESCOPE_DIR=.` must not hide a whole project from git."""
    folder.mkdir()
    (folder / "app.py").touch()
    assert exporter.export(batch()) is SUCCESS
    assert not (folder / ".gitignore").exists()


@needs_posix
def test_a_link_in_the_folder_s_place_is_not_followed(
    exporter: FileSpanExporter, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is written to where the link leads, and the warning says why."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    folder.symlink_to(target)
    assert exporter.export(batch()) is FAILURE
    assert list(target.iterdir()) == []
    assert "is a symbolic link" in caplog.text


def test_a_full_file_is_followed_by_the_next(folder: Path) -> None:
    """No file grows beyond its size, no batch is lost, and the names sort by age."""
    exporter = FileSpanExporter(Settings(directory=folder, file_max_bytes=64 * KIB))
    names = [f"call-{n}" for n in range(20)]
    for name in names:
        assert exporter.export(batch(name, 10 * KIB)) is SUCCESS
    exporter.shutdown()
    assert len(files_in(folder)) == 4
    assert all(file.stat().st_size <= 64 * KIB for file in files_in(folder))
    assert names_in(*files_in(folder)) == names


def test_a_line_too_long_for_any_file_gets_one_for_itself(folder: Path) -> None:
    """A batch is never split or refused for being larger than a file."""
    exporter = FileSpanExporter(Settings(directory=folder, file_max_bytes=64 * KIB))
    for name, size in (("before", 0), ("large", 200 * KIB), ("after", 0)):
        assert exporter.export(batch(name, size)) is SUCCESS
    exporter.shutdown()
    assert [names_in(file) for file in files_in(folder)] == [["before"], ["large"], ["after"]]


def test_the_folder_stays_within_its_size_and_loses_the_oldest(folder: Path) -> None:
    """After every batch the files fit, the newest batch is there, and what is left has no gaps."""
    exporter = FileSpanExporter(Settings(directory=folder, directory_max_bytes=256 * KIB))
    names = [f"call-{n}" for n in range(100)]
    for name in names:
        assert exporter.export(batch(name, 10 * KIB)) is SUCCESS
        assert total_size(folder) <= 256 * KIB
    exporter.shutdown()
    kept = names_in(*files_in(folder))
    assert 15 <= len(kept) <= 25
    assert kept == names[-len(kept) :]


def test_files_that_grow_side_by_side_stay_within_the_size_together(folder: Path) -> None:
    """Each looks at the folder often enough to see what the others write meanwhile."""
    settings = Settings(directory=folder, directory_max_bytes=256 * KIB)
    exporters = [FileSpanExporter(settings) for _ in range(3)]
    for _ in range(500):
        for exporter in exporters:
            assert exporter.export(batch(size=KIB // 2)) is SUCCESS
        assert total_size(folder) <= 256 * KIB
    for exporter in exporters:
        exporter.shutdown()


def test_a_batch_larger_than_the_folder_removes_nothing(folder: Path) -> None:
    """It is refused before older files make room that would not be enough."""
    exporter = FileSpanExporter(Settings(directory=folder, directory_max_bytes=64 * KIB))
    assert exporter.export(batch("kept")) is SUCCESS
    assert exporter.export(batch("large", 70 * KIB)) is FAILURE
    assert exporter.export(batch("next")) is SUCCESS
    exporter.shutdown()
    assert names_in(*files_in(folder)) == ["kept", "next"]


@needs_posix
def test_only_files_of_ours_make_room(folder: Path, tmp_path: Path) -> None:
    """Other files, and links that bear a name like ours, are neither counted nor removed."""
    folder.mkdir()
    theirs = [folder / "traces-mine.jsonl", tmp_path / "outside"]
    for file in theirs:
        file.write_bytes(b"x" * 100 * KIB)
    link = folder / "traces-20200101T000000.000000Z-1-1.jsonl"
    link.symlink_to(theirs[1])
    exporter = FileSpanExporter(Settings(directory=folder, directory_max_bytes=64 * KIB))
    for _ in range(20):
        assert exporter.export(batch(size=10 * KIB)) is SUCCESS
    exporter.shutdown()
    assert all(file.stat().st_size == 100 * KIB for file in theirs)
    assert link.is_symlink()


@needs_posix
def test_a_file_still_written_goes_only_when_nothing_else_can(folder: Path) -> None:
    """A quiet process keeps its file while old ones are left; when it loses it, it begins another."""
    quiet, old, busy = (
        FileSpanExporter(Settings(directory=folder, directory_max_bytes=limit * KIB))
        for limit in (256, 256, 128)
    )
    quiet.export(batch("quiet", 30 * KIB))
    old.export(batch("old", 30 * KIB))
    old.shutdown()
    assert quiet.path is not None
    assert old.path is not None
    os.utime(quiet.path, (1, 1))  # written longest ago

    for _ in range(2):
        busy.export(batch("busy", 30 * KIB))
    assert not old.path.exists()
    assert quiet.path.exists()

    others = [FileSpanExporter(Settings(directory=folder, directory_max_bytes=128 * KIB)) for _ in range(3)]
    for other in others:
        assert other.export(batch("other", 30 * KIB)) is SUCCESS
    assert not quiet.path.exists()
    assert quiet.export(batch("again")) is SUCCESS
    assert names_in(quiet.path) == ["again"]
    for exporter in (quiet, busy, *others):
        exporter.shutdown()


def test_a_process_never_removes_the_file_that_it_writes(folder: Path) -> None:
    """Not even where it was written longest ago and nothing but a busy process's file can go instead."""
    own, other = (
        FileSpanExporter(Settings(directory=folder, directory_max_bytes=128 * KIB)) for _ in range(2)
    )
    own.export(batch("first"))
    other.export(batch("other", 100 * KIB))
    assert own.path is not None
    os.utime(own.path, (1, 1))
    assert own.export(batch("second", 20 * KIB)) is SUCCESS
    assert names_in(own.path) == ["first", "second"]
    own.shutdown()
    other.shutdown()


def test_threads_do_not_mix_their_lines(exporter: FileSpanExporter, folder: Path) -> None:
    """Batches that are exported at once each come out whole."""

    def write(name: str) -> None:
        for _ in range(20):
            exporter.export(batch(name, 50 * KIB))

    threads = [threading.Thread(target=write, args=(f"thread-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names_in(*files_in(folder))) == sorted(f"thread-{n}" for n in range(4) for _ in range(20))


def test_a_folder_that_cannot_be_made_is_warned_of_once(
    folder: Path, exporter: FileSpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    """Both signals fail and say so in one line; they recover as soon as the folder can be made."""
    metrics = FileMetricExporter(Settings(directory=folder))
    folder.write_text("in the way")
    for _ in range(3):
        assert exporter.export(batch()) is FAILURE
        assert metrics.export(some_metrics()) is MetricExportResult.FAILURE
    (record,) = [record for record in caplog.records if record.name.startswith("storescope")]
    assert record.levelno == logging.WARNING
    assert str(folder) in record.getMessage()
    assert "directory" in record.getMessage().lower()
    folder.unlink()
    assert exporter.export(batch("after")) is SUCCESS
    assert metrics.export(some_metrics()) is MetricExportResult.SUCCESS
    metrics.shutdown()


@needs_posix
def test_a_lost_file_or_folder_is_made_again(exporter: FileSpanExporter, folder: Path) -> None:
    """Telemetry goes on in a new file when the old one was deleted, alone or with its folder."""
    exporter.export(batch("one"))
    files_in(folder)[0].unlink()
    assert exporter.export(batch("two")) is SUCCESS
    assert names_in(*files_in(folder)) == ["two"]
    shutil.rmtree(folder)
    assert exporter.export(batch("three")) is SUCCESS
    assert names_in(*files_in(folder)) == ["three"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_after_shutdown_batches_are_refused(exporter: FileSpanExporter, folder: Path) -> None:
    """Shutdown may be called twice; what was written stays, and flushing has nothing to wait for."""
    assert exporter.export(batch("kept")) is SUCCESS
    assert exporter.force_flush() is True
    exporter.shutdown()
    exporter.shutdown()
    assert exporter.export(batch("late")) is FAILURE
    assert names_in(*files_in(folder)) == ["kept"]
    assert exporter.path == files_in(folder)[0]


def test_a_metric_exporter_has_the_sdk_s_defaults(folder: Path) -> None:
    """Temporality and aggregation are what the SDK chooses, and shutdown refuses what comes later."""
    exporter = FileMetricExporter(Settings(directory=folder))
    reader = PeriodicExportingMetricReader(exporter)
    provider = MeterProvider([reader])
    provider.get_meter("test").create_histogram("duration").record(1)
    provider.shutdown()
    (metric,) = json.loads(files_in(folder)[0].read_text())["resourceMetrics"][0]["scopeMetrics"][0][
        "metrics"
    ]
    assert metric["histogram"]["aggregationTemporality"] == 2
    assert len(metric["histogram"]["dataPoints"][0]["explicitBounds"]) == 15
    assert exporter.export(some_metrics()) is MetricExportResult.FAILURE
    assert exporter.force_flush() is True
