"""What errors say of packages that are missing: commands that work, and in one place."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import agnostic_xent
from agnostic_xent.core.arrays import INSTALL
from agnostic_xent.core.requirements import installing, missing

PACKAGE = Path(agnostic_xent.__file__).parent
PROJECT = PACKAGE.parent
BESIDE = {"pillow", "nvidia-nccl-cu13", "torch", "numpy"}
"""Packages that no extra names: what others bring, and what a user has chosen."""


def named_in_hints() -> Iterator[str]:
    """Yield the packages that the package says how to install."""
    yield from (name for names in INSTALL.values() for name in names)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                skipped = {"missing": 1, "_missing": 1, "installing": 0}.get(node.func.id)
                arguments = [] if skipped is None else node.args[skipped:]
                yield from (part.value for part in arguments if isinstance(part, ast.Constant))


def test_hints_name_packages_that_the_project_asks_for_itself():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    known = {re.split(r"[\[<>=; ]", line)[0] for lines in extras for line in lines}
    hinted = {name.partition("[")[0] for name in named_in_hints()}
    assert len(hinted) > 12
    assert hinted <= known | BESIDE


def test_all_hints_come_from_one_place():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "agnostic-xent[" not in text, path  # a name that no index knows yet
        assert ("pip install " in text) == (path.name == "requirements.py"), path
    for path in (*PROJECT.glob("docs/*.md"), *PROJECT.glob("examples/*"), PROJECT / "README.md"):
        assert "agnostic-xent[" not in path.read_text(), path


def test_commands_are_quoted_as_shells_ask_for():
    assert installing("onnx") == "python -m pip install onnx"
    assert installing("a[b]", "c") == 'python -m pip install "a[b]" c'
    assert str(missing("it", "a", "b")) == "it needs a and b: python -m pip install a b"
