"""Which adapters are in force: ours and third parties' come in through one entry-point group, yours by name."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Final

from storescope.settings import Settings
from storescope.stores.adapter import StoreAdapter
from storescope.stores.named_callables import NamedCallables

GROUP: Final = "storescope_store"

_log = logging.getLogger(__name__)


def load_adapters(settings: Settings) -> list[StoreAdapter]:
    """Make one adapter of each kind that is installed and not switched off, and one of `STORESCOPE_TARGETS`.

    A kind that cannot be loaded is logged and left out.
    """
    adapters: list[StoreAdapter] = [NamedCallables(settings.targets)] if settings.targets else []
    installed = entry_points(group=GROUP)
    for name in settings.disabled_stores:
        if name not in installed.names:
            known = ", ".join(sorted(installed.names))
            _log.warning(
                "STORESCOPE_DISABLED_STORES: no store adapter is called %r; there are %s", name, known
            )
    for entry_point in installed:
        if entry_point.name in settings.disabled_stores:
            continue
        try:
            adapters.append(entry_point.load()())
        except (Exception, SystemExit):  # a module may try to end the program that imports it
            _log.warning("store adapter %r could not be loaded", entry_point.name, exc_info=True)
    return adapters
