"""What real stores look like from outside."""

from storescope.stores.adapter import Described, Outcome, PatchTarget, Reader, Role, StoreAdapter, Style, Subject
from storescope.stores.discovery import load_adapters

__all__ = [
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
