"""What a container grants, read from trees of files as the kernel shows them, and from this machine's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from unit.machine import V2, Machine

from storescope.core.memory.containers import cpu_count, memory_limit, memory_usage

GIB = 2**30
UNLIMITED_V1 = 9223372036854771712


def v1(controllers: str, inside: str = "/", mount_point: str = "") -> str:
    point = mount_point or f"/sys/fs/cgroup/{controllers}"
    return f"35 31 0:32 {inside} {point} rw,relatime shared:9 - cgroup cgroup rw,{controllers}"


@pytest.fixture
def many_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process run on 16 CPUs, so that a quota is what bounds."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    if sys.version_info >= (3, 13):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 16)


def test_v2_in_a_container_of_its_own_namespace(tmp_path: Path) -> None:
    """The group of a container is the root of its namespace; inactive page cache is no usage."""
    machine = Machine(tmp_path, "0::/", V2).write("/sys/fs/cgroup/memory.max", GIB)
    machine.write("/sys/fs/cgroup/memory.current", 700).write(
        "/sys/fs/cgroup/memory.stat", "anon 5\ninactive_file 200"
    )
    assert machine.memory == (GIB, 500)


@pytest.mark.parametrize("smallest", ["", "/kube.slice", "/kube.slice/pod1", "/kube.slice/pod1/app"])
def test_v2_the_smallest_of_nested_limits_counts(tmp_path: Path, smallest: str) -> None:
    """Limit and usage are those of the group that has the smallest limit, from the process's own up to the root."""
    machine = Machine(tmp_path, "0::/kube.slice/pod1/app", V2)
    for number, group in enumerate(("", "/kube.slice", "/kube.slice/pod1", "/kube.slice/pod1/app")):
        limit = GIB if group == smallest else 4 * GIB
        machine.write(f"/sys/fs/cgroup{group}/memory.max", limit)
        machine.write(f"/sys/fs/cgroup{group}/memory.current", number + 1)
    assert machine.memory == (
        GIB,
        ["", "/kube.slice", "/kube.slice/pod1", "/kube.slice/pod1/app"].index(smallest) + 1,
    )


def test_the_groups_of_others_do_not_count(tmp_path: Path) -> None:
    """A limit beside the path from the process to the root, or below it, bounds others."""
    machine = Machine(tmp_path, "0::/mine", V2).write("/sys/fs/cgroup/mine/memory.max", "max")
    machine.write("/sys/fs/cgroup/theirs/memory.max", 5).write("/sys/fs/cgroup/mine/below/memory.max", 5)
    assert machine.memory == (None, None)


@pytest.mark.parametrize(
    "limit",
    ["max", str(UNLIMITED_V1), str(2**63 - 1), "-1", "0", "", "many"],
    ids=lambda text: text or "empty",
)
def test_what_is_no_limit_is_none(tmp_path: Path, limit: str) -> None:
    """A "max", the huge number of version 1 and what is no number mean that there is no limit, and no usage of it."""
    for name, machine in {
        "memory.max": Machine(tmp_path / "2", "0::/", V2),
        "memory/memory.limit_in_bytes": Machine(tmp_path / "1", "4:memory:/", v1("memory")),
    }.items():
        assert machine.write(f"/sys/fs/cgroup/{name}", limit).memory == (None, None)


def test_v1_with_the_host_s_path_in_a_container(tmp_path: Path) -> None:
    """Without a namespace the path is the host's, and the container sees only its own part of the hierarchy."""
    place = "/docker/0123"
    machine = Machine(tmp_path, f"11:cpu,cpuacct:{place}\n4:memory:{place}\n", v1("memory", place))
    folder = "/sys/fs/cgroup/memory"
    machine.write(f"{folder}/memory.limit_in_bytes", GIB).write(f"{folder}/memory.usage_in_bytes", 900)
    machine.write(f"{folder}/memory.stat", "inactive_file 1\ntotal_inactive_file 400\n")
    assert machine.memory == (GIB, 500)


def test_v1_nested_below_the_mount(tmp_path: Path) -> None:
    """A group within the visible part is found there, and the groups around it count too."""
    machine = Machine(tmp_path, "4:memory:/docker/0123/worker", v1("memory", "/docker/0123"))
    machine.write("/sys/fs/cgroup/memory/worker/memory.limit_in_bytes", UNLIMITED_V1)
    machine.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", GIB)
    assert machine.memory[0] == GIB


