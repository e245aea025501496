"""Runs the `storescope` command inside the test's process."""

from __future__ import annotations

import inspect

from click.testing import CliRunner, Result

from storescope.cli import main

# Click 8.1 mixes both streams unless told; later releases never do, and know the option no more.
_APART = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def storescope(*arguments: object) -> Result:
    """Run the command; whatever it raises but its exit code fails the test."""
    result = CliRunner(**_APART).invoke(main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result
