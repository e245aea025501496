"""What a container grants this process: CPUs by affinity and quota, memory by its control groups (cgroup v1 and v2)."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")
#: Version 1 writes "no limit" as the largest multiple of a page that fits into 63 bits; no machine has so much.
_NO_LIMIT: Final = 2**60


@dataclass(frozen=True, slots=True)
class _Version:
    """What one version of control groups calls the files of its memory controller."""

    limit: str
    usage: str
    #: Page cache that the kernel drops before it kills anybody, as a field of memory.stat.
    reclaimable: str


_V1: Final = _Version("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2: Final = _Version("memory.max", "memory.current", "inactive_file")


@dataclass(frozen=True, slots=True)
class _Group:
    """One control group that this process is in, by its folder."""

    version: _Version
    folder: Path

    def memory_limit(self) -> int | None:
        limit = _whole(_read(self.folder / self.version.limit))
        return limit if limit is not None and 0 < limit < _NO_LIMIT else None

    def memory_usage(self) -> int | None:
        usage = _whole(_read(self.folder / self.version.usage))
        if usage is None:
            return None
        reclaimable = re.search(
            rf"^{self.version.reclaimable} (\d+)$", _read(self.folder / "memory.stat"), re.MULTILINE
        )
        return max(usage - int(reclaimable[1]), 0) if reclaimable else usage

    def cpus(self) -> float | None:
        """Return how many CPUs' worth of time it may use, None for any number."""
        if self.version is _V2:
            quota, _, period = _read(self.folder / "cpu.max").partition(" ")
        else:
            quota, period = _read(self.folder / "cpu.cfs_quota_us"), _read(self.folder / "cpu.cfs_period_us")
        allowed, every = _whole(quota), _whole(period)
        return allowed / every if allowed and every and allowed > 0 and every > 0 else None


def cpu_count(*, root: Path = ROOT) -> int:
    """Return how many CPUs this process can keep busy, at least 1.

    The smaller of its affinity and the smallest CPU quota of its control groups, rounded up as the JVM does: 1.5 CPUs
    feed two workers. What `python -X cpu_count=n` says (CPython 3.13) counts as it stands. Reads some small files,
    every time: affinity and quotas change. `root` is where `/proc` and `/sys` are found.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if sys.version_info >= (3, 13) and (chosen := os.process_cpu_count()) not in (None, affinity):
        return chosen
    quotas = [quota for group in _groups("cpu", root) if (quota := group.cpus()) is not None]
    return max(1, min([affinity, *map(math.ceil, quotas)]))


def memory_limit(*, root: Path = ROOT) -> int | None:
    """Return the container's memory limit in bytes, None where there is none.

    Of nested control groups the smallest limit counts, up to the outermost one that this process can see.
    """
    tightest = _tightest(root)
    return None if tightest is None else tightest[0]


def memory_usage(*, root: Path = ROOT) -> int | None:
    """Return the bytes used of `memory_limit`, by all processes under it; None where there is no limit.

    Inactive page cache is left out: the kernel takes it back before it kills a process. This is the working set that
    Kubernetes evicts by (cAdvisor's `container_memory_working_set_bytes`).
    """
    tightest = _tightest(root)
    return None if tightest is None else tightest[1].memory_usage()


def _tightest(root: Path) -> tuple[int, _Group] | None:
    limited = [
        (limit, group) for group in _groups("memory", root) if (limit := group.memory_limit()) is not None
    ]
    return min(limited, key=lambda pair: pair[0], default=None)


def _groups(controller: str, root: Path) -> Iterator[_Group]:
    """Yield the control groups of this process that have a controller, each before the one that it is nested in."""
    places = _places(_read(root / "proc/self/cgroup"))
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount, _, filesystem = line.partition(" - ")
        inside, mount_point = map(_unescaped, mount.split()[3:5])
        kind, _, options = filesystem.partition(" ")
        if kind == "cgroup2" and "" in places:
            version, place = _V2, places[""]
        elif kind == "cgroup" and controller in options.split()[-1].split(",") and controller in places:
            version, place = _V1, places[controller]
        else:
            continue
        top = root / mount_point.lstrip("/")
        folder = top / _below(place, inside)
        while folder != top:
            yield _Group(version, folder)
            folder = folder.parent
        yield _Group(version, top)


def _places(text: str) -> dict[str, str]:
    """Return the path of this process in each hierarchy, by controller; version 2 has one, under an empty name."""
    places = {}
    for line in text.splitlines():
        _, controllers, place = line.split(":", 2)
        places.update(dict.fromkeys(controllers.split(","), place))
    return places


def _below(place: str, inside: str) -> str:
    """Return where a group is below the mount of its hierarchy, of which a container may see only the part `inside`.

    Nowhere, so at the mount itself, where it is not in that part, or outside of the namespace ("/../other").
    """
    outer, parts = Path(inside).parts, Path(place).parts
    if ".." in parts or parts[: len(outer)] != outer:
        return ""
    return "/".join(parts[len(outer) :])


def _unescaped(path: str) -> str:
    r"""Return a path of mountinfo as it is: spaces and other separators stand there as `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def _read(path: Path) -> str:
    """Return the text of a file without its last line's end; nothing for a file that is missing or refused."""
    try:
        return path.read_text("utf-8", "surrogateescape").rstrip("\n")
    except OSError:
        return ""


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # "max", or a file that is not there
        return None