@pytest.mark.parametrize("place", ["/../neighbour", "/elsewhere"])
def test_a_path_outside_of_what_is_mounted_is_the_mount_s(tmp_path: Path, place: str) -> None:
    """A process that was moved out of the visible part is taken to be at its top."""
    mount = "30 23 0:26 /mine /sys/fs/cgroup rw - cgroup2 cgroup2 rw"
    machine = Machine(tmp_path, f"0::{place}", mount).write("/sys/fs/cgroup/memory.max", GIB)
    machine.write("/sys/fs/neighbour/memory.max", 5)
    assert machine.memory[0] == GIB


def test_both_versions_at_once(tmp_path: Path) -> None:
    """On a hybrid machine each controller is in one of the two hierarchies."""
    machine = Machine(
        tmp_path,
        "4:memory:/app\n0::/app",
        v1("memory"),
        V2.replace("/sys/fs/cgroup", "/sys/fs/cgroup/unified"),
    )
    machine.write("/sys/fs/cgroup/memory/app/memory.limit_in_bytes", GIB)
    machine.write("/sys/fs/cgroup/unified/app/cpu.max", "100000 100000")
    assert machine.memory[0] == GIB
    assert cpu_count(root=tmp_path) == 1


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    r"""What mountinfo writes as `\040` is a space."""
    machine = Machine(tmp_path, "4:memory:/", v1("memory", mount_point=r"/my\040groups/memory"))
    assert machine.write("/my groups/memory/memory.limit_in_bytes", GIB).memory[0] == GIB


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    """Where there is no /proc, as on other systems, there is no limit and no quota."""
    assert (memory_limit(root=tmp_path), memory_usage(root=tmp_path)) == (None, None)
    assert cpu_count(root=tmp_path) >= 1


@pytest.mark.usefixtures("many_cpus")
@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("5000 100000", 1),
        ("9900000 100000", 16),
    ],
)
def test_a_quota_is_rounded_up(tmp_path: Path, quota: str, cpus: int) -> None:
    """One CPU and a half feed two workers, a twentieth feeds one; affinity bounds a larger quota."""
    Machine(tmp_path, "0::/app", V2).write("/sys/fs/cgroup/app/cpu.max", quota)
    assert cpu_count(root=tmp_path) == cpus


@pytest.mark.usefixtures("many_cpus")
def test_the_smallest_of_nested_quotas_counts(tmp_path: Path) -> None:
    """A quota further out bounds what a group within it may use."""
    machine = Machine(tmp_path, "0::/pod/app", V2).write("/sys/fs/cgroup/pod/app/cpu.max", "800000 100000")
    machine.write("/sys/fs/cgroup/pod/cpu.max", "300000 100000")
    assert cpu_count(root=tmp_path) == 3


@pytest.mark.usefixtures("many_cpus")
@pytest.mark.parametrize(("quota", "cpus"), [(-1, 16), (250000, 3), (0, 16)])
def test_v1_quota(tmp_path: Path, quota: int, cpus: int) -> None:
    """Version 1 has quota and period in files of their own, and -1 for none."""
    machine = Machine(tmp_path, "5:cpu,cpuacct:/app", v1("cpu,cpuacct"))
    machine.write("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", quota)
    machine.write("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", 100000)
    assert cpu_count(root=tmp_path) == cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity cannot be set here")
def test_affinity_counts() -> None:
    """A process that is bound to one CPU has one, however many the machine has."""
    code = "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    code += "from storescope.core.memory.containers import cpu_count; print(cpu_count())"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "1\n"
    )


@pytest.mark.skipif(sys.version_info < (3, 13), reason="CPython 3.13 brought the option")
def test_what_the_interpreter_was_told_counts() -> None:
    """`-X cpu_count` is the user's own word, also above what the machine has."""
    code = "from storescope.core.memory.containers import cpu_count; print(cpu_count())"
    command = [sys.executable, "-X", "cpu_count=77", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "77\n"


def test_this_machine() -> None:
    """The real files are understood: no more CPUs than there are, and a limit only together with its usage."""
    assert 1 <= cpu_count() <= (psutil.cpu_count() or 1)
    limit, usage = memory_limit(), memory_usage()
    assert (limit is None) == (usage is None)
    if limit is not None:
        assert usage is not None
        assert 0 < usage <= limit
