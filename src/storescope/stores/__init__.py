"""What real stores look like from outside."""

from storescope.stores.adapter import (
    UNKNOWN,
    Args,
    Attributes,
    Described,
    Kwargs,
    Outcome,
    PatchTarget,
    Reader,
    Role,
    StoreAdapter,
    Style,
    Subject,
    inside_store,
)
from storescope.stores.discovery import load_adapters

__all__ = [
    "UNKNOWN",
    "Args",
    "Attributes",
    "Described",
    "Kwargs",
    "Outcome",
    "PatchTarget",
    "Reader",
    "Role",
    "StoreAdapter",
    "Style",
    "Subject",
    "inside_store",
    "load_adapters",
]
