"""Secrets such as programs have, and the texts and payloads that they turn up in.

All are made up here, from parts and a seed, so that the repository holds nothing that looks like one.
"""

from __future__ import annotations

import base64
import json
import random
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_random = random.Random(20_250_101)
_ALPHANUMERIC = string.ascii_letters + string.digits


def _letters(count: int, alphabet: str = _ALPHANUMERIC) -> str:
    """Return random letters, the first of them with a digit and both cases, as real keys have."""
    return "q7K" + "".join(_random.choices(alphabet, k=count - 3))


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@dataclass(frozen=True)
class Secret:
    """A secret: `text` as it is written, and `core`, its random part, which must not be recorded."""

    name: str
    text: str
    core: str
    #: Whether its form alone gives it away; others are known by the name that they are given.
    has_form: bool = True

    def leaks_into(self, text: str) -> bool:
        """Tell whether a text shows 12 characters of the random part, from the first or from any other on."""
        return any(self.core[start : start + 12] in text for start in range(len(self.core) - 11))


def _formed(name: str, prefix: str, core: str, suffix: str = "") -> Secret:
    return Secret(name, prefix + core + suffix, core)


def _hexadecimal(count: int) -> str:
    return "".join(_random.choices("0123456789abcdef", k=count))


def _private_key(kind: str) -> Secret:
    body = "\n".join(_letters(64, _ALPHANUMERIC + "+/") for _ in range(6))
    return Secret(
        f"{kind} private key",
        f"-----{'BEGIN'} {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----",
        body,
    )


def _jwt() -> Secret:
    header = _encoded('{"alg":"HS256","typ":"JWT"}')
    core = f"{_encoded(json.dumps({'sub': _letters(12)}))}.{_letters(43)}"
    return Secret("JWT", f"{header}.{core}", core)


def _slack_key() -> str:
    return f"{_random.randrange(10**11, 10**12)}-{_letters(24)}"


#: Keys that their form gives away.
FORMED = [
    _formed("OpenAI key", "s" + "k-", _letters(48)),
    _formed("OpenAI project key", "s" + "k-proj-", _letters(74)),
    _formed("Anthropic key", "s" + "k-ant-api03-", _letters(93, _ALPHANUMERIC + "-_")),
    _formed("GitHub token", "gh" + "p_", _letters(36)),
    _formed("GitHub server token", "gh" + "s_", _letters(36)),
    _formed("GitHub fine-grained token", "github" + "_pat_", _letters(82)),
    _formed("GitLab token", "gl" + "pat-", _letters(20)),
    _formed("Slack bot token", "xo" + "xb-", _slack_key()),
    _formed("Slack user token", "xo" + "xp-", _slack_key()),
    _formed("AWS key id", "AK" + "IA", _letters(16, string.ascii_uppercase + string.digits).upper()),
    _formed("Google API key", "AI" + "za", _letters(35)),
    _formed("Stripe key", "sk" + "_live_", _letters(24)),
    _formed("npm token", "np" + "m_", _letters(36)),
    _formed("PyPI token", "py" + "pi-AgEIcHlwaS5vcmc", _letters(120)),
    _formed("Hugging Face token", "h" + "f_", _letters(34)),
    _formed("SendGrid key", "S" + "G.", f"{_letters(22)}.{_letters(43)}"),
    _formed("Twilio key", "S" + "K", _hexadecimal(32)),
    _formed("Google access token", "ya" + "29.", _letters(60)),
    _formed("Shopify token", "shp" + "at_", _hexadecimal(32)),
    _formed("DigitalOcean token", "do" + "p_v1_", _hexadecimal(64)),
    _formed("Vault token", "hv" + "s.", _letters(24)),
    _formed("Supabase token", "sb" + "p_", _hexadecimal(40)),
    _formed("Atlassian token", "ATA" + "TT3", _letters(60)),
    _formed("Linear key", "lin" + "_api_", _letters(40)),
    _formed("Telegram bot", "https://api.telegram.org/bo" + "t123456789:", _letters(35), "/getMe"),
    _formed("Discord webhook", "https://discord.com/api/webhooks/1/", _letters(40)),
    _formed("webhook secret", "whs" + "ec_", _letters(32)),
    _formed("Docker token", "dck" + "r_pat_", _letters(27)),
    _formed("age key", "AGE-SECRET" + "-KEY-1", _letters(58, string.ascii_uppercase + string.digits).upper()),
    _jwt(),
    _private_key("RSA "),
    _private_key("EC "),
    _private_key("OPENSSH "),
    _private_key(""),
]

