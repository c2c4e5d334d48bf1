"""The instructions of ptx.py, each in a kernel of its own, against plain NumPy.

In the simulator these are the stand-ins; with a GPU the same tests run the instructions themselves.
"""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent.kernels.cuda.toolchain.device import xp
from agnostic_xent.kernels.cuda.toolchain.launching import Kernel, cuda
from agnostic_xent.kernels.cuda.toolchain.ptx import (
    ahead,
    below,
    commit_async,
    copy_async,
    get,
    load,
    mma_tf32,
    narrow,
    put,
    shuffle_xor,
    store,
    tf32,
    wait_async,
    widen,
)

SPECIAL = np.array(
    [0.0, -0.0, 1.0, -1.5, np.inf, -np.inf, np.nan, 1e-45, -1e-39, 3.4e38, 1.0 + 2**-11,
     1.0 + 2**-8, 1.0 + 3 * 2**-8, 1.0 + 2**-9, 65504.0, 65520.0, 1e-8, 2**-24, 2**-25],
    np.float32,
)  # fmt: skip
"""Numbers that rounding and halves treat each in their own way."""


def numbers(count: int) -> np.ndarray:
    """Return the special numbers, and random ones behind them."""
    rng = np.random.default_rng(0)
    return np.concatenate([SPECIAL, rng.standard_normal(count).astype("f4")])[:count]


def run(kernel, grid, *args):
    """Launch a kernel on NumPy arrays, and return them as it leaves them."""
    device = [xp.asarray(a) if isinstance(a, np.ndarray) else a for a in args]
    kernel(grid, *device)
    return [np.asarray(a.get() if hasattr(a, "get") else a) for a in device if hasattr(a, "dtype")]


# --- memory ---------------------------------------------------------------------------------------


def vectors_of_four(x, y):
    i = cuda.threadIdx.x * 4
    store(y, i, load(x, i, 4))


def vectors_of_two(x, y):
    i = cuda.threadIdx.x * 2
    a, b = load(x, i, 2)
    store(y, i, (b, a))


def vectors_of_eight(x, y):
    i = cuda.threadIdx.x * 8
    store(y, i, load(x, i, 8))


@pytest.mark.parametrize("code", ["f4", "f8", "i4", "f2", "u2"])
@pytest.mark.parametrize("function", [vectors_of_two, vectors_of_four, vectors_of_eight])
def test_load_and_store(function, code):
    n = {"two": 2, "four": 4, "eight": 8}[function.__name__.rpartition("_")[2]]
    x = np.arange(32 * n).astype(code)
    _, y = run(Kernel(function, f"{code}* {code}*", 32, 1), 1, x, np.zeros_like(x))
    np.testing.assert_array_equal(y, x.reshape(-1, 2)[:, ::-1].ravel() if n == 2 else x)


def pairs_from_ahead(x, y):
    i = 2 * cuda.threadIdx.x
    put(ahead(y, i), 1, get(ahead(x, i + 1), -1))
    put(ahead(y, i + 1), -1, get(ahead(x, i), 1))


@pytest.mark.parametrize("code", ["f4", "f8", "f2"])
def test_ahead(code):
    x = np.arange(64).astype(code)
    _, y = run(Kernel(pairs_from_ahead, f"{code}* {code}*", 32, 1), 1, x, np.zeros_like(x))
    np.testing.assert_array_equal(y, x.reshape(-1, 2)[:, ::-1].ravel())


def reversed_in_shared(x, y, n):
    there = cuda.shared.array(64, np.float32)
    t = cuda.threadIdx.x
    put(there, t, get(x, t))
    cuda.syncthreads()
    put(y, t, get(there, n - 1 - t))


def test_get_and_put_in_shared_memory():
    x = numbers(64)
    _, y = run(Kernel(reversed_in_shared, "f4* f4* i4", 64, 1), 1, x, np.zeros_like(x), 64)
    np.testing.assert_array_equal(y, x[::-1])


def which_are_below(x, y, n):
    t = cuda.threadIdx.x
    put(y, t, 1 if below(get(x, t), n) else 0)


def test_below():
    x = np.array([-(2**31) + 1, -8, -1, 0, 1, 7, 8, 9, 2**30, 2**31 - 1], "i4")
    _, y = run(Kernel(which_are_below, "i4* i4* i4", 10, 1), 1, x, np.full(10, -1, "i4"), 8)
    np.testing.assert_array_equal(y, (x >= 0) & (x < 8))


# --- halves ---------------------------------------------------------------------------------------


def widened(x, y):
    i = cuda.threadIdx.x
    put(y, i, widen(get(x, i)))


def narrowed(x, y):
    i = cuda.threadIdx.x
    put(y, i, narrow(y, get(x, i)))


