"""The CPU kernels on processors without AVX-512, without fused multiply-adds, and on ARM."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax
from agnostic_xent.core.operation import Operation, load_kernels

if load_kernels("numpy") is not None:
    pytest.skip("there are no kernels here", allow_module_level=True)

import processors
from test_threads import run_python

from agnostic_xent.kernels.cpu.pool import loops, pooling, windows
from agnostic_xent.kernels.cpu.simd import vectors
from agnostic_xent.kernels.cpu.toolchain import compiling
from agnostic_xent.kernels.cpu.toolchain.signatures import FLOATS


def normal(*shape: int, dtype: str = "f4") -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def labels(classes: int, count: int) -> Any:
    return np.random.default_rng(0).integers(0, classes, count)


Case = tuple[Operation[..., Any], tuple[Any, ...], dict[str, Any], int]
DOUBLE, MANY = {"dtype": "f8"}, [abs(normal(3)) + 1 for _ in range(4)]
SPREAD: list[Case] = [
    (ax.softmax, (normal(13, 37),), {}, 37),
    (ax.sigmoid, (normal(13, 37, **DOUBLE),), {}, 1),
    (ax.cross_entropy, (normal(13, 301), labels(301, 13)), {}, 301),
    (ax.cross_entropy, (normal(99, 10, **DOUBLE), labels(10, 99)), {}, 10),
    (ax.conv2d, (normal(3, 5, 13, 37), normal(7, 5, 3, 3), normal(7)), {"stride": 3}, 105),
    (ax.max_pool2d, (normal(5, 6, 4, 4, **DOUBLE), 2), {}, 1),
    (ax.avg_pool2d, (normal(5, 6, 9, 11), 3), {}, 9),
    (ax.batch_norm, (normal(7, 3, 5, 6), *MANY), {"train": True}, 210),
    (ax.dense, (normal(13, 70), normal(21, 70), normal(21)), {}, 70),
]
"""Every family, in both dtypes: an operation, its arguments, and how many terms its sums have."""


def results(operation: Operation[..., Any], args: Any, options: Any, mode: str) -> list[Any]:
    with ax.kernels(mode):
        value, pullback = operation.vjp(*args, **options)
        values = value if isinstance(value, tuple) else (value,)
        dy = normal(*values[0].shape, dtype="f8").astype(values[0].dtype)
        return [*values, *(x for x in pullback(dy) if x is not None)]


def wide(x: Any) -> Any:
    return x.astype("f8") if getattr(x, "dtype", None) == "f4" else x


def check(cases: Iterable[Case] = SPREAD) -> None:
    """Compare kernels with the portable definitions in float64; print the width of vectors."""
    for operation, args, options, terms in cases:
        found = results(operation, args, options, "require")
        exact = results(operation, [wide(x) for x in args], options, "portable")
        for x, y in zip(found, exact, strict=True):
            assert_close(x, y, str(args[0].dtype), terms)
    families = {loop.function.__module__.split(".")[3] for loop in compiling.LOOPS if loop}
    print(vectors.VECTOR_BYTES, *sorted(families))


@pytest.mark.parametrize("processor", processors.PROCESSORS)
def test_all_families(processor):
    settings = processors.settings(processor)
    done = run_python("import test_processors as t; t.check()", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "32 activation conv loss normalization pool simd\n"


def check_arm() -> None:
    """Check that the loops of a few cases have code on vectors for ARM."""
    check(case for case in SPREAD if case[0] in (ax.softmax, ax.max_pool2d, ax.dense))
    for loop in filter(None, compiling.LOOPS):
        assembly = processors.ARM_CODE[loop.function.__qualname__]
        assert processors.vector_instructions(assembly) > 50
        assert "fmla" in assembly or "max" in loop.function.__name__


def test_on_arm(tmp_path):
    settings = processors.settings("SSE2") | {"NUMBA_CACHE_DIR": str(tmp_path)}
    first = "import processors; processors.keep_arm_code()"
    done = run_python(f"{first}; import test_processors as t; t.check_arm()", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "32 activation pool simd\n"


@pytest.mark.parametrize("width", [16, 32, 64])
def test_what_loops_of_pools_are_compiled_for_is_met(width, monkeypatch):
    """And the other way round, for vectors of any width."""
    monkeypatch.setattr(vectors, "VECTOR_BYTES", width)
    for kind in FLOATS:
        met = {windows.Windows}
        for size, (window, edge) in itertools.product(range(2, 80), ((2, 0), (3, 1))):
            w, _ = pooling.windows(
                (size, size), vectors.lanes_of(kind), (window, window), (2, 2), ((edge, edge),) * 2
            )
            met.add(type(w))
        ahead = {w for w in windows.BY_ROWS if loops.are_met(kind=kind, w=w)}
        assert met == {windows.Windows, *ahead}
