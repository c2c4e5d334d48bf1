"""The CPU kernels of conv2d in processes of their own: threads, narrow vectors, guarded memory."""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import mmap
import os

import numpy as np
import pytest

import agnostic_xent as ax

numba = pytest.importorskip("numba")

from convolution_case import BOTH, GENERAL, PLANS, POOL, RELU, case, check  # noqa: E402
from convolution_spread import SPREADS  # noqa: E402
from test_kernels_dense import SIZES, normal  # noqa: E402
from test_kernels_dense import check as check_dense  # noqa: E402
from test_threads import MANY, run_python  # noqa: E402

from agnostic_xent.kernels.cpu.conv import (  # noqa: E402
    convolution,
    cotangents,
    geometry,
    pointwise_plans,
)
from agnostic_xent.kernels.cpu.simd import products as matrices  # noqa: E402
from agnostic_xent.kernels.cpu.simd import vectors  # noqa: E402
from agnostic_xent.kernels.cpu.toolchain import memory  # noqa: E402

SOME = {
    "direct": [
        case((3, 5, 13, 37), (7, 5, 3, 3), padding=1, **RELU),
        case((2, 3, 12, 21), (9, 3, 5, 4), stride=2, padding=((2, 1), (0, 3)), **BOTH),
        case((2, 3, 7, 37), (3, 1, 1, 4), groups=3, stride=(1, 2), padding=1),
        case((1, 3, 17, 18), (6, 3, 3, 2), stride=3, dilation=2, padding=4),
        case((2, 17, 20, 41), (33, 17, 1, 1), **POOL),
    ],
    "implicit": [
        case((3, 5, 13, 37), (70, 5, 3, 3), padding=1, **RELU),
        case((2, 3, 12, 21), (33, 3, 5, 4), stride=2, padding=((2, 1), (0, 3)), **BOTH),
        case((2, 3, 7, 37), (3, 1, 1, 4), groups=3, stride=(1, 2), padding=1),
        case((1, 3, 17, 18), (6, 3, 3, 2), stride=3, dilation=2, padding=4),
        case((17, 19, 5, 4), (40, 19, 1, 1), **POOL),
        case((1, 40, 5, 5), (520, 40, 3, 3), padding=1),  # threads share out the filters
    ],
    "winograd": [
        case((3, 5, 13, 22), (7, 5, 3, 3), padding=1, **BOTH),
        case((2, 33, 15, 9), (64, 33, 3, 3), padding=((0, 2), (1, 0)), **RELU),
        case((2, 34, 5, 35), (6, 17, 3, 3), groups=2, padding=1),
        case((1, 96, 10, 13), (97, 96, 3, 3), padding=1, **POOL),  # threads share out the points
        case((3, 5, 13, 22), (7, 5, 3, 3), padding=1, stride=2, **BOTH),
        case((1, 96, 16, 21), (97, 96, 3, 3), padding=1, stride=2, **RELU),
    ],
    "columns": [
        case((3, 5, 13, 22), (7, 5, 5, 5), padding=2, **BOTH),
        case((3, 3, 21, 37), (9, 3, 7, 7), padding=3, stride=2, **RELU),
        case((2, 6, 13, 22), (2, 3, 4, 3), groups=2, padding=((0, 3), (1, 0))),
        case((9, 17, 9, 15), (12, 17, 3, 3), padding=1, **POOL),
    ],
    "row": [
        case((9, 5, 1, 60), (7, 5, 1, 9), padding=(0, 4), **RELU),
        case((3, 6, 1, 41), (8, 3, 1, 3), groups=2, dilation=(1, 4), padding=(0, 5)),
        case((2, 17, 1, 90), (70, 17, 1, 5), stride=(1, 2)),
        case((1, 20, 1, 30), (300, 20, 1, 3)),  # threads share out the filters
    ],
    "depthwise": [
        case((3, 5, 13, 37), (5, 1, 3, 3), groups=5, padding=1, **RELU),
        case((2, 35, 9, 7), (35, 1, 5, 5), groups=35, padding=2, **BOTH),
        case((3, 34, 15, 14), (34, 1, 3, 3), groups=34, padding=1, stride=2),
        case((2, 3, 40, 35), (3, 1, 7, 7), groups=3, padding=3, stride=2, **RELU),
        case((5, 3, 7, 8), (3, 1, 3, 4), groups=3, dilation=(2, 1), padding=3),
    ],
}

