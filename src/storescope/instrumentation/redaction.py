"""What may leave the process of a text: all but its secrets.

A secret is known by its own form (a key of a well-known vendor, a JWT, a private key, credentials of a URL) or by
the name that it is given. Everything here takes time linear in the text that it looks at.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Final

MASK: Final = "[redacted]"

#: How far behind a cut a secret is looked at, so that what the cut leaves of it is known for a secret.
LOOK_AHEAD: Final = 512
#: Characters of an error's text that are looked at, and that are kept. The first keeps a huge one from costing time.
LOOKED_AT: Final = 1024
KEPT: Final = 256

#: Secrets that their form gives away, each with what a text that holds one has in it, in small letters: looking for
#: that is far quicker. What a group holds is not part of the secret.
_FORMS: Final = tuple(
    (sign, re.compile(form, re.DOTALL))
    for sign, form in (
        (
            "private key",
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?"
            r"(?:-----END [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
        ),
        # `host:port/@scope` has no credentials.
        ("://", r"(://)(?:[^\s\"'<>/]{1,400}|[^\s\"'<>/:]{0,64}:(?!\d{1,5}[/?#])[^\s\"'<>]{1,400})(?=@)"),
        ("?", r"(\?[\w.~%-]{1,64}=)(?!\[redacted\])[^\s\"'<>)\]}#]+"),
        ("eyj", r"eyJ(?:[\w-]{20,}|[\w-]{5,}(?=\.))(?:\.[\w-]*){0,4}"),
        # A token is long or has a digit, and Base64 a digit, a `=` or a capital inside a word; prose has not.
        ("bearer", r"((?i:bearer)\s{1,3})(?=[A-Za-z.~+/=_-]{0,64}\d|[\w.~+/=-]{16})[\w.~+/=-]{3,}"),
        ("basic", r"((?i:basic)\s{1,3})(?=[\w+/]{0,64}(?:[a-z][A-Z]|[\d=]))[\w+/=]{6,}"),
        ("-u", r"(\s(?:-u|--user)[ =][\"']?(?!\d{1,6}:\d)[^\s:\"']{1,64}:)[^\s\"']+"),
        ("k_", r"(?:sk|rk|pk)_(?:live|test)_\w{10,}"),
        ("sk-", r"\bsk-(?=[A-Za-z_-]{0,80}\d)[\w-]{10,}"),
        ("gh", r"\bgh[pousr]_\w{10,}"),
        ("github_pat_", r"\bgithub_pat_\w{20,}"),
        ("gl", r"\bgl[a-z]{2,6}-[\w-]{16,}"),
        ("npm_", r"\bnpm_\w{30,}"),
        ("pypi-", r"\bpypi-[\w-]{16,}"),
        ("hf_", r"\bhf_\w{20,}"),
        ("xox", r"\bxox[abeoprs]-[\w-]{10,}"),
        ("xapp-", r"\bxapp-[\w-]{10,}"),
        ("hooks.slack.com", r"(hooks\.slack\.com/(?:services|workflows)/)[\w/-]+"),
        ("shp", r"\bshp(?:at|ca|pa|ss)_[0-9a-fA-F]{16,}"),
        ("_v1_", r"\bdo[opr]_v1_[0-9a-f]{20,}"),
        ("hv", r"\bhv[sbr]\.[\w-]{16,}"),
        ("sbp_", r"\bsbp_[0-9a-f]{16,}"),
        ("atatt3", r"\bATATT3[\w=-]{20,}"),
        ("lin_api_", r"\blin_api_\w{20,}"),
        ("1//0", r"\b1//0[\w-]{20,}"),
        ("/bot", r"(/bot)\d{6,12}:[\w-]{20,}"),
        ("webhook", r"((?:discord(?:app)?\.com/api/webhooks|webhook\.office\.com/webhookb2)/)[\w/@-]+"),
        ("ya29.", r"\bya29\.[\w-]{20,}"),
        ("whsec_", r"\bwhsec_[\w+/=-]{16,}"),
        ("dckr_", r"\bdckr_[a-z]{2,6}_[\w-]{16,}"),
        ("age-secret-key-", r"\bAGE-SECRET-KEY-1[0-9A-Z]{20,}"),
        ("private-lines:", r"(Private-Lines: \d{1,4}\r?\n)(?:[A-Za-z0-9+/=]{1,100}\r?\n?)+"),
        ("akia", r"\bAKIA[0-9A-Z]{16}\b"),
        ("asia", r"\bASIA[0-9A-Z]{16}\b"),
        ("aiza", r"\bAIza[\w-]{30,}"),
        ("sg.", r"\bSG\.[\w-]{10,}(?:\.[\w-]*)?"),
        ("sk", r"\bSK[0-9a-f]{32}\b"),
    )
)

#: What is a secret's name, alone or as a part of a longer one.
_LONG_NAMES: Final = (
    r"password(?!less)|passwd|passphrase|passcode|pwd|secret(?!ar)|token(?!i[sz])|credential|mnemonic"
    r"|(?:api|access|account|auth|encryption|master|private|shared|signing)[ _.-]?key"
    r"|sess(?:ion)?[_-]?id|authorization|cookie|authentication[_-]?string|connection[_-]?string|bearer"
    r"|密码|口令|令牌|密钥"
)
#: What is one between other words only: `auth`, `db_pass` and `dbPass` are, `author` and `passed` are not.
_SHORT_NAMES: Final = "pass|auth|pin|otp|sid|sig|jwt|pw|dsn|cvv|cvc|ssn"
#: What a text that holds one of these names has in it, in small letters.
_SIGNS: Final = tuple(
    (
        "pass pwd secret token credential mnemonic key sess auth cookie connection bearer"
        " 密码 口令 令牌 密钥 pin otp sid sig jwt pw dsn cvv cvc ssn"
    ).split()
)
_NAME: Final = re.compile(
    rf"(?i:{_LONG_NAMES})"
    rf"|(?<![A-Za-z])(?i:{_SHORT_NAMES})(?!(?i:[a-z]))"
    r"|(?<=[a-z])(?:Pass|Auth|Pin|Otp|Sid|Sig|Jwt)(?![a-z])"
)
#: What says something about a secret and is none.
_ABOUT: Final = re.compile(
    r"(?i:counts?|limits?|usage|budget|type|length|policy|ttl|expir\w*|expires?[_-]?(?:in|at))$"
)
_COUNTED: Final = re.compile(r"(?i:tokens)$")
#: Names whose value is a whole line: a scheme and a token, several cookies, several words.
_LINES: Final = re.compile(r"(?i:authorization|cookie|passphrase|mnemonic)")
_LONGEST_NAME: Final = 80

#: A name and what stands between it and its value, in the ways of headers, JSON, YAML, code, shells and XML.
_GIVEN: Final = re.compile(
    r"(?<![\w.-])(?P<flag>--?[A-Za-z][\w.-]*)[ \t]{1,3}(?!-)"
    r"|(?<![\w.-])(?P<name>(?:(?i:api|access|account|auth|encryption|master|private|shared|signing) )?[\w.-]+)"
    r"(?:\\{0,7}[\"'])?\]?\s{0,3}(?:[=-]>|%3[AaDd]|:\s?(?:str|bytes|SecretStr)\s?=|!?[:=\uff1a\uff1d]{1,3})\s{0,12}"
    r"(?:!!?[\w-]{1,20}[ \t]{1,3})?"
    r"|\([bu]?[\"'](?P<pair>[\w.-]+)[\"'],\s{0,3}"
    r"|<(?P<tag>[\w.:-]+)>"
)
_QUOTED: Final = (
    r"[bBfFrRuU]{0,2}(?:\"(?:[^\"\\]|\\.)*\"?|'(?:[^'\\]|\\.)*'?"
    r"|(\\{1,7})([\"']).*?(?:(?<!\\)\1\2|\Z))"
)
#: A quote or a bracket belongs to a bare value where it goes on behind it, but not with another name.
_GOES_ON: Final = r"(?=[\w$!@#%^*+/~-])(?![\w .-]{0,30}[:=])"
#: A block or a list of YAML, indented below its name.
_BLOCK: Final = (
    r"[|>][+-]?[ \t]{0,3}\r?\n[ \t]+[^\n]*(?:\n[ \t]+[^\n]*)*"
    r"|(?:-[ \t]+[^\n]*(?:\n[ \t]*(?=-[ \t]))?)+"
)
_VALUE: Final = re.compile(
    rf"{_BLOCK}"
    r"|\w{0,40}\([^)]*\)?[^\s,;&\"'}\])<]*"
    r"|[\[{](?:[^\[\]{}]|[\[{][^\]}]*[\]}]?)*[\]}]?"
    rf"|{_QUOTED}"
    rf"|(?:[^\s,;&\"'}}\])<]|[,;&\"'}}\])<]{_GOES_ON})+",
    re.DOTALL,
)
_LINE_VALUE: Final = re.compile(
    rf"{_BLOCK}"
    r"|[\[{(](?:[^\[\]{}]|[\[{][^\]}]*[\]}]?)*[\]}]?"
    rf"|{_QUOTED}"
    r"|(?:[^\r\n\"'}=]|=(?:\"[^\"\r\n]*\"?|'[^'\r\n]*'?)?|[\"'](?=[\w;=]))+",
    re.DOTALL,
)
_NO_SECRET: Final = re.compile(r"(?i:true|false|null|none|nil|undefined|yes|no|\[redacted\])(?![\w-])")
_NUMBER: Final = re.compile(r"-?\d{1,12}(?:\.\d{1,6})?(?![\w.-])")

_Span = tuple[int, int]


@functools.lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Tell whether values of this name are secrets, as those of `password`, `X-Api-Key` and `dbPass` are."""
    return bool(_NAME.search(name)) and not _ABOUT.search(name)


