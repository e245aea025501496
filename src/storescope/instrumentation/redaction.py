"""Error text that may leave the process: cut, freed of secrets, cut again."""

from __future__ import annotations

import re
from typing import Final

#: Characters looked at, and characters kept. The first bound keeps a huge message from costing the caller time.
LOOKED_AT: Final = 1024
KEPT: Final = 256

MASK: Final = "[redacted]"

#: What is a secret's name, alone or as a part of a longer one.
_NAMES: Final = (
    r"password|passwd|passphrase|passcode|pwd|secret|token|api[ _-]?key|access[_-]?key|private[_-]?key"
    r"|credential|session[_-]?id"
)
#: Between a name and its value: the rest of the name, a closing quote, and `:`, `=` or `=>`.
_IS: Final = r"[\w.-]{0,40}(?:\\{0,3}[\"'])?\s{0,3}(?:=>|[:=])\s{0,3}"
#: A value: an opening bracket or two, then a quoted text with its escapes, or all up to what ends a bare one.
_VALUE: Final = r"""[\[{(]{0,2}(?:\\{0,3}"(?:[^"\\]|\\.)*"?|\\{0,3}'(?:[^'\\]|\\.)*'?|[^\s,;&"'}\])]+)"""
#: Headers whose whole value is secret: a scheme and a token, or several cookies.
_HEADERS: Final = r"(?:proxy-)?authorization|(?:set-)?cookie"

# Every repetition is bounded, or of characters that the next element excludes, so that matching takes time linear in
# the (bounded) text.
_SECRETS: Final = re.compile(
    "|".join(
        (
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            r"(?P<scheme>\b[a-z][a-z0-9+.-]{0,20}://)[^\s\"'<>]{1,200}@",
            r"(?P<query>\?[\w.~%-]{1,64}=)[^\s\"'<>)\]}#]+",
            r"\beyJ[\w-]{5,}(?:\.[\w-]*){1,2}",
            rf"(?P<header>(?:{_HEADERS}){_IS})(?:\\{{0,3}}\"(?:[^\"\\]|\\.)*\"?|\\{{0,3}}'(?:[^'\\]|\\.)*'?|[^\r\n\"'}}]+)",
            rf"(?P<key>(?:{_NAMES}){_IS}){_VALUE}",
            rf"(?P<word>(?<![A-Za-z])(?:pass|auth|pin){_IS}){_VALUE}",
            r"(?P<bearer>\b(?:bearer|basic)\s+)[\w.~+/=-]{3,}",
            r"\b(?:sk|pk|rk|ghp|gho|ghu|ghs|glpat|xox[abprs])[-_][\w-]{10,}",
            r"\bgithub_pat_\w{20,}",
            r"\bAKIA[0-9A-Z]{16}\b",
        )
    ),
    re.IGNORECASE | re.DOTALL,
)


def _mask(match: re.Match[str]) -> str:
    if match["scheme"]:
        return f"{match['scheme']}{MASK}@"
    kept = match["query"] or match["header"] or match["key"] or match["word"] or match["bearer"] or ""
    return f"{kept}{MASK}"


def redact(text: str) -> str:
    """Replace what looks like a secret by `[redacted]`, leaving the name of its key."""
    return _SECRETS.sub(_mask, text)


def error_text(text: str) -> str:
    """Return at most 256 characters of an error's text, without its secrets."""
    return redact(text[:LOOKED_AT])[:KEPT]
