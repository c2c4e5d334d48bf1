"""What the package promises about itself: public names, layering, sizes, examples, data."""

from __future__ import annotations

import ast
import contextlib
import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import agnostic_xent as ax
from agnostic_xent.core.operation import OPERATIONS, NoKernels
from agnostic_xent.evaluation import calibration, metrics

PACKAGE = Path(ax.__file__).parent
MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages([str(PACKAGE)], "agnostic_xent.")
    if "__main__" not in m.name
)
SOURCES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))

LAYERS = (  # imports point downwards: a module imports only from rows below its own
    {"__main__"},
    {"cli"},
    {"__init__"},
    {"progress", "estimators"},
    {"estimator_report"},
    {"report"},
    {"pictures", "layer_times"},
    {"cnn_classifier", "logistic_regression"},
    {"classifier"},
    {"estimator_training", "logistic_solver"},
    {"callbacks"},
    {"training", "estimator_data"},
    {"distributed"},
    {"captured_steps", "divergence", "runs"},
    {"steps"},
    {"linear_sgd", "distributed_shares"},
    {"batches", "models", "exchange", "distributed_layers", "distributed_sums"},
    {"containers"},
    {"layers", "optimizers", "datasets", "checkpoints", "info"},
    {"calibration"},
    {"linear_loss", "metrics"},
    {"losses", "totals", "history", "class_parallel_loss"},
    {"class_loss", "binary_losses", "convolution", "dense", "normalization"},
    {"pooling"},
    {"activations", "windows", "reductions"},
    {"operation"},
    {"modes", "communication"},
    {"arrays", "kernels", "schedules"},
)
DEPTH = {name: depth for depth, names in enumerate(LAYERS) for name in names}
BACKENDS = re.compile(r"\b(cupy|torch|jax|dask)\b")


@pytest.mark.parametrize("module", MODULES)
def test_examples(row, module):
    """Every docstring's example runs on every row, with its namespace as ``xp``."""
    try:
        found = importlib.import_module(module)
    except NoKernels as error:
        pytest.skip(str(error))
    names = {name: getattr(ax, name) for name in ax.__all__}
    with_rows = OPERATIONS.keys() | {"SGD", "AdamW", "Sequential", "fit", "evaluate", "predict"}
    with_rows |= {*metrics.__all__, *calibration.__all__}
    if row.name not in ("numpy", "torch", "jax", "strict@device1", "cupy"):
        names = {}  # these rows differ from those above by what the matrix passes in, not by xp
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for name in names and [*getattr(found, "__all__", ())]:
        if row.name != "numpy" and name not in with_rows:
            continue
        member = getattr(found, name)
        examples = parser.get_doctest(
            member.__doc__ or "",
            {**vars(found), **names, "xp": row.xp},
            f"{module}.{name}",
            None,
            0,
        )
        assert runner.run(examples).failed == 0


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
            defined |= vars(ax).keys() & getattr(found, "__all__", ())
    assert set(ax.__all__) == defined
    assert OPERATIONS.keys() <= defined


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_sizes(path):
    text = (PACKAGE / path).read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            lines = node.end_lineno - node.lineno + 1 - docstring.count("\n")
            assert lines <= 60, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_point_downwards(path):
    if "kernels" in path.parts:
        return
    here = Path(path.parts[0]).stem  # of the package's root: a package's own files are one row
    for node in ast.walk(ast.parse((PACKAGE / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == len(path.parts):
            target = node.module or "__init__"
            assert DEPTH[target] > DEPTH[here], f"{path} imports {target}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_backends_are_named_in_arrays_and_kernels_alone(path):
    if path.name == "arrays.py" or "kernels" in path.parts:
        return
    tree = ast.parse((PACKAGE / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
            assert not any(BACKENDS.search(name) for name in names)


def test_shipped_files():
    assert (PACKAGE / "py.typed").exists()
    assert "MIT" in (PACKAGE / "data" / "FASHION_MNIST_LICENSE.txt").read_text()