def is_count(name: str) -> bool:
    """Tell whether a number of this name counts, as `max_tokens` does, and so is no secret."""
    return bool(_COUNTED.search(name))


class Redactor:
    """Replaces secrets by `[redacted]` and leaves the names that they were given."""

    __slots__ = ("_extra",)

    def __init__(self, extra: re.Pattern[str] | None = None) -> None:
        #: What else is secret here. Its time is its author's business; the text that it sees is bounded by callers.
        self._extra = extra

    def __repr__(self) -> str:
        return f"Redactor({self._extra!r})"

    def text(self, text: str) -> str:
        """Redact a whole text."""
        return self.head(text, len(text))

    def head(self, text: str, length: int) -> str:
        """Redact the first `length` characters; a secret that goes on behind them is known all the same."""
        seen = text[: length + LOOK_AHEAD]
        return _masked(seen, length, [*_formed(seen), *_named(seen), *self._found_extra(seen)])

    def error_text(self, text: str) -> str:
        """Return at most 256 characters of an error's text, redacted, and fit for UTF-8."""
        return encodable(self.head(text, LOOKED_AT - LOOK_AHEAD))[:KEPT]

    def matched(self, text: str) -> str:
        """Redact only what the pattern given to this redactor finds."""
        return _masked(text, len(text), self._found_extra(text))

    def _found_extra(self, text: str) -> list[_Span]:
        return [] if self._extra is None else [match.span() for match in self._extra.finditer(text)]


