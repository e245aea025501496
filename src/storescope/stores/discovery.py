"""Which adapters are installed: ours and third parties' come in through one entry-point group."""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from typing import Final

from storescope.stores.adapter import StoreAdapter

GROUP: Final = "storescope_store"

_log = logging.getLogger(__name__)


def load_adapters() -> list[StoreAdapter]:
    """Make one adapter of each kind that is installed. A kind that cannot be loaded is logged and left out."""
    adapters: list[StoreAdapter] = []
    for entry_point in entry_points(group=GROUP):
        try:
            adapters.append(entry_point.load()())
        except Exception:
            _log.warning("store adapter %r could not be loaded", entry_point.name, exc_info=True)
    return adapters
