"""A machine with control groups, as a tree of the files in which the kernel shows them."""

from __future__ import annotations

from pathlib import Path

from storescope.core.memory.containers import memory_limit, memory_usage

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"


class Machine:
    """A tree of files with the mounts and groups of one process."""

    def __init__(self, root: Path, cgroup: str, *mounts: str) -> None:
        self.root = root
        self.write("/proc/self/cgroup", cgroup)
        self.write("/proc/self/mountinfo", "\n".join(("22 27 0:21 / /proc rw - proc proc rw", *mounts)))

    def write(self, path: str, text: object) -> Machine:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")
        return self

    @property
    def memory(self) -> tuple[int | None, int | None]:
        return memory_limit(root=self.root), memory_usage(root=self.root)

    def memory_is(self, *, limit: int, used: int) -> None:
        """Write what a container of version 2 has and uses."""
        self.write("/sys/fs/cgroup/memory.max", limit).write("/sys/fs/cgroup/memory.current", used)
