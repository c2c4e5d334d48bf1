"""The backend matrix: one table of rows, and the fixtures that walk it."""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from agnostic_xent.core.conversion import backend, to_numpy
from agnostic_xent.core.operation import OPERATIONS, load_kernels


def _no_compute(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("an operation computed a dask graph")


@dataclass(frozen=True)
class Row:
    """One way to hold arrays, and to call a function of arrays."""

    name: str
    library: str
    device: str | None = None
    dtypes: tuple[str, ...] = ("float32", "float64")
    make: Callable[[Any], Any] = field(default=lambda x: x, repr=False)
    run: Callable[[Any, Callable[..., Any]], Callable[..., Any]] = field(
        default=lambda xp, f: f, repr=False
    )
    guard: Callable[[], AbstractContextManager[Any]] = field(default=nullcontext, repr=False)
    marks: tuple[Any, ...] = ()
    empty: bool = True
    """Whether the library's own reductions and assignments take arrays of no elements."""

    @property
    def xp(self) -> Any:
        return backend(self.library)

    def place(self) -> Any:
        if self.library == "array_api_strict":
            return self.xp.Device(self.device)
        return self.device

    def array(self, x: Any, dtype: str | None = None) -> Any:
        """Return a fresh array of this row; float arrays in ``dtype``."""
        x = np.asarray(x)
        if dtype and x.dtype.kind == "f":
            x = x.astype(dtype)
        return self.make(self.xp.asarray(x.copy(), device=self.place()))

    def call(self, f: Callable[..., Any], *arrays: Any) -> Any:
        """Call a function of arrays as this row does: jitted, lazily, or plainly."""
        with self.guard():
            return self.run(self.xp, f)(*arrays)

    def check(self, y: Any, dtype: str) -> None:
        """Check that a result is of this row's library, device and dtype."""
        from array_api_compat import array_namespace, device

        assert array_namespace(y) is self.xp or self.library == "jax", type(y)
        assert str(y.dtype).rpartition(".")[2] == dtype
        if self.library == "array_api_strict":
            assert device(y) == self.place()
        if self.name == "torch-cuda":
            assert device(y).type == self.device


def _readonly(x: Any) -> Any:
    x.flags.writeable = False
    return x


def _jit(xp: Any, f: Callable[..., Any]) -> Callable[..., Any]:
    return importlib.import_module("jax").jit(f)


def _lazy() -> AbstractContextManager[Any]:
    return importlib.import_module("dask").config.set(scheduler=_no_compute)


def _chunked(x: Any) -> Any:
    return x.rechunk(tuple(max(1, n - 1) if i == 0 else n for i, n in enumerate(x.shape)))


ROWS = (
    Row("numpy", "numpy"),
    Row("numpy-readonly", "numpy", make=_readonly),
    Row("strict@device1", "array_api_strict", device="device1"),
    Row("strict@no_float64", "array_api_strict", device="no_float64", dtypes=("float32",)),
    Row("torch", "torch"),
    Row("jax", "jax", run=_jit),
    Row("dask", "dask", make=_chunked, guard=_lazy, empty=False),
    Row("cupy", "cupy", marks=(pytest.mark.gpu,)),
    Row("torch-cuda", "torch", device="cuda", marks=(pytest.mark.gpu,)),
)


def _version(row: Row) -> str | None:
    """Return the version of a row's library, None when it cannot run here."""
    try:
        module = importlib.import_module(row.library)
        if pytest.mark.gpu in row.marks and not module.cuda.is_available():
            return None
    except ImportError:
        return None
    if row.library == "jax":
        module.config.update("jax_enable_x64", True)
    return module.__version__


NAMED = [n for n in os.environ.get("AGNOSTIC_XENT_TEST_BACKENDS", "").split(",") if n]
VERSIONS = {row.name: _version(row) for row in ROWS}
PRESENT = [r for r in ROWS if VERSIONS[r.name] and (not NAMED or r.name in NAMED)]
ABSENT = [
    row for row in ROWS if not VERSIONS[row.name] and (not NAMED or pytest.mark.gpu in row.marks)
]


def on_row(row: Row, *values: Any, id: str | None = None) -> Any:
    """Return the parameters of a test on a row, which is skipped where the row cannot run."""
    skip = [pytest.mark.skip(reason="not available here")] if row in ABSENT else []
    return pytest.param(row, *values, id=id or row.name, marks=[*row.marks, *skip])


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


def fork() -> int:
    """Fork without the warnings of Python, and of JAX where some other test has loaded it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return os.fork()


def has_kernel(operation: str, library: str) -> bool:
    """Return whether an operation has a kernel for arrays of a library."""
    load_kernels(library)
    return library in OPERATIONS[operation]._kernels


def modes_of(operation: str, library: str = "numpy") -> list[str]:
    """Return the modes that differ on arrays of a library: "auto" is one where a kernel is."""
    return ["portable", "auto"] if has_kernel(operation, library) else ["portable"]


def each_row_and_mode(name: str, cases: Iterable[Any]) -> pytest.MarkDecorator:
    """Parametrize by row, mode and ``name``, a case that knows its operation and its id.

    "auto" is run where there is a kernel, and nothing is where a library has no way.
    """
    return pytest.mark.parametrize(
        ("row", "mode", name),
        [
            on_row(row, mode, case, id=f"{case.id}-{mode}-{row.name}")
            for case in cases
            for row in PRESENT + ABSENT
            if row.empty or not case.empty
            for mode in (modes_of(case.operation, row.library) if row in PRESENT else ["portable"])
        ],
    )


def pytest_configure(config: pytest.Config) -> None:
    unknown = sorted(set(NAMED) - set(VERSIONS))
    missing = sorted(name for name in NAMED if name in VERSIONS and not VERSIONS[name])
    if unknown or missing:
        raise pytest.UsageError(
            f"AGNOSTIC_XENT_TEST_BACKENDS names rows that are unknown {unknown} or cannot run "
            f"here {missing}; rows: {', '.join(VERSIONS)}"
        )


def pytest_report_header(config: pytest.Config) -> list[str]:
    present = ", ".join(f"{row.name} {VERSIONS[row.name]}" for row in PRESENT)
    absent = ", ".join(row.name for row in ROWS if row not in PRESENT)
    return [f"backends: {present}", f"backends absent: {absent or 'none'}"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes a row on all of them, unless it says which."""
    marks = metafunc.definition.iter_markers("parametrize")
    named = {name for mark in marks if isinstance(mark.args[0], tuple) for name in mark.args[0]}
    if "row" in metafunc.fixturenames and "row" not in named:
        metafunc.parametrize("row", [on_row(row) for row in PRESENT + ABSENT])


NEEDS_GPU = "needs", "GPU"


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note which tests need a GPU; in a report, names of folders are keywords as well as marks."""
    if item.get_closest_marker("gpu"):
        item.user_properties.append(NEEDS_GPU)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Say how many tests that need a GPU ran and how many did not, and what tests tell."""
    stats = terminalreporter.stats
    counts = {  # the report on a whole file that is skipped has no properties
        outcome: sum(NEEDS_GPU in getattr(r, "user_properties", ()) for r in stats.get(outcome, ()))
        for outcome in ("passed", "failed", "skipped")
    }
    if any(counts.values()):
        found = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"tests that need a GPU: {found}")
    for report in stats.get("passed", ()):
        for name, text in report.user_properties:  # of record_property
            if name == "summary":
                terminalreporter.write_line(text)


def tolerance(dtype: str, terms: int = 1) -> float:
    """Return the relative error that ``terms`` roundings in a chain may add up to."""
    return float(np.finfo(dtype).eps) * (8 + 4 * terms)


def assert_close(actual: Any, expected: Any, dtype: str, terms: int = 1) -> None:
    """Compare any library's array with a reference, relative to the reference's largest value."""
    actual = np.asarray(to_numpy(actual), dtype="float64")
    expected = np.asarray(expected, dtype="float64")
    assert actual.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    bound = tolerance(dtype, terms)
    np.testing.assert_allclose(actual, expected, rtol=bound, atol=bound * scale)
