"""The key of `storescope.call.digest`: the user's, else a random one that all processes with one folder share."""

from __future__ import annotations

import logging
import secrets
from hashlib import blake2b
from typing import Final

from storescope.export.directory import TelemetryDirectory
from storescope.settings import Settings

_log: Final = logging.getLogger(__name__)

FILE_NAME: Final = "digest.key"
_KEY_BYTES: Final = 32


def digest_key(settings: Settings) -> bytes:
    """Return the 32 bytes that digests are keyed with, from the settings or from `digest.key` in their folder.

    Reads the file, and makes it where it is missing, so it is for once in a process. Where it cannot be had or is
    not whole, returns random bytes: this process's calls are still comparable among themselves.
    """
    if settings.digest_key is not None:
        text = settings.digest_key.encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=_KEY_BYTES).digest()
    key = secrets.token_bytes(_KEY_BYTES)
    directory = TelemetryDirectory(settings.directory, settings.directory_max_bytes)
    try:
        kept = directory.keep(FILE_NAME, key)
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        # Whoever writes telemetry there says that it cannot be done; where nothing is written, little is lost.
        _log.info("%s cannot be kept: %s", settings.directory / FILE_NAME, error)
        return key
    if len(kept) == _KEY_BYTES:
        return kept
    _log.warning(
        "%s has %d bytes instead of %d; digests of calls are comparable within this process only: remove it",
        settings.directory / FILE_NAME,
        len(kept),
        _KEY_BYTES,
    )
    return key