def bfloat16_bits(x):
    """Return float32 rounded to bfloat16, to nearest with ties to even, as bits."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> np.uint64(16) & np.uint64(1))) >> np.uint64(16)).astype("u2")


def from_bfloat16(bits):
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def test_bfloat16():
    x = numbers(64)
    _, bits = run(Kernel(narrowed, "f4* u2*", 64, 1), 1, x, np.zeros(64, "u2"))
    np.testing.assert_array_equal(from_bfloat16(bits), from_bfloat16(bfloat16_bits(x)))
    _, wide = run(Kernel(widened, "u2* f4*", 64, 1), 1, bits, np.zeros(64, "f4"))
    np.testing.assert_array_equal(wide, from_bfloat16(bits))


def test_float16():
    x = numbers(64)
    _, half = run(Kernel(narrowed, "f4* f2*", 64, 1), 1, x, np.zeros(64, "f2"))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, x.astype("f2"))
    _, wide = run(Kernel(widened, "f2* f4*", 64, 1), 1, half, np.zeros(64, "f4"))
    np.testing.assert_array_equal(wide, half.astype("f4"))


@pytest.mark.parametrize("code", ["f4", "f8"])
@pytest.mark.parametrize("function", [widened, narrowed])
def test_wide_types_stay_as_they_are(function, code):
    x = numbers(64).astype(code)
    _, y = run(Kernel(function, f"{code}* {code}*", 64, 1), 1, x, np.zeros_like(x))
    np.testing.assert_array_equal(y, x)


# --- warps ----------------------------------------------------------------------------------------


def shuffled(x, y):
    t = cuda.threadIdx.x
    for k in range(5):
        put(y, k * 64 + t, shuffle_xor(get(x, t), 1 << k))


@pytest.mark.parametrize("code", ["f4", "f8", "i4", "i8"])
def test_shuffle_xor(code):
    x = (np.arange(64) * 3 + 2**20 + 1).astype(code)
    x += np.asarray(2**40 + 1 if code == "i8" else 0).astype(code)
    _, y = run(Kernel(shuffled, f"{code}* {code}*", 64, 1), 1, x, np.zeros(320, code))
    lanes = np.arange(64)
    np.testing.assert_array_equal(y.reshape(5, 64), [x[lanes ^ (1 << k)] for k in range(5)])


def rounded_to_tf32(x, y):
    i = cuda.threadIdx.x
    put(y, i, tf32(get(x, i)))


def as_tf32(x):
    """Return float32 rounded to 10 bits of mantissa, ties away from zero."""
    mantissa, exponent = np.frexp(x.astype("f8"))
    scaled = np.abs(mantissa) * 2.0**11
    rounded = np.copysign(np.floor(scaled + 0.5), x) * 2.0**-11
    with np.errstate(over="ignore", invalid="ignore"):
        return np.where(np.isfinite(x), np.ldexp(rounded, exponent), x).astype("f4")


def test_tf32():
    x = numbers(96)
    x[np.abs(x) < 2.0**-126] = 0  # what happens to subnormal numbers is left open
    _, y = run(Kernel(rounded_to_tf32, "f4* f4*", 96, 1), 1, x, np.zeros_like(x))
    np.testing.assert_array_equal(y, as_tf32(x))


def multiplied(a, b, c):
    """Add a @ b to c, 16 x 8 x 8, by one warp."""
    t = cuda.threadIdx.x
    g, q = t // 4, t % 4
    top, low = g * 8, (g + 8) * 8
    fa = get(a, top + q), get(a, low + q), get(a, top + q + 4), get(a, low + q + 4)
    fb = get(b, q * 8 + g), get(b, (q + 4) * 8 + g)
    left, right = 2 * q, 2 * q + 1
    fc = get(c, top + left), get(c, top + right), get(c, low + left), get(c, low + right)
    d = mma_tf32(fc, fa, fb)
    put(c, top + left, d[0])
    put(c, top + right, d[1])
    put(c, low + left, d[2])
    put(c, low + right, d[3])


def test_mma_tf32():
    rng = np.random.default_rng(1)
    a, b = rng.integers(-9, 10, (16, 8)).astype("f4"), rng.integers(-9, 10, (8, 8)).astype("f4")
    c = rng.integers(-9, 10, (16, 8)).astype("f4")
    *_, y = run(Kernel(multiplied, "f4* f4* f4*", 32, 1), 1, a, b, c.copy())
    np.testing.assert_array_equal(y, c + a @ b)


# --- copies that nobody waits for -----------------------------------------------------------------


def copied_one_by_one(x, y, n):
    there = cuda.shared.array(64, np.float32, alignment=16)
    t = cuda.threadIdx.x
    copy_async(there, t, x, t if t < n else 0, 1, t < n)
    commit_async()
    wait_async(0)
    cuda.syncthreads()
    put(y, t, get(there, 63 - t))


def copied_by_four(x, y, n):
    there = cuda.shared.array(256, np.float32, alignment=16)
    t = cuda.threadIdx.x
    copy_async(there, t * 4, x, t * 4 if t < n else 0, 4, t < n)
    commit_async()
    wait_async(0)  # two copies to one place may not be under way together
    copy_async(there, t * 4, x, 0, 4, True)
    commit_async()
    wait_async(0)
    cuda.syncthreads()
    store(y, t * 4, load(there, 252 - t * 4, 4))


def test_copies_fill_with_zeros():
    x = numbers(64)
    x[5] = 2.0
    _, y = run(Kernel(copied_one_by_one, "f4* f4* i4", 64, 1), 1, x, np.ones_like(x), 50)
    np.testing.assert_array_equal(y, np.where(np.arange(64) < 50, x, 0)[::-1])


def test_copies_of_sixteen_bytes_land_in_order():
    x = numbers(256)
    _, y = run(Kernel(copied_by_four, "f4* f4* i4", 64, 1), 1, x, np.ones_like(x), 50)
    np.testing.assert_array_equal(y, np.tile(x[:4], 64))
