"""A module with callables of every kind, which the agent observes as `STORESCOPE_TARGETS` says."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.harness import Span
from integration.recording import Recorder

from storescope import notices
from storescope.settings import process_settings

SOURCE = '''
import functools
import types

class Answer:
    """What a tool gave, in an object."""
    def __init__(self, text, **marks):
        self.content = [types.SimpleNamespace(text=text)]
        self.__dict__.update(marks)

def call(tool_name, arguments=None):
    """Call a tool."""
    return arguments

async def call_async(name, args=None, *, service_name=None):
    return args

VERSION = "1.2"

class Desk:
    @property
    def size(self):
        return 7

    def call(self, tool_name, arguments=None):
        return arguments

    async def call_async(self, tool_name, arguments=None):
        return arguments

    @classmethod
    def make(cls, name, args=None):
        return cls, args

    @staticmethod
    def build(name, args=None):
        return args

    class Drawer:
        def prompt(self, prompt_name, arguments=None):
            return prompt_name

        def read(self, uri):
            return uri

        def tidy(self, service_name=None):
            return service_name

class Special(Desk):
    pass

def keyword_only(tool_name, *, args):
    return args

def anything(**given):
    return given

def search(tool_name, query):
    return query

def refuse(tool_name):
    raise ValueError(f"no {tool_name}")

def fail(tool_name, error):
    raise error

def answer(tool_name, result):
    return result

bound = functools.partial(call_async, "bound")
'''


class Desk:
    """The module and what is recorded of it. Settings are taken from the environment when observation begins."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.recorder = Recorder()
        self._monkeypatch = monkeypatch

    def observe(self, targets: str, **settings: str) -> Any:
        """Start the agent and import the module."""
        for name, value in {"STORESCOPE_TARGETS": targets, **settings}.items():
            self._monkeypatch.setenv(name, value)
        process_settings.cache_clear()
        self.recorder.instrument()
        return importlib.import_module("desk")

    def span(self) -> Span:
        """Return the only span so far, and forget it."""
        span = self.recorder.span()
        self.recorder.clear()
        return span


class Warnings:
    """What is warned of while a test runs."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog

    def __len__(self) -> int:
        return len(self.records())

    def records(self) -> list[logging.LogRecord]:
        return [record for record in self._caplog.records if record.levelno >= logging.WARNING]


@contextlib.contextmanager
def a_desk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """Put the module on the path, and take the agent away in the end. What was said once is said again."""
    (folder / "desk.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("STORESCOPE_DIR", str(folder / "telemetry"))
    monkeypatch.setattr(notices, "_said", set())
    importlib.invalidate_caches()
    desk = Desk(folder, monkeypatch)
    try:
        yield desk
    finally:
        desk.recorder.__exit__(None, None, None)
        process_settings.cache_clear()
        sys.modules.pop("desk", None)
