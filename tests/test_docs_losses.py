"""The pages about accuracy and edge cases name tests; each of them exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ("accuracy.md", "loss_edge_cases.md")


def named(page: str) -> list[tuple[str, str]]:
    """Return file and function of each test that a page names; a bare name is in the last file."""
    found, last = [], ""
    text = (ROOT / "docs" / page).read_text().replace("`T::", "`tests/test_loss_edge_cases.py::")
    for path, function in re.findall(r"`(?:(tests/\w+\.py)(?:::)?)?(test_\w+)?`", text):
        last = path or last
        if function:
            found.append((last, function))
    return found


@pytest.mark.parametrize("page", PAGES)
def test_named_tests_exist(page):
    tests = named(page)
    assert len(tests) > 5
    for path, function in tests:
        tree = ast.parse((ROOT / path).read_text())
        assert function in {getattr(node, "name", None) for node in tree.body}, (path, function)
