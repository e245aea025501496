"""What may be kept of an error's text."""

from __future__ import annotations

import time

import pytest

from storescope.instrumentation.redaction import KEPT, LOOKED_AT, MASK, error_text, redact

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEhunter2\nabc=\n-----END RSA PRIVATE KEY-----"

#: A text, and the secret in it.
SECRETS = [
    ("login failed: password=hunter2 for bob", "hunter2"),
    ("login failed: password = hunter2", "hunter2"),
    ("passwd:hunter2", "hunter2"),
    ('bad request {"password": "hunter2 and more", "user": "bob"}', "hunter2 and more"),
    ("bad request {'api_key': 'hunter2'}", "hunter2"),
    ("connect(user='bob', db_password='hunter2', port=5432)", "hunter2"),
    ("PGPASSWORD=hunter2 psql failed", "hunter2"),
    ("AWS_SECRET_ACCESS_KEY=hunter2/abc+def", "hunter2/abc+def"),
    ("token: s3cr3t-t0ken is not valid", "s3cr3t-t0ken"),
    ("access_token=abc123&expires=5", "abc123"),
    ("x-api-key: abc123", "abc123"),
    ("Authorization: Bearer abc123def456", "abc123def456"),
    ("authorization: Basic dXNlcjpodW50ZXIy", "dXNlcjpodW50ZXIy"),
    ("got 401 with Bearer abc123def456", "abc123def456"),
    (f"the token was {JWT}", JWT),
    (f"signature of {JWT[:40]} is not valid", JWT[:40]),
    (f"cannot read {PEM} here", "MIIEhunter2"),
    (f"cannot read {PEM[:45]}", "MIIEhunter2"),
    ("could not connect to postgres://bob:hunter2@db.example.org/x", "hunter2"),
    ("could not connect to https://hunter2@example.org", "hunter2"),
    ("could not connect to https://bob:p@ss:w0rd@example.org/x", "p@ss:w0rd"),
    ("GET https://example.org/mcp?key=hunter2&x=1 failed", "hunter2"),
    ("GET https://example.org/mcp?k=1&code=hunter2#top failed", "hunter2"),
    ("Set-Cookie: sid=hunter2; Path=/", "hunter2"),
    ("cookie=hunter2", "hunter2"),
    ("client_secret: 'hunter2'", "hunter2"),
    ("sessionId=hunter2", "hunter2"),
    ("used sk-abcdefghijklmnop1234 as the key", "sk-abcdefghijklmnop1234"),
    ("used ghp_abcdefghijklmnop1234", "ghp_abcdefghijklmnop1234"),
    ("used AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
    ('{"credentials": "hunter2"}', "hunter2"),
    ('{\\"password\\": \\"hunter2\\"}', "hunter2"),
    ("PASSWORD=hunter2", "hunter2"),
    ("Authorization: Token hunter2-and-more", "hunter2-and-more"),
    ("Cookie: a=first; b=hunter2", "hunter2"),
    ("could not connect to postgres://bob:hun/ter2@db/x", "ter2"),
    ('{"password": "hun\\"ter2"}', "ter2"),
    ('{"password": ["hunter2"]}', "hunter2"),
    ('{"credentials": {"user": "bob", "pass": "hunter2"}}', "hunter2"),
    ("password => hunter2", "hunter2"),
    ("got 401 with Bearer ab1", "ab1"),
    ("API key: hunter2", "hunter2"),
    ("x" * 60 + "password=hunter2", "hunter2"),
]


@pytest.mark.parametrize(("text", "secret"), SECRETS)
def test_a_secret_is_masked(text: str, secret: str) -> None:
    """Passwords, tokens, keys, cookies and credentials of URLs do not survive; that they were there is said."""
    kept = error_text(text)

    assert secret not in kept
    assert MASK in kept


@pytest.mark.parametrize(
    "text",
    [
        "no note is called 'holidays'",
        "Tool 'lab_zzz' not found and no similar suggestions available",
        "MCP request disconnected for service instance 20592210-1e32-5c63-a1aa-ca40d2acae84",
        "division by zero",
        "expected 3 tokens, got 4",
        "Connection refused: http://127.0.0.1:8080/mcp",
        "path /home/bob/secrets.txt does not exist",
    ],
)
def test_plain_text_is_kept(text: str) -> None:
    """What holds no secret is left as it is."""
    assert error_text(text) == text


def test_the_name_of_a_key_is_kept() -> None:
    """A reader still sees which value was wrong, and what follows it."""
    assert redact("password=hunter2 for bob") == f"password={MASK} for bob"
    assert redact("see https://bob:x@example.org/a") == f"see https://{MASK}@example.org/a"


def test_a_text_is_cut() -> None:
    """No more than 256 characters are kept, and nothing after the first 1,024 is looked at."""
    assert error_text("x" * 5000) == "x" * KEPT
    assert error_text("password=" + "y" * LOOKED_AT + " tail") == f"password={MASK}"


def test_a_secret_at_the_cut_is_masked() -> None:
    """A secret that the first cut goes through, or that the last one would, is masked all the same."""
    assert "hunter" not in error_text("x" * (LOOKED_AT - 15) + " password=hunter2hunter2")
    assert "hunter" not in error_text("x" * (KEPT - 13) + " password=hunter2")


@pytest.mark.parametrize(
    "piece",
    ["password", "password=", "a", "a.", "-", "eyJ", "eyJaaaaaa.", "http://", "http://a", "?a=", "-----BEGIN ", "'\"",
     "bearer ", "bearer", " ", "sk-", "token: ", "secret'", "passwordpassword_", "x_token_"],
)  # fmt: skip
def test_redaction_takes_linear_time(piece: str) -> None:
    """No text makes the patterns backtrack: 100 KB of anything is done in a fraction of a second."""
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    redact(text)
    small = time.process_time() - started

    assert small < 2.0


def test_error_text_is_quick_whatever_the_size() -> None:
    """A message of 100 KB costs no more than its first 1,024 characters."""
    text = "password=" * 11_000
    started = time.process_time()
    for _ in range(20):
        error_text(text)

    assert time.process_time() - started < 1.0
