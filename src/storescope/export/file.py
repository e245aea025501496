"""Exporters that write telemetry into local OTLP/JSON files, one per signal and process."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from storescope import semconv
from storescope.export.directory import OpenFile, TelemetryDirectory
from storescope.export.otlp_json import encode_metrics, encode_spans
from storescope.settings import Settings

_log = logging.getLogger(__name__)

_UNCONFIRMED: Final = {semconv.EXPORT_UNCONFIRMED: True}

#: Every file of this process, for the children that it forks.
_files: weakref.WeakSet[SignalFile] = weakref.WeakSet()
#: Folders of which a warning has told already.
_warned: set[Path] = set()


class FileSpanExporter(SpanExporter):
    """Write spans to `traces-*.jsonl` in the folder of the settings (default: the environment's)."""

    def __init__(self, settings: Settings | None = None) -> None:
        self._file = SignalFile("traces", settings or Settings.from_env())

    @property
    def path(self) -> Path | None:
        """The file that was written last; None until one is."""
        return self._file.path

    def export(self, spans: Sequence[ReadableSpan], *, unconfirmed: bool = False) -> SpanExportResult:
        """Append the batch as one line. `unconfirmed` marks it as one that a server may have got as well."""
        done = self._file.append(lambda: encode_spans(spans, _extra(unconfirmed=unconfirmed)))
        return SpanExportResult.SUCCESS if done else SpanExportResult.FAILURE

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Return True: an exported batch is with the system already."""
        return True

    def shutdown(self) -> None:
        """Close the file; later batches are refused."""
        self._file.close()


class FileMetricExporter(MetricExporter):
    """Write metrics to `metrics-*.jsonl` in the folder of the settings (default: the environment's)."""

    def __init__(self, settings: Settings | None = None) -> None:
        super().__init__()
        self._file = SignalFile("metrics", settings or Settings.from_env())

    @property
    def path(self) -> Path | None:
        """The file that was written last; None until one is."""
        return self._file.path

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        *,
        unconfirmed: bool = False,
        **_kwargs: Any,
    ) -> MetricExportResult:
        """Append the batch as one line. `unconfirmed` marks it as one that a server may have got as well."""
        done = self._file.append(lambda: encode_metrics(metrics_data, _extra(unconfirmed=unconfirmed)))
        return MetricExportResult.SUCCESS if done else MetricExportResult.FAILURE

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Return True: an exported batch is with the system already."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **_kwargs: Any) -> None:
        """Close the file; later batches are refused."""
        self._file.close()


def _extra(*, unconfirmed: bool) -> Mapping[str, Any] | None:
    return _UNCONFIRMED if unconfirmed else None


class SignalFile:
    """The file that this process writes for one signal: begun anew when full or lost, and after a fork."""

    def __init__(self, signal: str, settings: Settings) -> None:
        self.path: Path | None = None
        self._signal = signal
        self._directory = TelemetryDirectory(settings.directory, settings.directory_max_bytes)
        # A quarter of the folder at most, so that there is something to remove while this file grows.
        self._max_bytes = min(settings.file_max_bytes, settings.directory_max_bytes // 4)
        self._lock = threading.Lock()
        self._closed = False
        self._file: OpenFile | None = None
        #: Bytes that may be written before the folder is measured again.
        self._allowance = 0
        _files.add(self)

    def __repr__(self) -> str:
        return f"SignalFile({self._signal!r}, path={str(self.path)!r}, closed={self._closed})"

    def append(self, encode: Callable[[], str]) -> bool:
        """Write what `encode` returns as one line. Where that fails, return False, and warn once."""
        try:
            line = encode().encode() + b"\n"
            with self._lock:
                if self._closed:
                    return False
                file = self._prepare(len(line))
                self._write(file, line)
                self.path = file.path
        except Exception as error:  # telemetry never breaks the application
            _warn_once(self._directory.path, error)
            return False
        return True

    def close(self) -> None:
        """Close the file and write no other."""
        with self._lock:
            self._closed = True
            self._release()

    def renew(self) -> None:
        """Leave the parent's file to the parent after a fork, and its lock, which another thread may hold."""
        self._lock = threading.Lock()
        self._release()
        self.path = None

    def _prepare(self, length: int) -> OpenFile:
        """Return a file that takes `length` more bytes, and room for them in the folder."""
        if self._file is not None and not self._fits(self._file, length):
            self._release()
        if self._file is None:
            self._file = self._directory.create_file(self._signal)
            self._allowance = 0
        if self._allowance < length:
            self._allowance = self._directory.make_room(length, self._file.path)
        return self._file

    def _fits(self, file: OpenFile, length: int) -> bool:
        # It may be gone, alone or with its folder, and what is written then is lost. A line that is too long
        # for any file has one for itself.
        size = os.fstat(file.descriptor).st_size
        return os.path.lexists(file.path) and (size == 0 or size + length <= self._max_bytes)

    def _write(self, file: OpenFile, line: bytes) -> None:
        """Append a line whole, or not at all: a disk that fills up takes a part of it."""
        whole = os.fstat(file.descriptor).st_size
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(file.descriptor, rest) :]
        except BaseException:
            try:
                os.ftruncate(file.descriptor, whole)
            except OSError:
                self._release()
            raise
        self._allowance -= len(line)

    def _release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.close(self._file.descriptor)
            self._file = None


def _warn_once(directory: Path, error: Exception) -> None:
    if directory not in _warned:
        _warned.add(directory)
        _log.warning("telemetry is not written to %s: %s", directory, error)


def _renew_files() -> None:
    for file in list(_files):
        file.renew()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_renew_files)
