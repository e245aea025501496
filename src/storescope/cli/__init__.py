"""The `storescope` command."""

from storescope.cli.command import main

__all__ = ["main"]