#: URLs and headers, whose secret stands at a place of its own.
PLACED = [
    _formed("URL with password", "https://bob:", _letters(20), "@db.example.org/a"),
    _formed("URL with token", "https://", _letters(40), "@example.org/repo.git"),
    _formed("PostgreSQL URL", "postgres://bob:", _letters(16), "@db.example.org:5432/shop"),
    _formed("Redis URL", "redis://:", _letters(16), "@cache.example.org:6379/0"),
    _formed("MongoDB URL", "mongodb+srv://bob:", _letters(16), "@cluster0.example.net/?retryWrites=true"),
    _formed("AMQP URL", "amqp://bob:", _letters(8) + "/" + _letters(8), "@mq.example.org/v"),
    _formed("signed query", "https://store.example.org/f?X-Amz-Signature=", _hexadecimal(64), "&x=1"),
    _formed("SAS query", "https://acct.example.net/c?sv=2022&sig=", _letters(40) + "%3D"),
    _formed("token in a query", "https://example.org/mcp?page=2&access_token=", _letters(32)),
    _formed("Slack webhook", "https://hooks.slack" + ".com/services/", f"T0{_letters(8)}/B0/{_letters(24)}"),
    _formed("Bearer", "Authorization: Bearer ", _letters(40)),
    _formed("Bearer alone", "Bearer ", _letters(40)),
    _formed("Basic", "Authorization: Basic ", base64.b64encode(f"bob:{_letters(16)}".encode()).decode()),
    _formed("Basic alone", "Basic ", base64.b64encode(f"bob:{_letters(16)}".encode()).decode()),
    _formed("Authorization of another kind", "Authorization: Token ", _letters(32)),
    _formed("Digest", 'Authorization: Digest username="bob", response="', _hexadecimal(32), '", qop=auth'),
    _formed("X-Api-Key", "X-Api-Key: ", _letters(32)),
    _formed("X-Auth-Token", "x-auth-token: ", _letters(32)),
    _formed("Cookie", "Cookie: theme=dark; sid=", _letters(32)),
    _formed("Cookie with quotes", 'Cookie: theme="dark"; sid=', _letters(32)),
    _formed("Set-Cookie", "Set-Cookie: session=", _letters(32), "; Path=/; HttpOnly"),
]  # fmt: skip

#: Secrets of no form: only the name beside them tells.
NAMED = [
    Secret("password", password := _letters(14), password, has_form=False),
    Secret("password of signs", password := _letters(8) + "$!%/+" + _letters(6), password, has_form=False),
    Secret("AWS secret key", password := _letters(40, _ALPHANUMERIC + "/+"), password, has_form=False),
    Secret("Twilio auth token", password := _hexadecimal(32), password, has_form=False),
]

SECRETS = [*FORMED, *PLACED, *NAMED]

#: Names that secrets are given.
NAMES = [
    "password", "passwd", "db_password", "dbPassword", "PGPASSWORD", "pass", "dbPass", "pwd", "passphrase",
    "secret", "client_secret", "clientSecret", "AWS_SECRET_ACCESS_KEY", "token", "access_token", "refreshToken",
    "GITHUB_TOKEN", "auth_token", "api_key", "apiKey", "api-key", "X-Api-Key", "OPENAI_API_KEY", "private_key",
    "authorization", "Authorization", "Proxy-Authorization", "cookie", "Set-Cookie", "credentials",
    "session_id", "auth", "pin", "AccountKey",
]  # fmt: skip

#: How a name and its value are written in text.
_TEXTS = [
    "{name}={value}",
    "{name} = {value}",
    "{name}: {value}",
    "{name}='{value}'",
    '{name}="{value}"',
    '{{"{name}": "{value}"}}',
    "{{'{name}': '{value}'}}",
    '{{\\"{name}\\": \\"{value}\\", \\"port\\": 5432}}',
    "login failed for bob ({name}={value}, port=5432)",
    "connect(user='bob', {name}='{value}')",
    'config["{name}"] = "{value}"',
    "server: x\n{name}: {value}\nport: 5432",
    "server: x\n  {name}: |\n    {value}\nport: 5432",
    "export {name}={value}",
    "curl -H '{name}: {value}' https://example.org/",
    "run --{name} {value} --verbose",
    "run --{name}={value} --verbose",
    "<{name}>{value}</{name}>",
    "[('{name}', '{value}'), ('Accept', '*/*')]",
    "{name} => {value}",
    "{name}=b'{value}'",
    "{name}=Secret('{value}')",
    "user=bob;{name}={value};host=db",
    "server: x\n  {name}:\n    {value}\nport: 5432",
    "{name}:\n  - {value}\n  - other\nport: 5432",
    "{name}: !vault |\n  {value}",
    "{name} -> {value}",
    "{name}%3D{value}%26x%3D1",
]

