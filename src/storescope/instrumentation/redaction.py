"""Error text that may leave the process: cut, freed of secrets, cut again."""

from __future__ import annotations

import re
from typing import Final

#: Characters looked at, and characters kept. The first bound keeps a huge message from costing the caller time.
LOOKED_AT: Final = 1024
KEPT: Final = 256

MASK: Final = "[redacted]"

_KEYS: Final = (
    r"[\w.-]{0,40}(?:password|passwd|passphrase|pwd|secret|token|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|authorization|cookie|credential|session[_-]?id)[\w.-]{0,40}"
)
# Every repetition is bounded or of one character class that the next element excludes, so that matching takes
# time linear in the (bounded) text.
_SECRETS: Final = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@]{1,200}@",
            r"(?P<query>\?[\w.~%-]{1,64}=)[^\s\"'<>)\]}#]+",
            r"\beyJ[\w-]{5,}(?:\.[\w-]*){1,2}",
            rf"(?P<key>(?<![\w.-]){_KEYS}(?:\\{{0,3}}[\"'])?\s{{0,3}}[:=]\s{{0,3}}(?:(?:bearer|basic|digest)\s+)?)"
            r"(?:\\{0,3}\"[^\"]*\"?|\\{0,3}'[^']*'?|[^\s,;&\"'}\])]+)",
            r"(?P<bearer>\b(?:bearer|basic)\s+)[\w.~+/=-]{6,}",
            r"\b(?:sk|pk|rk|ghp|gho|ghu|ghs|glpat|xox[abprs])[-_][\w-]{10,}",
            r"\bgithub_pat_\w{20,}",
            r"\bAKIA[0-9A-Z]{16}\b",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)


def _mask(match: re.Match[str]) -> str:
    kept = match["scheme"] or match["query"] or match["key"] or match["bearer"] or ""
    return f"{kept}{MASK}@" if match["scheme"] else f"{kept}{MASK}"


def redact(text: str) -> str:
    """Replace what looks like a secret by `[redacted]`, leaving the name of its key."""
    return _SECRETS.sub(_mask, text)


def error_text(text: str) -> str:
    """Return at most 256 characters of an error's text, without its secrets."""
    return redact(text[:LOOKED_AT])[:KEPT]
