"""The environment, read once."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from storescope.settings import REDACT_EVERYTHING, NamedCallable, Settings, claim_process

VARIABLES = Settings.variables()
#: A folder and a key may be any text.
NEVER_BAD = {
    "STORESCOPE_DIR",
    "STORESCOPE_DIGEST_KEY",
    "STORESCOPE_DISABLED_STORES",
    "STORESCOPE_EXCLUDED_TOOLS",
}
BAD = {
    "STORESCOPE_ENABLED": "maybe",
    "STORESCOPE_ERROR_TEXT": "2",
    "STORESCOPE_TARGETS": "pkg.mod.function",
    "STORESCOPE_CAPTURE": "arguments,headers",
    "STORESCOPE_CAPTURE_LIMIT": "0",
    "STORESCOPE_STUCK_AFTER": "soon",
    "STORESCOPE_EXIT_TIMEOUT": "-1",
    "STORESCOPE_FLUSH_TIMEOUT": "inf",
    "STORESCOPE_FILE_MAX_BYTES": "100",
    "STORESCOPE_DIR_MAX_BYTES": "16M",
    "STORESCOPE_VERBOSE": "very",
    "STORESCOPE_QUIET": "?",
    "STORESCOPE_SERVERS": "all",
    "STORESCOPE_PID": "me",
}


@pytest.mark.parametrize(("name", "value"), BAD.items())
def test_a_bad_value_is_named_and_ignored(name: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
    """A bad value gives one warning that names variable, value and what is allowed; the default is used."""
    (field,) = [field for field, variable in VARIABLES.items() if variable.name == name]
    with caplog.at_level(logging.WARNING):
        settings = Settings.from_env({name: value})

    assert getattr(settings, field) == getattr(Settings.from_env({}), field)
    (record,) = caplog.records
    for part in (name, repr(value), VARIABLES[field].allowed):
        assert part in record.getMessage()


def test_every_variable_that_can_be_bad_is_tested() -> None:
    """What cannot be bad may be any text; every other variable stands in the table above, or below."""
    names = {variable.name for variable in VARIABLES.values()}
    assert names - NEVER_BAD - {"STORESCOPE_REDACT"} == BAD.keys()


def test_a_bad_pattern_takes_texts_out_whole(caplog: pytest.LogCaptureFixture) -> None:
    """Where what has to be taken out cannot be read, nothing is let through."""
    with caplog.at_level(logging.WARNING):
        settings = Settings.from_env({"STORESCOPE_REDACT": "(acme"})

    assert settings.redact is REDACT_EVERYTHING
    assert "STORESCOPE_REDACT='(acme' is not a regular expression; texts are taken out whole" in caplog.text


def test_every_variable_says_what_it_means() -> None:
    """Documentation is made from the table: each variable has a sentence, and says what is allowed."""
    for variable in VARIABLES.values():
        assert variable.name.startswith("STORESCOPE_")
        assert variable.meaning.endswith(".")
        assert variable.allowed


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("on", True), ("TRUE", True), ("yes", True), ("0", False), ("Off", False), ("no", False)],
)
def test_switches_are_read_as_people_write_them(text: str, value: bool) -> None:
    """On and off have the usual spellings, in any case."""
    assert Settings.from_env({"STORESCOPE_ENABLED": text}).enabled is value


def test_an_empty_variable_is_one_that_is_not_set(caplog: pytest.LogCaptureFixture) -> None:
    """As OpenTelemetry's specification asks, an empty value is no value."""
    settings = Settings.from_env({"STORESCOPE_EXIT_TIMEOUT": " ", "OTEL_SERVICE_NAME": ""})

    assert settings == Settings.from_env({})
    assert not settings.otel
    assert not caplog.records


def test_values_are_read() -> None:
    """Seconds, sizes, folders and process ids become numbers and paths."""
    settings = Settings.from_env(
        {
            "STORESCOPE_DIR": "telemetry",
            "STORESCOPE_EXIT_TIMEOUT": "0.5",
            "STORESCOPE_FILE_MAX_BYTES": "65536",
            "STORESCOPE_PID": "7",
            "STORESCOPE_TARGETS": "shop.tools:Client.run=tools/call, shop:warm=warm_up",
            "STORESCOPE_CAPTURE": "Arguments, results",
            "STORESCOPE_EXCLUDED_TOOLS": "debug_*,ping,",
            "STORESCOPE_DIGEST_KEY": "of the shop",
            "UNRELATED": "x",
        }
    )

    assert settings.directory == Path.cwd() / "telemetry"
    assert (settings.exit_timeout, settings.file_max_bytes, settings.parent_pid) == (0.5, 65536, 7)
    assert settings.targets == (
        NamedCallable("shop.tools", "Client.run", "tools/call"),
        NamedCallable("shop", "warm", "warm_up"),
    )
    assert settings.capture == {"arguments", "results"}
    assert settings.excluded_tools == ("debug_*", "ping")
    assert settings.digest_key == "of the shop"
    assert "of the shop" not in repr(settings)


def test_opentelemetry_is_switched_off_by_its_own_variable() -> None:
    """`OTEL_SDK_DISABLED` counts when it is true, in any case, and nothing else switches it off."""
    assert Settings.from_env({"OTEL_SDK_DISABLED": "True"}).sdk_disabled
    assert not Settings.from_env({"OTEL_SDK_DISABLED": "1"}).sdk_disabled
    assert not Settings.from_env({}).sdk_disabled


def test_settings_do_not_change_with_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read stays as it was read."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "before")
    settings = Settings.from_env()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "after")

    assert settings.otel["OTEL_SERVICE_NAME"] == "before"
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.enabled = False  # type: ignore[misc]


def test_a_process_claims_what_it_spawns(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one variable that the agent writes is its process id."""
    monkeypatch.setenv("STORESCOPE_PID", "1")
    claim_process()

    import os

    assert Settings.from_env().parent_pid == os.getpid()
