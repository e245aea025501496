"""Which stores are installed, and how much of each can be observed: every target is looked up, none is patched."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import (
    EntryPoint,
    PackageNotFoundError,
    entry_points,
    packages_distributions,
    version,
)
from importlib.util import find_spec
from inspect import isclass
from types import ModuleType
from typing import Final

import wrapt

from storescope.cli.doctor.findings import Finding, Level, ok, problem, warning
from storescope.settings import Settings
from storescope.stores import StoreAdapter
from storescope.stores.discovery import GROUP

#: Targets that are named one by one; of more, the number is told.
_MAX_NAMED: Final = 12
_NOT_THERE: Final = "this release does not have"


class _Missing(Exception):
    """A module that is not there; nothing is broken."""


@dataclass(frozen=True, slots=True)
class _Examined:
    """One adapter, and what came of looking up its targets."""

    name: str
    #: The package that most of its targets are in.
    package: str
    resolved: tuple[str, ...]
    unresolved: tuple[str, ...]
    #: Modules that cannot be imported, with the reason.
    broken: tuple[str, ...]

    @property
    def observes(self) -> bool:
        """Whether it finds the store itself, not only what this stands on."""
        return any(target.startswith((f"{self.package}.", f"{self.package}:")) for target in self.resolved)


def adapters(settings: Settings) -> Iterator[Finding]:
    """Which adapters there are, what they find, and whether anything is found at all."""
    examined: list[_Examined] = []
    installed = entry_points(group=GROUP)
    for entry_point in installed:
        if entry_point.name in settings.disabled_stores:
            advice = f"Take {entry_point.name} out of STORESCOPE_DISABLED_STORES to have it observed."
            yield warning(entry_point.name, "is switched off by STORESCOPE_DISABLED_STORES", advice)
            continue
        try:
            with _outlived():
                examined.append(_examine(entry_point.name, entry_point.load()()))
        except Exception as error:
            yield _cannot_be_loaded(entry_point, error)
    known = {adapter.package for adapter in examined if adapter.observes}
    for adapter in examined:
        yield _finding(adapter, known)
    if not known and not settings.targets:
        advice = "Install storescope into the environment that has the store, such as mcpstore 2.x or 1.5.x."
        yield problem("stores", "none is installed here that storescope can observe", advice)
    if unknown := [name for name in settings.disabled_stores if name not in installed.names]:
        advice = f"Correct it: there are {', '.join(sorted(installed.names))}."
        yield warning("STORESCOPE_DISABLED_STORES", f"no store is called {', '.join(unknown)}", advice)


def named_callables(settings: Settings) -> Iterator[Finding]:
    """Whether the callables that `STORESCOPE_TARGETS` names exist."""
    for target in settings.targets:
        name = f"{target.module}:{target.name}"
        try:
            module = _import(target.module)
        except _Missing as missing:
            advice = "Correct it, or run this in the folder of your program: modules are found there too."
            yield warning("STORESCOPE_TARGETS", f"{name}: {missing}", advice)
        except Exception as error:
            advice = f"Import {target.module} by itself to see what it lacks."
            yield problem("STORESCOPE_TARGETS", f"{name} cannot be imported: {_said(error)}", advice)
        else:
            if _is_function(module, target.name):
                yield ok("STORESCOPE_TARGETS", f"{name} found, observed as {target.operation}")
            elif _has(module, target.name):
                advice = "Name a function or a method: of a class, for instance its `__init__`."
                yield problem("STORESCOPE_TARGETS", f"{name}: neither a function nor a method", advice)
            else:
                yield problem(
                    "STORESCOPE_TARGETS", f"{name}: no such name", "Correct it in STORESCOPE_TARGETS."
                )


def _examine(name: str, adapter: StoreAdapter) -> _Examined:
    packages = Counter(target.module.partition(".")[0] for target in adapter.targets)
    modules = dict.fromkeys(target.module for target in adapter.targets)
    found, broken = _import_all(modules)
    resolved: list[str] = []
    unresolved: list[str] = []
    for target in adapter.targets:
        if target.module not in broken:
            there = target.module in found and _has(found[target.module], target.name)
            (resolved if there else unresolved).append(f"{target.module}:{target.name}")
    package = packages.most_common(1)[0][0] if packages else ""
    return _Examined(name, package, tuple(resolved), tuple(unresolved), tuple(broken.values()))


def _import_all(modules: Iterable[str]) -> tuple[dict[str, ModuleType], dict[str, str]]:
    """Return the modules that are there, and why those that are broken cannot be imported.

    What fails is tried again after all others: modules that import each other in a circle need the right one first,
    as an application gives it to them.
    """
    found: dict[str, ModuleType] = {}
    broken: dict[str, str] = {}
    for _ in range(2):
        for module in modules:
            if module in found:
                continue
            broken.pop(module, None)
            try:
                found[module] = _import(module)
            except _Missing:
                continue
            except Exception as error:
                broken[module] = f"{module} cannot be imported: {_said(error)}"
    return found, broken


@contextlib.contextmanager
def _outlived() -> Iterator[None]:
    """Outlive modules that end the program which imports them."""
    try:
        yield
    except SystemExit as error:
        raise ImportError(f"it ends the program, with exit code {error.code}") from error


def _import(module: str) -> ModuleType:
    try:
        with _outlived():
            return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise _Missing(f"there is no module {error.name}") from error


def _has(module: ModuleType, name: str) -> bool:
    """Look a name up as the agent does before it patches it."""
    try:
        wrapt.resolve_path(module, name)
    except AttributeError:
        return False
    return True


def _is_function(module: ModuleType, name: str) -> bool:
    """Tell whether what a name stands for can be patched."""
    if not _has(module, name):
        return False
    owner, attribute, original = wrapt.resolve_path(module, name)
    return callable(getattr(owner, attribute)) and not isclass(original)


def _finding(adapter: _Examined, known: set[str]) -> Finding:
    if adapter.broken:
        advice = "Import it by itself to see what it lacks; the program will meet the same error."
        return problem(adapter.name, "; ".join(adapter.broken), advice)
    if not adapter.package or find_spec(adapter.package) is None:
        return ok(adapter.name, f"{adapter.package or 'a store without targets'} is not installed")
    release = _release(adapter.package)
    if not adapter.observes:
        if adapter.package in known:
            return ok(adapter.name, f"is for other releases than {release}")
        text = f"{release} has none of its {len(adapter.unresolved)} targets"
        return problem(adapter.name, text, _advice_on_release(adapter.package))
    total = len(adapter.resolved) + len(adapter.unresolved)
    text = f"{release}: {len(adapter.resolved)} of {total} targets found"
    return Finding(Level.OK, adapter.name, text, details=tuple(_missing(adapter.unresolved)))


def _advice_on_release(package: str) -> str:
    if package == "mcpstore":
        return "Install a release that storescope knows: mcpstore 2.x (2.1 or newer) or 1.5.18."
    return "Update the adapter, or install a release that it knows."


def _missing(unresolved: tuple[str, ...]) -> Iterator[str]:
    for name in unresolved[:_MAX_NAMED]:
        yield f"{_NOT_THERE} {name}"
    if len(unresolved) > _MAX_NAMED:
        yield f"and {len(unresolved) - _MAX_NAMED} more that {_NOT_THERE}"


def _cannot_be_loaded(entry_point: EntryPoint, error: Exception) -> Finding:
    package = f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else entry_point.value
    text = f"of {package} cannot be loaded: {_said(error)}"
    return problem(entry_point.name, text, f"Update or uninstall {package}; its stores are not observed.")


def _release(package: str) -> str:
    """Return the distributions that a package is of, with their versions."""
    # CPython 3.10 does not find those of which pip has kept no list of packages; most are called like their package.
    names: Iterable[str] = packages_distributions().get(package, [package])
    try:
        return ", ".join(f"{name} {version(name)}" for name in dict.fromkeys(names))
    except PackageNotFoundError:
        return package


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
