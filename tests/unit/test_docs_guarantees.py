"""Every test that docs/guarantees.md names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+(?:\.py)?/?(?:::\w+)?)`", PAGE)))


def test_it_names_tests():
    assert len(NAMED) > 25


@pytest.mark.parametrize("name", NAMED)
def test_a_test_that_is_named_is_there(name):
    path, _, function = name.partition("::")
    assert (ROOT / path).exists()
    if function:
        tree = ast.parse((ROOT / path).read_text())
        assert function in {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
        }


def test_every_row_of_a_failure_names_a_test():
    rows = [row for row in PAGE.splitlines() if row.startswith("| ") and "---" not in row]
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        is_head = cells[-1] == "shown by"
        assert is_head or "tests/" in cells[-1] or cells[-1] == "simulation", row
