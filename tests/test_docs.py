"""The pages of docs/: their blocks of Python run as they stand, and the reference is complete."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest
from conftest import PRESENT

pytest.importorskip("sklearn")

import agnostic_xent as ax
from agnostic_xent import datasets
from agnostic_xent.core import operation

DOCS = Path(__file__).parent.parent / "docs"
NEEDS = {"a GPU": "cupy", "torch": "torch"}
BLOCK = re.compile(
    r"(?:<!-- needs (?P<needs>.*?) -->\n)?```(?P<kind>python|pycon)\n(?P<code>.*?)```", re.S
)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text()))


def is_here(needs: str | None) -> bool:
    return needs is None or any(row.library == NEEDS.get(needs) for row in PRESENT)


@pytest.mark.parametrize("page", PAGES)
def test_blocks(page, monkeypatch, tmp_path):
    """One after the other, in one namespace; those that need what is not here are compiled."""
    monkeypatch.setattr(operation, "OPERATIONS", dict(operation.OPERATIONS))  # a page makes one
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    runner = doctest.DocTestRunner()
    for block in BLOCK.finditer((DOCS / page).read_text()):
        needs, kind, code = block.group("needs", "kind", "code")
        if kind == "python":
            compiled = compile(code, page, "exec")
            if is_here(needs):
                exec(compiled, space)
        elif is_here(needs):
            examples = doctest.DocTestParser().get_doctest(code, space, page, page, 0)
            runner.run(examples, clear_globs=False)
            space |= examples.globs
    assert runner.summarize(verbose=False).failed == 0


def test_the_reference_lists_every_public_name():
    text = (DOCS / "api.md").read_text()
    listed = re.findall(r"^   (\w+)$", text, re.M)
    assert sorted(listed) == sorted([*ax.__all__, *datasets.__all__])
