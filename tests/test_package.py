"""What the package promises about itself: public names, sizes, examples, data."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ABSENT, PRESENT, on_row

import agnostic_xent as ax
from agnostic_xent.core.operation import OPERATIONS, NoKernels
from agnostic_xent.evaluation import (
    calibration,
    conformal,
    explanations,
    label_issues,
    metrics,
)

PACKAGE = Path(ax.__file__).parent
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages([str(PACKAGE)], "agnostic_xent.")
    if "__main__" not in m.name
)
SOURCES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
DOCUMENTED = (ast.FunctionDef, ast.ClassDef)

TRAINING = ("SGD", "AdamW", "Sequential", "fit", "evaluate", "predict")
OF_PREDICTIONS = (metrics, calibration, conformal, label_issues, explanations)
ANY_LIBRARY = {*OPERATIONS, *TRAINING, *(name for m in OF_PREDICTIONS for name in m.__all__)}
ROW_OF_LIBRARY = ("numpy", "torch", "jax", "strict@device1", "cupy")


def examples() -> Iterator[tuple[Path, str]]:
    """Yield the file and the name of whatever has an example in its docstring."""
    for path in SOURCES:
        for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
            if isinstance(node, DOCUMENTED) and ">>>" in (ast.get_docstring(node) or ""):
                yield path, node.name


def runs_on(name: str) -> list[Any]:
    """Return the rows on which the example of ``name`` runs: of each library, or NumPy's alone."""
    names = ROW_OF_LIBRARY if name in ANY_LIBRARY else ["numpy"]
    return [row for row in PRESENT + ABSENT if row.name in names]


@pytest.mark.parametrize(
    ("row", "path", "name"),
    [
        on_row(row, path, name, id=f"{name}-{row.name}")
        for path, name in examples()
        for row in runs_on(name)
    ],
)
def test_examples(row, path, name):
    """The example in the docstring of ``name`` prints what it says, with the row's ``xp``."""
    module = importlib.import_module(".".join(["agnostic_xent", *path.with_suffix("").parts]))
    names = {**vars(module), **{public: getattr(ax, public) for public in ax.__all__}, "xp": row.xp}
    text = getattr(module, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, names, name, str(path), 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def test_every_public_callable_has_an_example():
    without = [
        name
        for name in ax.__all__
        if ">>>" not in getattr(ax, name).__doc__ and not issubclass_of_layer(getattr(ax, name))
    ]
    assert without == []


def issubclass_of_layer(member) -> bool:
    from agnostic_xent.network.layers import Layer

    return isinstance(member, type) and issubclass(member, Layer)


def test_public_names_are_those_that_the_modules_define():
    defined = set()
    for module in MODULES:
        with contextlib.suppress(NoKernels):
            found = importlib.import_module(module)
            defined |= set(dir(ax)) & {*getattr(found, "__all__", ())}
    assert set(ax.__all__) == defined
    assert OPERATIONS.keys() <= defined


def test_a_function_fits_on_a_screen():
    too_long = []
    for path in SOURCES:
        for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
            if isinstance(node, ast.FunctionDef):
                docstring = ast.get_docstring(node, clean=False) or ""
                lines = node.end_lineno - node.lineno + 1 - docstring.count("\n")
                if lines > 60:
                    too_long.append(f"{path}: {node.name} has {lines} lines")
    assert too_long == []


def test_shipped_files():
    assert (PACKAGE / "py.typed").exists()
    assert "MIT" in (PACKAGE / "data" / "FASHION_MNIST_LICENSE.txt").read_text()
