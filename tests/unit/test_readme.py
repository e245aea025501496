"""tests/README.md names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", (TESTS / "README.md").read_text("utf-8"))))


def functions(path: Path) -> set[str]:
    """Return the names of all functions of a file, in whatever they are, and of what is assigned: state machines."""
    tree = ast.parse(path.read_text("utf-8"))
    named = {
        node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assigned = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return named | {target.id for target in assigned if isinstance(target, ast.Name)}


def test_it_names_tests() -> None:
    """The table is read as it is written: hundreds of rows, not none."""
    assert len(NAMED) > 100


@pytest.mark.parametrize("path", sorted({path for path, _ in NAMED}))
def test_every_test_that_it_names_exists(path: str) -> None:
    """Who renames a test renames it there too."""
    assert {name for file, name in NAMED if file == path} <= functions(TESTS / path)
