"""The pages of docs/: their blocks run and print what they say, and the reference is complete."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest
from conftest import PRESENT

pytest.importorskip("sklearn")

import agnostic_xent as ax
from agnostic_xent import datasets
from agnostic_xent.cli import main
from agnostic_xent.core import operation

DOCS = Path(__file__).parent.parent / "docs"
NEEDS = {"a GPU": "cupy", "torch": "torch"}
BLOCK = re.compile(
    r"(?:<!-- needs (?P<needs>.*?) -->\n)?```(?P<kind>python|pycon|console)\n(?P<code>.*?)```", re.S
)
PAGES = sorted(path.name for path in DOCS.glob("*.md") if BLOCK.search(path.read_text()))


OPTIONS = doctest.ELLIPSIS | doctest.REPORT_NDIFF


def is_here(needs: str | None) -> bool:
    return needs is None or any(row.library == NEEDS.get(needs) for row in PRESENT)


@pytest.mark.parametrize("page", PAGES)
def test_blocks(page, monkeypatch, tmp_path, capsys):
    """One after the other, in one namespace; those that need what is not here are compiled."""
    monkeypatch.setattr(operation, "OPERATIONS", dict(operation.OPERATIONS))  # a page makes one
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for block in BLOCK.finditer((DOCS / page).read_text()):
        needs, kind, code = block.group("needs", "kind", "code")
        if kind == "python":
            compiled = compile(code, page, "exec")
            if is_here(needs):
                exec(compiled, space)
        elif kind == "console":
            assert_prints(code, capsys)
        elif is_here(needs):
            examples = doctest.DocTestParser().get_doctest(code, space, page, page, 0)
            runner.run(examples, clear_globs=False)
            space |= examples.globs
    assert runner.summarize(verbose=False).failed == 0


def assert_prints(console, capsys):
    """Run the lines behind a prompt, one after the other, and look at what each prints."""
    for run in re.split(r"^\$ ", console, flags=re.M)[1:]:
        line, _, expected = run.partition("\n")
        program, *arguments = shlex.split(line)
        assert program == "agnostic-xent"
        capsys.readouterr()
        assert main(arguments) == 0, capsys.readouterr().err
        printed = capsys.readouterr().out
        assert doctest.OutputChecker().check_output(expected, printed, OPTIONS), printed


def test_the_reference_lists_every_public_name():
    text = (DOCS / "api.md").read_text()
    listed = re.findall(r"^   (\w+)$", text, re.M)
    assert sorted(listed) == sorted([*ax.__all__, *datasets.__all__])
