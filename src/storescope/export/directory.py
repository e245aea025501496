"""The folder of local telemetry files: private, entered without following links, kept within a size.

Which file goes when the folder is full: of those that no process is writing any more, the one written longest
ago. Only when none is left, the one written longest ago of another process, which then begins a new one. A
process never removes the file that it writes itself, and never a file that storescope has not named.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, NamedTuple

_OURS: Final = re.compile(r"(traces|metrics)-\d{8}T\d{6}\.\d{6}Z-\d+-\d+\.jsonl")
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
#: Flags that not every platform has: never follow a link, never translate line ends.
_SAFELY: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
#: A pipe that stands where a file should must not keep us waiting.
_AT_ONCE: Final = getattr(os, "O_NONBLOCK", 0)
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_DIRECTORY", 0)
_HAS_DIR_FD: Final = os.open in os.supports_dir_fd and os.scandir in os.supports_fd

#: Part of the budget that is left free for what other processes write between two looks at the folder.
_RESERVE: Final = 8
#: Part of the budget that a process may write before it has to look again.
_STEP: Final = 256

_sequence = itertools.count(1)

# A file is claimed for as long as a process writes it. The kernel drops the claim when the process ends, in
# whatever way: no dead process looks alive, as one might by its id.
if sys.platform == "win32":

    def _claim(_descriptor: int) -> None:
        """Do nothing: Windows removes no file that is open, which is all that a claim is for."""

    def _is_claimed(_descriptor: int) -> bool:
        return False

else:
    import fcntl

    def _claim(descriptor: int) -> None:
        with contextlib.suppress(OSError):  # a file system without locks: age alone decides there
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _is_claimed(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False


class OpenFile(NamedTuple):
    """A telemetry file that this process writes."""

    descriptor: int
    path: Path


class TelemetryDirectory:
    """Creates telemetry files in a folder and keeps the whole of them within `max_bytes`."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._budget = max_bytes - max_bytes // _RESERVE
        self._step = max_bytes // _STEP

    def __repr__(self) -> str:
        return f"TelemetryDirectory({str(self.path)!r}, budget={self._budget})"

    def create_file(self, signal: str) -> OpenFile:
        """Create a file of this process's own, open for appending, and the folder where it is missing.

        Names sort by age and are never used twice, not even by a process that has got an earlier one's id.
        """
        with self._made() as folder:
            stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
            for number in _sequence:
                name = f"{signal}-{stamp}-{os.getpid()}-{number}.jsonl"
                with contextlib.suppress(FileExistsError):
                    descriptor = folder.open(name, _CREATE)
                    break
            _claim(descriptor)
            return OpenFile(descriptor, self.path / name)

    def keep(self, name: str, content: bytes) -> bytes:
        """Return what the file `name` holds. Where there is none, make it, private, with this content.

        Of processes that do so at once one makes it, whole, and all get what it holds. Raises OSError.
        """
        with self._made() as folder:
            with contextlib.suppress(FileNotFoundError):
                return folder.read(name)
            folder.write_once(name, content)
            return folder.read(name)

    @contextlib.contextmanager
    def _made(self) -> Iterator[_Folder]:
        """Open the folder, which is made where it is missing."""
        with contextlib.suppress(FileExistsError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir(0o700)
        with _enter(self.path) as folder:
            folder.hide_from_git()
            yield folder

    def make_room(self, length: int, own: Path) -> int:
        """Remove old files, but not `own`, until `length` more bytes fit into the folder.

        Returns how many bytes may be written before the next call; it has looked ahead. Raises OSError where
        nothing that can be removed makes room enough.
        """
        room = length + self._step
        if room > self._budget:
            raise OSError(errno.EFBIG, f"{length} bytes do not fit into {self._budget}", str(self.path))
        with _enter(self.path) as folder:
            files = sorted(folder.files())
            excess = sum(file.size for file in files) + room - self._budget
            others = [file for file in files if file.name != own.name]
            # Whoever is still written comes last: the claims are asked for only as far as files have to go.
            for file in itertools.chain(folder.abandoned(others), others):
                if excess <= 0:
                    break
                excess -= folder.remove(file)
        if excess > 0:
            raise OSError(errno.ENOSPC, f"no room for {length} bytes", str(self.path))
        return room


class _File(NamedTuple):
    """A telemetry file; the one written longest ago sorts first."""

    written: int
    name: str
    size: int


@contextlib.contextmanager
def _enter(path: Path) -> Iterator[_Folder]:
    if path.is_symlink():
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    if not _HAS_DIR_FD:
        yield _Folder(path, None)
        return
    descriptor = os.open(path, _FOLDER)
    try:
        yield _Folder(path, descriptor)
    finally:
        os.close(descriptor)


class _Folder:
    """A folder that is open, where the platform can open one: a link put in its place leads nowhere else."""

    def __init__(self, path: Path, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def _where(self, name: str) -> str:
        return name if self._descriptor is not None else str(self._path / name)

    def _scan(self) -> contextlib.AbstractContextManager[Iterator[os.DirEntry[str]]]:
        return os.scandir(self._path if self._descriptor is None else self._descriptor)

    def open(self, name: str, flags: int) -> int:
        return os.open(self._where(name), flags | _SAFELY, 0o600, dir_fd=self._descriptor)

    def hide_from_git(self) -> None:
        """Write a `.gitignore` of everything into an empty folder; one that holds things is left as it is."""
        with self._scan() as entries:
            if any(entries):
                return
        with contextlib.suppress(FileExistsError):
            descriptor = self.open(".gitignore", _CREATE)
            try:
                os.write(descriptor, b"*\n")
            finally:
                os.close(descriptor)

    def read(self, name: str) -> bytes:
        """Return what a regular file holds, as far as its first 4 KB."""
        descriptor = self.open(name, os.O_RDONLY | _AT_ONCE)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "is not a regular file", str(self._path / name))
            return os.read(descriptor, 4096)
        finally:
            os.close(descriptor)

    def write_once(self, name: str, content: bytes) -> None:
        """Create a file with its content, in one step: by a link, which never replaces one that is there."""
        draft = f".{name}.{secrets.token_hex(8)}"
        descriptor = self.open(draft, _CREATE)
        try:
            try:
                os.write(descriptor, content)
            finally:
                os.close(descriptor)
            with contextlib.suppress(FileExistsError):
                os.link(
                    self._where(draft),
                    self._where(name),
                    src_dir_fd=self._descriptor,
                    dst_dir_fd=self._descriptor,
                )
        finally:
            os.unlink(self._where(draft), dir_fd=self._descriptor)

    def files(self) -> Iterator[_File]:
        with self._scan() as entries:
            for entry in entries:
                if not _OURS.fullmatch(entry.name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode):
                        yield _File(status.st_mtime_ns, entry.name, status.st_size)

    def abandoned(self, files: list[_File]) -> Iterator[_File]:
        """Take the files that no process writes any more out of `files`."""
        for file in list(files):
            if not self._is_written(file):
                files.remove(file)
                yield file

    def _is_written(self, file: _File) -> bool:
        try:
            descriptor = self.open(file.name, os.O_RDONLY)
        except OSError:
            return False
        try:
            return _is_claimed(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, file: _File) -> int:
        """Remove a file and return the bytes that this frees."""
        try:
            os.unlink(self._where(file.name), dir_fd=self._descriptor)
        except FileNotFoundError:
            pass  # another process was as quick
        except OSError:
            return 0
        return file.size
