"""The key of digests, and the file in which processes share it."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.telemetry_files import KIB, batch, files_in

from storescope.export import FileSpanExporter
from storescope.export.digest_key import FILE_NAME, digest_key
from storescope.settings import Settings

needs_posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other permissions and links")

PROGRAM = """
import sys
from pathlib import Path
from storescope.export.digest_key import digest_key
from storescope.settings import Settings

print("ready", flush=True)
sys.stdin.readline()
for number in range(100):
    print(digest_key(Settings(directory=Path(sys.argv[1], str(number)))).hex())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "above" / "telemetry"


def key_of(folder: Path, text: str | None = None) -> bytes:
    return digest_key(Settings(directory=folder, digest_key=text))


def test_the_users_key_is_used_and_nothing_is_written(folder: Path) -> None:
    """The same text gives the same key on every machine, another text another key."""
    assert key_of(folder, "shared") == key_of(folder / "elsewhere", "shared")
    assert key_of(folder, "shared") != key_of(folder, "Shared")
    assert len(key_of(folder, "\udcff🙂")) == 32
    assert not folder.parent.exists()


@needs_posix
def test_a_random_key_is_kept_in_a_private_file(folder: Path) -> None:
    """32 bytes that nobody else can read, in a private folder which git leaves out; no draft stays."""
    key = key_of(folder)

    assert len(key) == 32
    assert (folder / FILE_NAME).read_bytes() == key
    assert stat.S_IMODE((folder / FILE_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"
    assert {path.name for path in folder.iterdir()} == {".gitignore", FILE_NAME}


def test_later_runs_get_the_same_key(folder: Path, tmp_path: Path) -> None:
    """Before and after can be compared; another folder has another key."""
    assert key_of(folder) == key_of(folder)
    assert key_of(folder) != key_of(tmp_path / "other")


def test_processes_that_start_at_once_share_one_key(folder: Path) -> None:
    """Whichever of them made the file, all have what it holds: tried with 100 folders, one after the other."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    kept = [process.communicate(timeout=60)[0].split() for process in processes]

    for number, keys in enumerate(zip(*kept, strict=True)):
        assert set(keys) == {(folder / str(number) / FILE_NAME).read_bytes().hex()}
        assert {path.name for path in (folder / str(number)).iterdir()} == {".gitignore", FILE_NAME}


def test_the_size_of_the_folder_does_not_cost_the_key(folder: Path) -> None:
    """What makes room for telemetry removes telemetry only."""
    key = key_of(folder)
    (folder / FILE_NAME).touch()
    os.utime(folder / FILE_NAME, (0, 0))  # older than everything
    settings = Settings(directory=folder, directory_max_bytes=64 * KIB)
    for _ in range(20):
        exporter = FileSpanExporter(settings)
        exporter.export(batch(size=10 * KIB))
        exporter.shutdown()

    assert len(files_in(folder)) < 10
    assert key_of(folder) == key


KEPT = b"x" * 32

#: What makes a folder, in which no key can be kept, of an empty one and the path of its key.
UNUSABLE: dict[str, Callable[[Path, Path], object]] = {
    "a file for a folder": lambda folder, _: (folder.rmdir(), folder.write_text("")),
    "a linked folder": lambda folder, _: folder.symlink_to(folder.rename(folder.with_name("real"))),
    "torn": lambda _, file: file.write_bytes(KEPT[:-1]),
    "empty": lambda _, file: file.write_bytes(b""),
    "too long": lambda _, file: file.write_bytes(KEPT + b"x"),
    "huge": lambda _, file: file.write_bytes(KEPT * 100_000),
    "a folder for a file": lambda _, file: file.mkdir(),
    "a link": lambda folder, file: file.symlink_to(written(folder.with_name("real"))),
    "a pipe": lambda _, file: os.mkfifo(file),
    "unreadable": lambda _, file: written(file).chmod(0),
    "unwritable": lambda folder, _: folder.chmod(0o500),
}


def written(file: Path) -> Path:
    file.write_bytes(KEPT)
    return file


@needs_posix
@pytest.mark.parametrize("kind", UNUSABLE)
def test_where_no_key_can_be_kept_there_is_one_for_this_process(
    folder: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A random one, and one line in the log names the file; what stands in the way is left as it is."""
    if kind in {"unreadable", "unwritable"} and os.geteuid() == 0:
        pytest.skip("root may read and write everything")
    folder.mkdir(parents=True)
    UNUSABLE[kind](folder, folder / FILE_NAME)
    before = list(folder.parent.rglob("*"))
    with caplog.at_level(logging.INFO, logger="storescope"):
        key = key_of(folder)
    (record,) = caplog.records

    assert len(key) == 32
    assert key != KEPT
    assert str(folder / FILE_NAME) in record.getMessage()
    assert list(folder.parent.rglob("*")) == before


def test_a_path_that_cannot_be_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    """A null character in it is said, like all else."""
    with caplog.at_level(logging.INFO, logger="storescope"):
        assert len(key_of(Path("/a\0b"))) == 32
    assert len(caplog.records) == 1
