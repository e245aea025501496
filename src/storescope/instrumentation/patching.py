"""One table patches and restores: what was put in place is remembered with what stood there before."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

import wrapt

from storescope.instrumentation.telemetry import Telemetry
from storescope.instrumentation.wrappers import make_wrapper
from storescope.notices import warn_once
from storescope.stores import PatchTarget, StoreAdapter

_log = logging.getLogger(__name__)

_INHERITED: Final = object()


@dataclass(frozen=True, slots=True)
class Patch:
    """One attribute that was replaced."""

    owner: Any
    attribute: str
    original: object
    wrapper: object

    def undo(self) -> None:
        """Put the raw original back, unless somebody has put something else there since."""
        if vars(self.owner).get(self.attribute) is not self.wrapper:
            return
        if self.original is _INHERITED:
            delattr(self.owner, self.attribute)
        else:
            setattr(self.owner, self.attribute, self.original)


class Patcher:
    """Patches the targets of adapters as their modules are imported, and undoes it."""

    def __init__(self, telemetry: Telemetry, adapters: Iterable[StoreAdapter]) -> None:
        self.telemetry = telemetry
        self.patches: list[Patch] = []
        self._active = True
        for adapter in adapters:
            try:
                for module in dict.fromkeys(target.module for target in adapter.targets):
                    self._await_module(adapter, module)
            except Exception:
                warn_once("storescope could not use the store adapter %r", type(adapter).__qualname__)

    def _await_module(self, adapter: StoreAdapter, module: str) -> None:
        """Patch a module now if it is there, else once it is imported."""

        def patch(imported: ModuleType) -> None:
            if self._active:
                for target in adapter.targets:
                    if target.module == module:
                        self._patch(imported, adapter, target)

        wrapt.register_post_import_hook(patch, module)

    def _patch(self, module: ModuleType, adapter: StoreAdapter, target: PatchTarget) -> None:
        """Patch one target. Whatever is wrong with it must not reach the import that brings its module."""
        try:
            found = _find(module, target.name)
            if found is None:
                level = logging.WARNING if target.required else logging.DEBUG
                _log.log(level, "%s has no %s; it is not observed", target.module, target.name)
                return
            owner, attribute, original = found
            if inspect.isclass(original) or not callable(getattr(owner, attribute)):
                raise TypeError("neither a function nor a method")
            raw = vars(owner).get(attribute, _INHERITED)
            fitted = target.fitted(owner, original)
            wrapper = wrapt.FunctionWrapper(original, make_wrapper(self.telemetry, adapter, fitted))
            setattr(owner, attribute, wrapper)
            self.patches.append(Patch(owner, attribute, raw, vars(owner)[attribute]))
        except Exception:
            what = f"{target.module}:{target.name}" if target.required else f"what {adapter.name} names"
            warn_once("storescope could not patch %s", what)

    def undo(self) -> None:
        """Take away every wrapper that still stands where it was put; those that do not pass through from now on."""
        self._active = False
        self.telemetry.enable(False)
        while self.patches:
            self.patches.pop().undo()


def _find(module: ModuleType, name: str) -> tuple[Any, str, Any] | None:
    """Return what has the attribute of this dotted name, the attribute, and its raw value; None where it is missing."""
    try:
        owner, attribute, original = wrapt.resolve_path(module, name)
    except AttributeError:
        return None
    return owner, attribute, original