DTYPES = dict.fromkeys(PLANS, ("float32",))
DTYPES |= dict.fromkeys((*GENERAL, "depthwise"), ("float32", "float64"))


def run_all(work):
    """Call work(algorithm, case) with each algorithm in force for its cases."""
    rule = convolution.algorithm
    try:
        for name, cases in SOME.items():
            convolution.algorithm = lambda geometry, dtype, direction, name=name: PLANS[name]
            for shapes in cases:
                work(name, shapes)
    finally:
        convolution.algorithm = rule


def check_all(place=np.ascontiguousarray):
    """Check all cases, where x, w, b and cotangents are placed so."""

    def both(name, shapes):
        for dtype in DTYPES[name]:
            check(shapes, SPREADS[name], dtype, place=place)

    run_all(both)


# --- threads --------------------------------------------------------------------------------------


def digest():
    """Return a hash of the bits of all values and gradients."""
    made = hashlib.sha256()

    def add(name, shapes):
        with ax.kernels("require"):
            y, pullback = ax.conv2d.vjp(*shapes.arrays(), **shapes.options)
        dy = np.random.default_rng(1).standard_normal(y.shape, dtype="f4")
        for x in (y, *pullback(dy)):
            made.update(x.tobytes())

    run_all(add)
    return made.hexdigest()


def print_digests():
    geometry.FEW_PRODUCTS = 0  # small cases are shared out too
    found = []
    for n in range(1, MANY + 1):
        numba.set_num_threads(n)
        found.append(digest())
    print(json.dumps(found))


def test_bits_do_not_depend_on_threads_or_runs():
    program = "import test_convolution_processes as t; t.print_digests()"
    done = run_python(program, NUMBA_NUM_THREADS=str(MANY))
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == {digest(), digest()}


# --- vectors of 8 lanes ---------------------------------------------------------------------------

NARROW = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "+avx2,+fma"}
"""What Numba is told to compile for: a processor without AVX-512."""


def print_narrow():
    check_all()
    print(vectors.VECTOR_BYTES)


@pytest.mark.skipif(vectors.VECTOR_BYTES == 32, reason="all other tests have vectors of 8 lanes")
def test_processors_without_avx512():
    """Compiles at its first run on a machine; AVX-512 implies AVX2."""
    done = run_python("import test_convolution_processes as t; t.print_narrow()", **NARROW)
    assert (done.returncode, done.stdout) == (0, "32\n"), done.stderr


# --- memory behind and before arrays --------------------------------------------------------------


def guarded(shape, dtype, at_end):
    """Return an array of NaN that ends, or starts, at memory which nobody may touch."""
    dtype, page = np.dtype(dtype), mmap.PAGESIZE
    size = math.prod(shape) * dtype.itemsize
    room = -(-size // page) * page
    whole = np.frombuffer(mmap.mmap(-1, room + 2 * page), np.uint8)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    for edge in (0, page + room):
        assert protect(whole.ctypes.data + edge, page, 0) == 0
    start = page + room - size if at_end else page
    x = whole[start : start + size]
    x[:] = 255
    return x.view(dtype).reshape(shape)


def check_guarded(at_end):
    def empty(shape, dtype):
        return guarded(shape, dtype, at_end)

    def place(x):
        y = empty(x.shape, x.dtype)
        y[...] = x
        return y

    for module in (*PLANS.values(), pointwise_plans, cotangents, matrices, memory):
        module.empty = empty
    check_all(place)
    for rows, units, features in SIZES:
        x, w, b = (normal(*shape) for shape in [(rows, features), (units, features), (units,)])
        check_dense(place(x), place(w), place(b), place)


@pytest.mark.skipif(os.name != "posix", reason="pages are protected by mprotect")
@pytest.mark.parametrize("at_end", [True, False])
def test_no_memory_outside_arrays_is_touched(at_end):
    program = f"import test_convolution_processes as t; t.check_guarded({at_end})"
    done = run_python(program, PYTHONFAULTHANDLER="1")
    assert done.returncode == 0, done.stderr[:2000]


@pytest.mark.skipif(os.name != "posix", reason="pages are protected by mprotect")
@pytest.mark.parametrize("at_end", [True, False])
def test_the_guard_works(at_end):
    number = "x.size" if at_end else "-1"
    program = f"""
import ctypes, test_convolution_processes as t
x = t.guarded((3, 5), "f4", {at_end})
x[...] = 1
ctypes.c_float.from_address(x.ctypes.data + 4 * {number}).value
"""
    assert run_python(program).returncode < 0  # ended by a signal
