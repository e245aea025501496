"""What this process is: what its program is called, and whether a store spawned it as a server."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

from storescope.settings import Settings

#: Options of the interpreter that take a value: the rest of the same word, or else the next one.
_SHORT_WITH_VALUE: Final = frozenset("WX")
_LONG_WITH_VALUE: Final = frozenset({"--check-hash-based-pycs"})
_SCRIPT_SUFFIXES: Final = frozenset({".py", ".pyc", ".pyw", ".pyz"})


def is_spawned_server(settings: Settings) -> bool:
    """Tell whether this process is a server that an instrumented program spawned, which has to stay dormant.

    `STORESCOPE_SERVERS=on` wakes such servers. Nothing here needs `/proc` or fork: macOS and Windows lose
    nothing but sockets, which Windows cannot have as standard streams.
    """
    return not settings.servers and was_spawned_as_server(settings)


def was_spawned_as_server(settings: Settings) -> bool:
    """Tell whether an instrumented program that still runs talks to this process through its standard streams."""
    parent = settings.parent_pid
    return (
        parent is not None
        and parent != os.getpid()
        and _is_connection(0)
        and _is_connection(1)
        and not is_multiprocessing_child(sys.orig_argv)
        and _is_alive(parent)
    )


def is_multiprocessing_child(command: Sequence[str]) -> bool:
    """Tell whether a command line is one of multiprocessing's: spawn, forkserver or the resource tracker."""
    return "--multiprocessing-fork" in command or any(
        argument.startswith("from multiprocessing.") for argument in command
    )


def program_name(command: Sequence[str] | None = None) -> str:
    """Return the name of the program that runs here, for `service.name`.

    `python app.py` is `app`, `python -m pkg.app` is `pkg.app`, a script such as `gunicorn` has its own name,
    and what has none (`-c`, standard input) is `python`. A child of multiprocessing has the name of the program
    that started it. `sys.argv` is not yet right when the launcher runs, hence `sys.orig_argv`.
    """
    command = sys.orig_argv if command is None else command
    if is_multiprocessing_child(command):
        command = _command_of_starter() or command
    if not command:
        return "python"
    executable = PurePath(command[0]).name
    if not executable.lower().startswith(("python", "pypy")):
        return _stem(executable)
    return _python_program(command[1:])


def _python_program(arguments: Sequence[str]) -> str:
    """Read the program out of the interpreter's own arguments."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "-":
            return _stem(PurePath(word).name)
        if word.startswith("--"):
            if word in _LONG_WITH_VALUE:
                next(words, None)
            continue
        for position, letter in enumerate(word[1:], start=2):
            rest = word[position:]
            if letter == "m":
                return rest or next(words, "python")
            if letter == "c":
                return "python"
            if letter in _SHORT_WITH_VALUE:
                if not rest:
                    next(words, None)
                break
    return "python"


def _stem(name: str) -> str:
    path = PurePath(name)
    stem = path.stem if path.suffix.lower() in _SCRIPT_SUFFIXES or path.suffix.lower() == ".exe" else name
    return stem if stem.strip("-.") else "python"


def _command_of_starter() -> Sequence[str] | None:
    """Return the command line of the nearest ancestor that multiprocessing did not start."""
    import psutil

    try:
        for ancestor in psutil.Process().parents():
            command: list[str] = ancestor.cmdline()
            if command and not is_multiprocessing_child(command):
                return command
    except psutil.Error:
        pass
    return None


def _is_connection(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _is_alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return False
