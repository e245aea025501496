"""docs/adding-a-store.md shows code that runs, and explains all that an adapter can say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from integration.harness import ROOT, Runner

from storescope.stores import Described, Outcome, PatchTarget, Role, StoreAdapter, Style

PAGE = (ROOT / "docs" / "adding-a-store.md").read_text("utf-8")
PACKAGE = ROOT / "tests" / "packages" / "shop-store"


def quoted(name: str) -> str:
    """Return what the page shows as the content of a file."""
    (content,) = re.findall(rf"^`{re.escape(name)}`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(content)


@pytest.mark.parametrize("name", ["pyproject.toml", "shop_store_storescope.py"])
def test_the_adapter_is_the_tested_one(name: str) -> None:
    """What is quoted is the package that integration/test_third_party_store.py installs."""
    assert quoted(name) == (PACKAGE / name).read_text("utf-8")


def labels(output: str) -> list[str]:
    """Return the first word group of each line, without the times and bars behind it."""
    lines = (re.split(r" {2,}", line.strip())[0] for line in output.splitlines())
    return [re.sub(r"traces-.*", "", line) for line in lines if line]


def test_the_example_prints_what_the_page_shows(tmp_path: Path) -> None:
    """But for times, the program, its environment and its output are as shown."""
    runner = Runner(tmp_path)
    for name in ("orders.py", "app.py"):
        (tmp_path / name).write_text(quoted(name))
    (session,) = re.findall(r"^```\n(\$ export STORESCOPE_TARGETS.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    targets, program, command, *shown = session.splitlines()
    assert (program, command) == ("$ opentelemetry-instrument python app.py", "$ storescope view")
    settings = {
        "STORESCOPE_TARGETS": targets.removeprefix("$ export STORESCOPE_TARGETS="),
        "STORESCOPE_DIR": ".storescope",
        "PYTHONIOENCODING": "utf-8",
    }
    runner.run(tmp_path / "app.py", env=settings).check()
    view = "from storescope.cli import main; main(['view'])"
    printed = runner.run(view, env=settings, launcher=False).stdout

    assert labels(printed) == labels("\n".join(shown))


def test_every_role_style_and_field_is_explained() -> None:
    """Whoever writes an adapter finds each of them there."""
    described = {name for name in Described.__annotations__ if not name.startswith("_")}
    fields = {field.name for kind in (PatchTarget, Outcome) for field in dataclasses.fields(kind)} - {
        "module",
        "name",
        "operation",
        "role",
    }
    functions = {name for name in vars(StoreAdapter) if name.startswith("read")}
    wanted = {*Role.__members__, *Style.__members__, *described, *fields, *functions}

    assert len(wanted) > 20
    assert {name for name in wanted if not re.search(rf"`{name}\b", PAGE)} == set()
