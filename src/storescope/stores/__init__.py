"""What real stores look like from outside."""

from storescope.stores.adapter import (
    Attributes,
    Described,
    Outcome,
    PatchTarget,
    Reader,
    Role,
    StoreAdapter,
    Style,
    Subject,
)
from storescope.stores.discovery import load_adapters

__all__ = [
    "Attributes",
    "Described",
    "Outcome",
    "PatchTarget",
    "Reader",
    "Role",
    "StoreAdapter",
    "Style",
    "Subject",
    "load_adapters",
]
