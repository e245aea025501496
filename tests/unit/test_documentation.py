"""The documentation names what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from storescope import semconv
from storescope.settings import Settings

ROOT = Path(__file__).parents[2]
NAMES = sorted(
    value
    for name, value in vars(semconv).items()
    if name.isupper()
    and isinstance(value, str)
    and ("." in value or name.startswith("ERROR_"))
    and not value.startswith("https:")
)


def test_the_readme_names_settings_that_exist() -> None:
    """Its table is a few of them; docs/configuration.md has all."""
    readme = (ROOT / "README.md").read_text("utf-8")
    known = {variable.name for variable in Settings.variables().values()}

    assert set(re.findall(r"`(STORESCOPE_\w+)", readme)) <= known
    assert "docs/configuration.md" in readme


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_telemetry_is_documented(name: str) -> None:
    """Attributes, metrics and error types are explained."""
    documented = "".join(
        (ROOT / "docs" / page).read_text("utf-8") for page in ("telemetry.md", "exporting.md")
    )

    assert f"`{name}`" in documented


def test_choosing_between_distributions_is_documented() -> None:
    """Both variables, with the values that choose ours."""
    documented = (ROOT / "docs" / "exporting.md").read_text("utf-8")

    assert "OTEL_PYTHON_DISTRO=storescope" in documented
    assert "OTEL_PYTHON_CONFIGURATOR=storescope" in documented


def test_other_systems_than_linux_are_documented() -> None:
    """What macOS and Windows lose is said."""
    for page in ("README.md", "docs/exporting.md"):
        text = (ROOT / page).read_text("utf-8")
        assert "macOS" in text
        assert "Windows" in text
