"""What a process is called, and which processes are servers that a store spawned."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import pytest

from storescope.instrumentation.process import is_multiprocessing_child, program_name, was_spawned_as_server
from storescope.settings import Settings

SPAWN = "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=5, pipe_handle=7)"
FORKSERVER = "from multiprocessing.forkserver import main; main(5, 6, ['__main__'], **{'sys_path': []})"
TRACKER = "from multiprocessing.resource_tracker import main;main(4)"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python app.py", "app"),
        ("/usr/bin/python3.12 /srv/shop/app.py --fast", "app"),
        ("python -u -X dev -W ignore app.py", "app"),
        ("python -Xdev -Wignore app.py", "app"),
        ("python --check-hash-based-pycs always app.py", "app"),
        ("python -m pkg.app --port 1", "pkg.app"),
        ("python -mpkg.app", "pkg.app"),
        ("python -Im pkg.app", "pkg.app"),
        ("python -c pass app.py", "python"),
        ("python", "python"),
        ("python -", "python"),
        ("python .", "python"),
        ("python -u", "python"),
        ("python /venv/bin/gunicorn shop:app", "gunicorn"),
        ("python shop/", "shop"),
        ("python tools/v1.2", "v1.2"),
        ("pypy3 app.pyz", "app"),
        ("./frozen-shop --fast", "frozen-shop"),
        ("shop.exe", "shop"),
        ("", "python"),
    ],
)
def test_a_program_is_named_as_its_user_calls_it(command: str, name: str) -> None:
    """Scripts have their file's name, modules their dotted one, and what has no name is python."""
    assert program_name(command.split()) == name


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_of_multiprocessing_has_the_name_of_the_program_that_started_it(method: str) -> None:
    """The child's own command line names nothing, and neither does the fork server's."""
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(program_name) == program_name()


@pytest.mark.parametrize(
    "command",
    [
        ["python", "-c", SPAWN, "--multiprocessing-fork"],
        ["python", "-c", FORKSERVER],
        ["python", "-B", "-c", TRACKER],
        ["shop.exe", "--multiprocessing-fork", "parent_pid=1"],
    ],
)
def test_every_kind_of_multiprocessing_child_shows_on_its_command_line(command: list[str]) -> None:
    """Spawned children, the fork server and the resource tracker, and children of frozen programs."""
    assert is_multiprocessing_child(command)


def test_an_ordinary_command_line_is_no_multiprocessing_child() -> None:
    """A program that only speaks of multiprocessing is none."""
    assert not is_multiprocessing_child(["python", "-m", "server", "multiprocessing"])


CHECK = (
    "from storescope.instrumentation.process import is_spawned_server, was_spawned_as_server\n"
    "from storescope.settings import Settings\n"
    "import sys\n"
    "settings = Settings.from_env()\n"
    "print(is_spawned_server(settings), was_spawned_as_server(settings), file=sys.stderr)"
)


def ask(parent: int | str, *, stdin: int = subprocess.PIPE, stdout: int = subprocess.PIPE, **env: str) -> str:
    """Ask a process started in this way whether it is to stay dormant, and whether it was spawned as a server."""
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "STORESCOPE_PID": str(parent), **env},
        input="" if stdin == subprocess.PIPE else None,
        stdin=None if stdin == subprocess.PIPE else stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stderr.strip().splitlines()[-1]


def test_what_a_live_program_talks_to_through_its_standard_streams_is_a_server() -> None:
    """The id of another live process, and pipes on both sides."""
    assert ask(os.getpid()) == "True True"


def test_a_server_can_be_woken() -> None:
    """It is known for a server all the same, because it then needs a name of its own."""
    assert ask(os.getpid(), STORESCOPE_SERVERS="on") == "False True"


def test_a_process_that_nobody_talks_to_is_no_server() -> None:
    """Input from nowhere or output to nowhere is no conversation."""
    assert ask(os.getpid(), stdin=subprocess.DEVNULL) == "False False"
    assert ask(os.getpid(), stdout=subprocess.DEVNULL) == "False False"


def test_the_id_of_a_process_that_has_ended_counts_for_nothing() -> None:
    """Neither does one that is waiting to be collected, or is no process id at all."""
    ended = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert ended.stdout is not None
    ended.stdout.read()
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert ask(ended.pid) == "False False"
    ended.wait()
    ended.stdout.close()
    assert ask(ended.pid) == "False False"
    assert ask(-3) == "False False"
    assert ask(10**30) == "False False"
    assert ask("") == "False False"


def test_a_process_is_no_server_of_its_own() -> None:
    """A program that replaces itself by another keeps its id and its environment."""
    assert not was_spawned_as_server(Settings(parent_pid=os.getpid()))
