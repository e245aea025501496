"""`storescope config`, and docs/configuration.md, which is made of the same table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from unit.command import storescope

from storescope.cli.configuration import OTEL_VARIABLES, RENEW
from storescope.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
VARIABLES = Settings.variables().values()


def rows() -> dict[str, dict[str, str]]:
    document = json.loads(storescope("config", "--json").stdout)
    return {row["name"]: row for row in document["variables"]}


def test_the_documentation_is_what_the_code_says() -> None:
    """docs/configuration.md is printed by the command; whoever changes a variable renews it."""
    made = storescope("config", "--markdown").stdout
    assert PAGE.read_text("utf-8") == made, f"docs/configuration.md is out of date; renew it: {RENEW}"


def test_the_documentation_has_every_variable() -> None:
    """Name, default, what is allowed and the sentence stand in one row of the page."""
    lines = PAGE.read_text("utf-8").splitlines()
    for variable in VARIABLES:
        (line,) = (line for line in lines if line.startswith(f"| `{variable.name}` |"))
        for text in (variable.default_text, variable.allowed, variable.meaning):
            assert text in line
    for other in OTEL_VARIABLES:
        assert any(line.startswith(f"| `{other.name}` | {other.meaning}") for line in lines)


def test_every_variable_is_shown_with_its_default() -> None:
    """Where nothing is set: the default, what is allowed and one sentence, on standard output alone."""
    result = storescope("config")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    for variable in VARIABLES:
        (number,) = (n for n, line in enumerate(lines) if line.split(" ")[0] == variable.name)
        assert lines[number].endswith("default")
        assert variable.default_text.replace("`", "") in lines[number]
        assert variable.meaning.replace("`", "") in lines[number + 1]
        assert variable.allowed.replace("`", "") in lines[number + 1]


def test_a_value_that_is_set_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told from a default, as the environment has it."""
    monkeypatch.setenv("STORESCOPE_EXIT_TIMEOUT", " 2.5 ")
    row = rows()["STORESCOPE_EXIT_TIMEOUT"]
    assert (row["value"], row["state"], row["default"]) == ("2.5", "set", "1")
    assert rows()["STORESCOPE_DIR"]["state"] == "default"


def test_a_bad_value_is_shown_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is wrong, what is allowed and what is in force in its place; the command succeeds."""
    monkeypatch.setenv("STORESCOPE_ENABLED", "flase")
    monkeypatch.setenv("STORESCOPE_REDACT", "(acme")
    result = storescope("config")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "STORESCOPE_ENABLED='flase' is not on or off; using the default (on)" in result.stdout
    found = rows()
    assert (found["STORESCOPE_ENABLED"]["value"], found["STORESCOPE_ENABLED"]["state"]) == ("on", "bad")
    assert found["STORESCOPE_REDACT"]["value"] == "texts are taken out whole"
    assert "is not a regular expression" in found["STORESCOPE_REDACT"]["complaint"]


@pytest.mark.parametrize("option", [(), ("--json",)])
def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch, option: tuple[str, ...]) -> None:
    """Neither the digest's key nor headers, nor credentials in an address."""
    monkeypatch.setenv("STORESCOPE_DIGEST_KEY", "hush-1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hush-2")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://ann:hush-3@collector:4318")
    shown = storescope("config", *option).stdout
    assert "hush" not in shown
    assert shown.count("(hidden)") == 2
    assert "https://collector:4318" in shown


def test_variables_of_opentelemetry_that_matter_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set or not, with one sentence each."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    document = json.loads(storescope("config", "--json").stdout)
    assert document["format"] == "storescope.config/1"
    found = {row["name"]: row for row in document["opentelemetry"]}
    assert (found["OTEL_SERVICE_NAME"]["value"], found["OTEL_SERVICE_NAME"]["set"]) == ("shop", True)
    assert (found["OTEL_PROPAGATORS"]["value"], found["OTEL_PROPAGATORS"]["set"]) == (None, False)
    assert found.keys() >= {
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_TRACES_SAMPLER",
        "OTEL_SDK_DISABLED",
        "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    }


def test_one_form_at_a_time() -> None:
    """JSON and the page exclude each other."""
    assert storescope("config", "--json", "--markdown").exit_code == 2
