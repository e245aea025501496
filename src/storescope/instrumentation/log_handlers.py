"""Keeps OpenTelemetry's log handlers at the root logger, where a store takes every handler off it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt

from storescope.instrumentation.patching import Patch
from storescope.notices import is_telemetry, warn_once

#: What sets up the logging of the whole process for a store: mcpstore of both generations, sync and async.
_SETUPS: Final = (("mcpstore.config.config", "LoggingConfig.setup_logging"),)


@dataclass(frozen=True, slots=True)
class _RootLogger:
    """The root logger before a store came: its level, and OpenTelemetry's handlers with theirs."""

    level: int
    handlers: Mapping[logging.Handler, int]


class LogHandlers:
    """Gives the root logger back what OpenTelemetry needs of it: its handlers, and the level that lets records pass.

    mcpstore's `setup_store()` takes every handler away, puts one of its own there, and raises the level of both; with
    only the handler back records would still be lost. Its own handler keeps its level, so that the console stays as
    silent as the store made it, and it stays the reason why a later `logging.basicConfig()` does nothing without
    `force`. Where no handler of OpenTelemetry's was, nothing is touched.
    """

    def __init__(self) -> None:
        self._active = True
        self._patches: list[Patch] = []
        self._put_back: set[logging.Handler] = set()
        #: The root logger's level: what the application wanted, what the store made of it, and what stands there.
        self._wanted = logging.NOTSET
        self._stores: int | None = None
        self._left: int | None = None
        for module, name in _SETUPS:
            wrapt.register_post_import_hook(functools.partial(self._patch, name), module)

    def undo(self) -> None:
        """Leave the root logger as the store left it, but for what the application has changed since."""
        self._active = False
        while self._patches:
            self._patches.pop().undo()
        root = logging.getLogger()
        while self._put_back:
            root.removeHandler(self._put_back.pop())
        if self._stores is not None and root.level == self._left:
            root.setLevel(self._stores)

    def _patch(self, name: str, module: ModuleType) -> None:
        try:
            if self._active:
                owner, attribute, original = wrapt.resolve_path(module, name)
                setattr(owner, attribute, wrapt.FunctionWrapper(original, self._around))
                self._patches.append(Patch(owner, attribute, original, vars(owner)[attribute]))
        except Exception:
            warn_once("storescope could not patch %s", name)

    def _around(self, wrapped: Any, _instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = self._look()
        try:
            return wrapped(*args, **kwargs)
        finally:
            if before is not None:
                self._restore(before)

    def _look(self) -> _RootLogger | None:
        """Remember the root logger; None where there is nothing to be kept."""
        if not self._active:
            return None
        try:
            root = logging.getLogger()
            # A level that stands as it was left is the store's or ours; the application's is remembered.
            if self._left is None or root.level != self._left:
                self._wanted = root.level
            handlers = {handler: handler.level for handler in root.handlers if is_telemetry(handler)}
        except Exception:
            warn_once("storescope could not look at the %s logger", "root")
            return None
        return _RootLogger(self._wanted, handlers) if handlers else None

    def _restore(self, before: _RootLogger) -> None:
        try:
            root = logging.getLogger()
            for handler, level in before.handlers.items():
                if handler not in root.handlers:
                    root.addHandler(handler)
                    self._put_back.add(handler)
                handler.setLevel(level)
            self._stores = root.level
            # A lower one was asked of the store.
            self._left = min(before.level, root.level)
            root.setLevel(self._left)
        except Exception:
            warn_once("storescope could not restore the %s logger", "root")
