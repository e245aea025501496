"""What may be kept of an error's text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from secrets_corpus import HARMLESS, NAMES, Secret, texts
from secrets_corpus import SECRETS as CORPUS

from storescope.instrumentation.redaction import KEPT, LOOK_AHEAD, LOOKED_AT, MASK, Redactor, is_secret_name
from storescope.settings import REDACT_EVERYTHING

redact = Redactor().text
error_text = Redactor().error_text

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


@pytest.mark.parametrize(
    "text", ["密码\uff1ahunter2x", "密码: hunter2x", "口令=hunter2x", "password\uff1ahunter2x"]
)
def test_secrets_have_chinese_names_too(text: str) -> None:
    """So do the colons that stand behind them."""
    assert "hunter2x" not in Redactor().text(text)


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
     "bearer ", "bearer", " ", "sk-", "token: ", "secret'", "passwordpassword_", "x_token_", "://", "://a:", "<a",
     "(\"a", "token=[", "token={", "token=(", "token=a,", "token=,", 'token=\\"', "token: |\n a\n", "--password ",
     "basic a", "-u a:", "password<", "cookie: '", "authorization: a\"", "glpat-",
     "token: - a\n", "token:\n - ", "authorization: =\"", "token: !a ", "token%3D", "cookie: ='"],
)  # fmt: skip
def test_redaction_takes_linear_time(piece: str) -> None:
    """No text makes the patterns backtrack: 100 KB of anything is done in a fraction of a second."""
    text = piece * (100_000 // len(piece))
    started = time.process_time()
    redact(text)

    assert time.process_time() - started < 2.0


def test_error_text_is_quick_whatever_the_size() -> None:
    """A message of 100 KB costs no more than its first 1,024 characters."""
    text = "password=" * 11_000
    started = time.process_time()
    for _ in range(20):
        error_text(text)

    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("secret", CORPUS, ids=lambda secret: secret.name)
def test_no_secret_of_the_corpus_is_left(secret: Secret) -> None:
    """Whatever text it stands in, a secret is masked in it, and the mask says so."""
    for text in texts(secret):
        for kept in (redact(text), error_text(text)):
            assert MASK in kept, text
            assert not secret.leaks_into(kept), text


@pytest.mark.parametrize("secret", CORPUS, ids=lambda secret: secret.name)
def test_no_cut_lets_a_part_of_a_secret_pass(secret: Secret) -> None:
    """Wherever in a long text a secret stands, neither the first cut nor the last leaves a part that is not masked."""
    text = next(texts(secret))
    for before in (*range(KEPT - 120, KEPT + 20, 7), *range(LOOKED_AT - LOOK_AHEAD - 120, LOOKED_AT + 20, 7)):
        for padding in ("x " * (before // 2), "password=" + "y" * (before - 10) + " "):
            assert not secret.leaks_into(error_text(padding + text + " z" * 800)), before


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_is_unchanged(text: str) -> None:
    """Words that only resemble the names of secrets, identifiers and paths are left as they are."""
    assert redact(text) == text


@pytest.mark.parametrize("name", NAMES)
def test_names_of_secrets_are_known(name: str) -> None:
    """In whatever style they are written."""
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["author", "pinned", "passed", "keyboard", "token_count", "tokenizer", "path", "n"]
)
def test_other_names_are_not_taken_for_them(name: str) -> None:
    """A word inside a longer word, or one that says something about secrets, is none."""
    assert not is_secret_name(name)


@given(st.text(st.sampled_from("password=: \"'token[]{}\\\n,;&x1?@/-<>")))
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    """What has been masked is not taken for a secret again."""
    once = redact(text)
    assert redact(once) == once


def test_a_pattern_of_the_users_counts_as_well() -> None:
    """What it matches is masked, in errors too, beside the secrets that are always masked."""
    redactor = Redactor(re.compile(r"\bacct-\d+"))

    assert redactor.text("acct-1234 has token=abc") == f"{MASK} has token={MASK}"
    assert redactor.error_text("no such account: acct-1234") == f"no such account: {MASK}"


def test_a_pattern_of_the_users_does_not_break_a_secret_up() -> None:
    """Where it takes the middle out of a secret, the rest of that is masked all the same."""
    redactor = Redactor(re.compile(r"\d+"))

    assert redactor.text("used ghp_abcdefgh1234ijklmnop") == f"used {MASK}"
    assert redactor.text("password=hunter2hunter") == f"password={MASK}"


def test_a_pattern_that_matches_everything_leaves_nothing() -> None:
    """It is what stands in for a pattern that cannot be read."""
    assert Redactor(REDACT_EVERYTHING).error_text("x" * 5000) == MASK


def test_a_pattern_that_matches_nothing_at_all_masks_nothing() -> None:
    """An empty match is no secret."""
    assert Redactor(re.compile("y*")).text("xxx") == "xxx"


def test_an_error_text_is_fit_for_utf8() -> None:
    """A lone surrogate, which no exporter can write, is shown as its escape."""
    assert error_text("a\ud800é") == "a\\ud800é"
