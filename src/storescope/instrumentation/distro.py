"""The distribution that `opentelemetry-instrument` finds: it marks the process, and sets OpenTelemetry up."""

from __future__ import annotations

import logging
import os
from typing import Any

from opentelemetry.instrumentation.distro import BaseDistro

from storescope.instrumentation.process import is_spawned_server
from storescope.notices import make_heard
from storescope.settings import Settings, claim_process, process_settings

_log = logging.getLogger(__name__)


class StorescopeDistro(BaseDistro):  # type: ignore[misc]
    """Leaves this process's id in the environment, and nothing else.

    In a server that an instrumented program spawned it loads no instrumentation at all, ours or others'.
    """

    _dormant = False

    def _configure(self, **kwargs: Any) -> None:
        self._dormant = is_spawned_server(process_settings())
        mark_process(process_settings())

    def load_instrumentor(self, entry_point: Any, **kwargs: Any) -> None:
        """Load an instrumentation, but not in a dormant server."""
        if not self._dormant:
            super().load_instrumentor(entry_point, **kwargs)


def mark_process(settings: Settings) -> None:
    """Leave this process's id in the environment for the servers that it will spawn; not where nothing is recorded."""
    if settings.sdk_disabled or is_spawned_server(settings):
        return
    claim_process()
    if hasattr(os, "register_at_fork"):
        # A program that goes into the background by forking leaves the id of a process that has ended.
        os.register_at_fork(after_in_child=claim_process)


class StorescopeConfigurator:
    """Sets the SDK up. What goes wrong is logged once, and the application runs without telemetry.

    It is no subclass of the SDK's own configurator: every server that a store spawns comes through here, and most
    of them stay dormant, so the SDK is not imported before it is wanted.
    """

    def configure(self, **kwargs: Any) -> None:
        """Set the SDK up; the launcher says which version of it does so."""
        settings = process_settings()
        if "OTEL_CONFIG_FILE" not in settings.otel:
            configure_sdk(settings, auto_version=kwargs.get("auto_instrumentation_version"))
        elif not is_spawned_server(settings) and not settings.sdk_disabled:
            _go_on_without(_configure_from_file, **kwargs)


def _configure_from_file(**kwargs: Any) -> None:
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator

    configurator: Any = type("Configurator", (_OTelSDKConfigurator,), {})
    configurator().configure(**kwargs)


def configure_sdk(settings: Settings, *, auto_version: str | None = None) -> None:
    """Set the providers that the application has not set itself, by the `OTEL_*` variables.

    Does nothing in a dormant server and where the SDK is disabled. Never raises. May wait up to 0.2 s for a
    receiver on this machine, where no endpoint and no exporter is named.
    """
    if settings.sdk_disabled or is_spawned_server(settings):
        return
    make_heard()
    _go_on_without(_set_providers, settings, auto_version)


def _set_providers(settings: Settings, auto_version: str | None) -> None:
    from storescope.instrumentation.providers import set_providers

    set_providers(settings, auto_version)


def _go_on_without(step: Any, *args: Any, **kwargs: Any) -> None:
    try:
        step(*args, **kwargs)
    except Exception:
        _log.warning("storescope: no telemetry, OpenTelemetry could not be set up", exc_info=True)