#: Texts that a secret with a form stands in.
_SENTENCES = [
    "{value}",
    "used {value} as the key",
    "got '{value}', wanted another",
    'the answer was "{value}".',
    "first line\n{value}\nlast line",
    "key={value}&x=1",
]


def texts(secret: Secret) -> Iterator[str]:
    """Yield texts that hold the secret, as messages, logs and files do."""
    written = {secret.text, secret.text.replace("\n", "\\n")}
    for value in sorted(written):
        if secret.has_form:
            yield from (sentence.format(value=value) for sentence in _SENTENCES)
        elif "\n" not in value:
            yield from (text.format(name=name, value=value) for text in _TEXTS for name in NAMES)


def payloads(secret: Secret) -> Iterator[Any]:
    """Yield payloads that hold the secret: by name, nested, in text, and in JSON that is a text."""
    value = secret.text
    for name in NAMES:
        named: Any = {"host": "db", name: value, "port": 5432}
        yield named
        yield {"config": [{"services": {"db": named}}]}
        yield {name: {"first": [value], "second": (value,)}}
        yield {"env": [{"name": name, "value": value}]}
        yield {"headers": [[name, value]]}
        yield {"argv": ["run", f"--{name}", value, "--verbose"]}
        yield {"body": json.dumps(named)}
        yield {"body": json.dumps({"inner": json.dumps(named)})}
        yield {"body": repr(named)}
    for text in texts(secret):
        yield {"content": [{"type": "text", "text": text}], "is_error": False}
        yield [{"a": ("x", [text])}]
    if secret.has_form:
        yield {value: 1}
        yield {"lines": value.split("\n")}
        yield value


#: Texts without a secret: they are recorded as they are.
HARMLESS = [
    "the token count is 12",
    "expected 3 tokens, got 4",
    "max_tokens=4096, temperature=0.5",
    '{"max_tokens": 4096, "prompt_tokens": 12, "token_count": 7}',
    "token_limit: 100",
    "token_type: bearer",
    "author: Jane",
    "Authors: Jane and Bob",
    "pinned: true",
    "passed: 12, failed: 0",
    "a passenger: Bob",
    "the secretary: Ann",
    "passwordless: true",
    "password: null",
    "tokenizer: cl100k",
    "design: simple, signal: 15, side: left",
    "a basic example of bearer bonds",
    "Basic usage is described below",
    "the bearer token is invalid",
    "keyboard: de, monkey: 1",
    "the key 'name' is missing",
    "KeyError: 'path'",
    "read /home/bob/secrets.txt and /etc/passwd",
    "mkdir -p /a/b && sort -u names.txt",
    "- a list\n- of items\nkey:\n  - a\n  - b",
    "docker run -u 1000:1000 nginx:1.25",
    "task-runner-0123456789abcdef, risk-based-0123456789",
    "https://example.org/a/b.html#top",
    "https://unpkg.com/@scope/package@1.0.0/index.js",
    "http://127.0.0.1:8080/mcp",
    "bob@example.org wrote to alice@example.org",
    "git@github.com:org/repo.git",
    "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    "commit 9fceb02d0ae598e95dc970b74767f19372d61af8",
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "2025-01-01T12:30:00Z",
    "C:\\Users\\bob\\a.txt",
    "def f(a: int = 3, *, b: str = 'x') -> str: ...",
    "x = {'a': [1, 2, 3], 'b': {'c': None}}",
    "SELECT id, name FROM users WHERE id = 7",
    "Zürich, 世界, 🙂",
    "",
]

#: Payloads without a secret.
HARMLESS_PAYLOADS: list[Any] = [
    {"path": "/a/b.txt", "n": 3},
    {"author": "Jane", "pinned": True, "passed": 12, "secretary": "Ann", "keyboard": "de"},
    {"max_tokens": 4096, "tokens": 12, "token_count": 7, "password": None, "use_auth": False},
    {"id": "3f2504e0-4f89-11d3-9a0c-0305e82c3301", "commit": "9fceb02d0ae598e95dc970b74767f19372d61af8"},
    {"content": [{"type": "text", "text": "the token count is 12"}], "is_error": False},
    {"env": [{"name": "HOME", "value": "/home/bob"}], "argv": ["-v", "--path", "/a"]},
    [1, 2.5, None, True, "x", [], {}],
    "plain",
    None,
]
