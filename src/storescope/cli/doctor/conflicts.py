"""What else is installed that observes the same calls, or that changes how a program runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Final

from storescope.cli.doctor.findings import Finding, ok, problem, warning
from storescope.cli.doctor.launcher import disabled_instrumentations
from storescope.settings import Settings


@dataclass(frozen=True, slots=True)
class _Other:
    """A package that can instrument MCP as well: what it would do, and how that is switched off."""

    distribution: str
    effect: str
    switch_off: str


_OTHERS: Final = (
    _Other(
        "ddtrace",
        "traces MCP calls where a program runs under ddtrace-run",
        "Set DD_TRACE_MCP_ENABLED=false, or use one of the two.",
    ),
    _Other(
        "sentry-sdk",
        "traces MCP servers where a program calls sentry_sdk.init()",
        "Pass disabled_integrations=[MCPIntegration()] to sentry_sdk.init() in MCP servers that storescope observes.",
    ),
    _Other(
        "logfire",
        "traces MCP calls where a program calls logfire.instrument_mcp()",
        "Leave logfire.instrument_mcp() out.",
    ),
    _Other(
        "openlit",
        "traces MCP calls, with their payloads, where a program calls openlit.init()",
        'Pass disabled_instrumentors=["mcp"] to openlit.init().',
    ),
)


def other_instrumentations(settings: Settings) -> Iterator[Finding]:
    """Which other instrumentations of MCP would make spans of the same calls."""
    active = False
    disabled = disabled_instrumentations(settings)
    for found in entry_points(group="opentelemetry_instrumentor"):
        owner = found.dist.name if found.dist else found.value
        if found.name == "storescope" or "mcp" not in f"{found.name} {owner}".lower():
            continue
        if disabled & {found.name, "*"}:
            yield ok(owner, "is left out by OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
            continue
        active = True
        yield warning(
            owner,
            "is loaded by the launcher and instruments MCP too: calls may be seen twice",
            f"Run: export OTEL_PYTHON_DISABLED_INSTRUMENTATIONS={','.join(sorted({*disabled, found.name}))}",
        )
    for other in _OTHERS:
        if release := _release(other.distribution):
            active = True
            yield warning(other.distribution, f"{release} {other.effect}", other.switch_off)
    if not active:
        yield ok("instrumentations", "no other one of MCP is active")


def green_threads(settings: Settings) -> Iterator[Finding]:
    """Whether threads may be replaced by greenlets, those of the exporters among them."""
    advice = {
        "gevent": "Have the launcher patch before anything starts:"
        " export OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH=patch_all",
        "eventlet": "Patch first, then call storescope.instrument() from code, in place of the launcher.",
    }
    patched_early = "OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH" in settings.otel
    for package, what_to_do in advice.items():
        if not (release := _release(package)):
            continue
        if package == "gevent" and patched_early:
            yield ok(package, f"{release}, patched by the launcher before anything starts")
        elif _is_patched(package):
            yield warning(package, f"{release} has patched this process", what_to_do)
        else:
            text = f"{release} is installed; a program that lets it patch threads may hang or lose telemetry at exit"
            yield warning(package, text, what_to_do)


def unknown_release(_: Settings) -> Iterator[Finding]:
    """Whether the installed mcpstore is of a generation that storescope knows."""
    release = _release("mcpstore")
    if release and not release.startswith(("1.5.", "2.")):
        text = f"{release} is of no generation that storescope knows"
        yield problem("mcpstore", text, "Install mcpstore 2.x (2.1 or newer) or 1.5.18.")


def frozen(_: Settings) -> Iterator[Finding]:
    """Whether this is a frozen program, which the launcher cannot reach."""
    if getattr(sys, "frozen", False):
        yield warning(
            "frozen program",
            "the launcher does not reach it, and entry points may be missing",
            "Call storescope.instrument() first thing in the program, and bundle the metadata of storescope.",
        )


def _is_patched(package: str) -> bool:
    module = sys.modules.get("gevent.monkey" if package == "gevent" else "eventlet.patcher")
    saved = getattr(module, "saved", None) or getattr(module, "already_patched", None)
    return bool(saved)


def _release(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""
