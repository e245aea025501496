"""Profiles as text: the top functions in a table."""

from __future__ import annotations

from pathlib import Path

from storescope.core.profiling.profile import Profile, check_profile


def text_bytes(profile: Profile) -> bytes:
    """Encode `profile.text()`: the 20 top functions by cumulative time."""
    return check_profile(profile).text().encode("utf-8", "replace")


def write_text(profile: Profile, path: str | Path) -> None:
    """Write the table to a file; raises OSError."""
    Path(path).write_bytes(text_bytes(profile))
