"""tests/README.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", (TESTS / "README.md").read_text("utf-8"))))


def functions(path: Path) -> set[str]:
    """Return the names of all functions of a file, whatever class or function they are in."""
    tree = ast.parse(path.read_text("utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_it_names_tests() -> None:
    """The table is read as it is written: hundreds of rows, not none."""
    assert len(NAMED) > 100


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_every_test_that_it_names_exists(path: str) -> None:
    """Who renames a test renames it there too."""
    assert {name for file, name in NAMED if file == path} <= functions(TESTS / path)