def encodable(text: str) -> str:
    """Escape lone surrogates, which UTF-8 does not have."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _formed(text: str) -> Iterator[_Span]:
    """Find what its form gives away."""
    lower = text.lower()
    for sign, form in _FORMS:
        if sign in lower:
            for match in form.finditer(text):
                yield match.end(1) if match.lastindex else match.start(), match.end()


def _named(text: str) -> Iterator[_Span]:
    """Find the values of secrets' names."""
    lower = text.lower()
    if not any(sign in lower for sign in _SIGNS):
        return
    position = 0
    while given := _GIVEN.search(text, position):
        position = given.end()
        name = given[given.lastindex or 0][-_LONGEST_NAME:]
        if not is_secret_name(name) or _NO_SECRET.match(text, position):
            continue
        if is_count(name) and _NUMBER.match(text, position):
            continue
        pattern = _LINE_VALUE if _LINES.search(name) else _VALUE
        if value := pattern.match(text, position):
            yield value.span()
            position = value.end()


def _masked(text: str, length: int, secrets: list[_Span]) -> str:
    """Return the first `length` characters with a mask for each stretch of secrets, which may overlap."""
    if not secrets:
        return text[:length]
    pieces: list[str] = []
    done = 0
    for start, end in sorted(secrets):
        if start >= length:
            break
        if start < end and done < end:
            if start >= done:
                pieces += text[done:start], MASK
            done = end
    pieces.append(text[done:length])
    return "".join(pieces)
