"""The CUDA kernels of conv2d, forward and backward, against the portable definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import conv2d, explain, kernels, max_pool2d
from agnostic_xent.kernels.cuda.conv import (
    arithmetic,
    convolution,
    cotangents,
    few,
    gather,
    parts,
    pixels,
    tensor,
    tiled,
    weight,
)
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.cuda.mistaken import plant

DEVIATIONS = 6
"""Standard deviations that independent rounding errors may add up to."""

UNIT = {
    "float32": 2**-24,
    "float64": 2**-53,
    "float16": 2**-24,
    "bfloat16": 2**-24,
    "tf32": 2**-11 * 2**0.5,
    "tf32x3": 2**-22,
}
"""Rounding errors of a product: two numbers of 11 bits for TF32; what three products leave."""

STORED = {"float32": 2**-23, "float64": 2**-52, "float16": 2**-10, "bfloat16": 2**-7}
"""From 1 to the next number."""

RELU = {"activation": "relu"}


def case(x, w, bias=True, **options):
    return x, w, bias, options


FEW = [  # up to eight channels, a thread makes all of a pixel
    case((1, 1, 1, 1), (1, 1, 1, 1)),
    case((2, 3, 5, 6), (2, 3, 3, 3), padding=1, **RELU),
    case((1, 2, 7, 5), (3, 2, 2, 3), padding=((1, 0), (2, 1)), stride=(2, 1), bias=False),
    case((3, 1, 8, 9), (6, 1, 5, 5), padding="same", stride=2, max_pool=2, **RELU),
    case((1, 3, 6, 7), (8, 3, 3, 2), dilation=(2, 3), padding=2),
    case((1, 2, 11, 11), (2, 2, 9, 8), padding=3),  # more than 63 taps
    case((2, 2, 12, 11), (3, 2, 2, 2), stride=(3, 4)),  # pixels that meet no tap
    case((1, 2, 3, 3), (2, 2, 2, 2), padding=5, stride=3),  # outputs that meet no pixel
    case((2, 5, 6, 5), (5, 1, 3, 3), groups=5, padding=1, **RELU),
    case((1, 3, 9, 7), (6, 1, 2, 3), groups=3, stride=2, dilation=2, padding=2),
    case((1, 4, 5, 5), (4, 1, 4, 4), groups=4, padding=2, bias=False),
]

TILES = [
    case((1, 9, 4, 4), (9, 9, 3, 3), padding=1, **RELU),
    case((3, 8, 7, 7), (17, 8, 2, 2), stride=2, padding=((0, 1), (1, 0))),
    case((1, 16, 12, 11), (33, 16, 1, 1), **RELU),  # more than a tile of pixels
    case((2, 20, 5, 6), (24, 10, 3, 3), groups=2, padding=1, dilation=2),
    case((1, 5, 3, 5), (70, 5, 2, 2), bias=False, max_pool=2, padding=1),
    case((1, 33, 4, 4), (40, 33, 2, 1), stride=(1, 2)),
    case((1, 9, 5, 5), (10, 9, 2, 2), stride=2, padding=1, bias=False),
]


def numbers(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arrays(problem, dtype="float32"):
    """Return x, w and b, which may be None."""
    x, w, bias, _ = problem
    return [
        numbers(x, dtype, 0), numbers(w, dtype, 1), numbers(w[:1], dtype, 2) if bias else None
    ]  # fmt: skip


def check(problem, dtype="float32", way=None, place=lambda x: x):
    """Check value and pullback, each error against the spread that rounding explains."""
    x, w, b = arrays(problem, dtype)
    options = dict(problem[3])
    with kernels(way or "require" if "max_pool" not in options else way or "auto"):
        assert "CUDA" in explain(conv2d, x, w, b, **options)
        found, pullback = conv2d.vjp(
            *(None if a is None else place(a) for a in (x, w, b)), **options
        )
        dy = numbers(found.shape, dtype, 3)
        gradients = pullback(place(dy))
        pool = options.pop("max_pool", None)
        y = conv2d(x, w, b, **options) if pool else found
    wide = [None if a is None else a.astype("float64") for a in (x, w, b)]
    relu = options.pop("activation", None)
    with kernels("portable"):
        if pool:
            pooled, unpool = max_pool2d.vjp(y, pool)
            np.testing.assert_array_equal(found, pooled)
            (dy,) = unpool(dy)
        dy = np.where(y <= 0, 0, dy).astype("float64") if relu else dy.astype("float64")
        expected, exact = conv2d.vjp(*wide, **options)
        squares, spread = conv2d.vjp(*(None if a is None else a**2 for a in wide), **options)
    near(y, np.maximum(expected, 0) if relu else expected, squares, dtype, way, terms=w[0].size)
    pixels, reached = dy[:, 0].size, w[:, 0].size
    for name, found, wanted, square in zip(
        ("dx", "dw", "db"), gradients, exact(dy), spread(dy**2), strict=True
    ):
        if wanted is None:
            assert found is None
        else:
            terms = {"dx": reached, "dw": pixels, "db": pixels}[name]
            near(found, wanted, square, dtype, way, terms, name)


def near(found, expected, square, dtype, way, terms, name="y"):
    assert found.shape == expected.shape, name
    assert found.dtype == dtype, name
    unit = UNIT[dtype if way is None or name == "db" else way]
    bound = DEVIATIONS * (unit + UNIT[dtype] * terms**0.5) * np.sqrt(square)
    bound += STORED[dtype] * np.abs(expected) + (2**-25 if dtype == "float16" else 1e-38)
    error = np.abs(found.astype("float64") - expected)
    worst = float(np.max(error / bound, initial=0)) if np.isfinite(error).all() else np.nan
    assert worst <= 1, f"{name} is wrong by {worst:.3g} times what rounding explains"


# --- values and gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("problem", FEW, ids=str)
def test_few_channels(problem, dtype):
    check(problem, dtype)


@pytest.mark.parametrize("problem", TILES, ids=str)
def test_tiles(problem):
    check(problem)


BORDERS = [  # of tiles of 16, 32 and 64 filters, of 256 and 128 pixels, and of rows of the weights
    case((1, 2, 1, 255), (9, 2, 1, 1)),
    case((1, 8, 16, 16), (16, 8, 1, 1), **RELU),
    case((1, 2, 1, 257), (17, 2, 1, 1), bias=False),
    case((2, 8, 8, 17), (32, 8, 1, 2), padding=((0, 0), (1, 0))),
    case((1, 16, 1, 129), (33, 16, 2, 1), padding=((1, 0), (0, 0))),
    case((3, 7, 3, 1), (65, 7, 3, 3), padding=1),
]


@pytest.mark.parametrize("problem", BORDERS, ids=str)
def test_borders_of_tiles(problem):
    check(problem)


def drawn(seed):
    """Return a problem of any shape and options."""
    rng = np.random.default_rng(seed)
    groups, channels, images = rng.choice([1, 1, 2, 3]), rng.choice([1, 3, 8, 9, 16]), 1 + seed % 3
    filters = groups * rng.choice([9, 16, 17, 32, 33, 40])
    (window, stride, dilation), extra = rng.integers(1, 4, (3, 2)), rng.integers(0, 7, 2)
    padding = rng.integers(0, 4, (2, 2))
    size = np.maximum(1, (window - 1) * dilation + 1 + extra - padding.sum(1))
    x = (images, int(groups * channels), *size.tolist())
    return case(
        x, (int(filters), int(channels), *window.tolist()), bias=bool(seed % 2),
        groups=int(groups), stride=tuple(stride.tolist()), dilation=tuple(dilation.tolist()),
        padding=tuple(map(tuple, padding.tolist())), **RELU if rng.random() < 0.5 else {},
    )  # fmt: skip


def most_parts(blocks, steps, least):
    """Return into how many parts a sum can be cut at the most."""
    return min(steps, parts.MOST)


@pytest.fixture
def _most_parts(monkeypatch):
    """Let as many blocks share a sum as can."""
    for module in (convolution, weight):
        monkeypatch.setattr(module, "parts_of", most_parts)
    monkeypatch.setattr(convolution, "_ready", convolution._ready.__wrapped__)


@pytest.mark.usefixtures("_most_parts")
@pytest.mark.parametrize("seed", range(16))
def test_whatever_is_drawn(seed):
    way = (None, "tf32", "tf32x3", None)[seed % 4]
    check(drawn(seed), "float64" if seed % 8 == 3 else "float32", way=way)


@pytest.mark.parametrize("problem", [*TILES[:4], TILES[6]], ids=str)
def test_tiles_of_float64(problem):
    check(problem, "float64")


@pytest.mark.parametrize("problem", [*FEW[2:4], FEW[8], TILES[0], *TILES[2:5:2]], ids=str)
def test_float16(problem):
    check(problem, "float16")


@pytest.mark.parametrize("way", ["tf32", "tf32x3"])
@pytest.mark.parametrize("problem", TILES[2:6], ids=str)
def test_tensor_cores(problem, way):
    check(problem, way=way)


def test_long_sums_of_tf32x3_grow_outside_of_the_tensor_cores():
    """These truncate what they add, so that sums of positive numbers would shrink with each."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0.5, 1, (1, 256, 2, 2)).astype(np.float32)
    w = rng.uniform(0.5, 1, (33, 256, 1, 1)).astype(np.float32)
    exact = np.einsum("ncij,kc->nkij", x.astype(float), w[:, :, 0, 0].astype(float))
    with kernels("tf32x3"):
        y = conv2d(x, w)
    assert np.abs(y / exact - 1).max() < 5e-7


@pytest.mark.parametrize("problem", [TILES[2], TILES[5]], ids=str)
def test_tf32_is_no_float32(monkeypatch, problem):
    """Results of the tensor cores are less exact than float32, so that they have run."""
    monkeypatch.setitem(UNIT, "tf32", UNIT["float32"])
    with pytest.raises(AssertionError, match="y is wrong"):
        check(problem, way="tf32")


@pytest.mark.usefixtures("_most_parts")
@pytest.mark.parametrize("problem", [FEW[3], TILES[1], FEW[8]], ids=str)
def test_many_parts_of_the_weight_gradient(problem):
    check(problem)


@pytest.mark.usefixtures("_most_parts")
@pytest.mark.parametrize("way", [None, "tf32", "tf32x3"])
@pytest.mark.parametrize("problem", [TILES[0], *TILES[2:6]], ids=str)
def test_blocks_that_share_a_sum(monkeypatch, problem, way):
    added = []

    def write_sum(*args):
        added.append(args)
        return parts.write_sum(*args)

    monkeypatch.setattr(convolution, "write_sum", write_sum)
    check(problem, way=way)
    assert added


@pytest.mark.parametrize("problem", [FEW[1], *TILES[1:3]], ids=str)
def test_bfloat16(problem):
    pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype")
    check(problem, "bfloat16")


# --- what arguments may be ------------------------------------------------------------------------


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def strided(x):
    wide = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    part = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    part[...] = x
    return part


def beside(x):
    """Return an array that starts between two multiples of 16 bytes."""
    wide = np.zeros(x.size + 1, x.dtype)
    wide[1:] = x.ravel()
    return wide[1:].reshape(x.shape)


@pytest.mark.parametrize("place", [read_only, strided, beside, np.asfortranarray])
@pytest.mark.parametrize("problem", [FEW[1], TILES[0]], ids=str)
def test_arrays_lie_anywhere(problem, place):
    check(problem, place=place)


def test_wanted_gradients_alone_are_computed(monkeypatch):
    x, w, b = arrays(FEW[1])
    with kernels("require"):
        y, pullback = conv2d.vjp(x, w, b, wrt=[2], padding=1)
        for name in ("product_of", "weight_gradient"):
            monkeypatch.setattr(convolution, name, None)
        dx, dw, db = pullback(np.ones_like(y))
    assert dx is dw is None
    np.testing.assert_array_equal(db, np.full(w.shape[0], y[:, 0].size, "float32"))


@pytest.mark.parametrize("problem", [FEW[1], TILES[0]], ids=str)
def test_nan_and_infinity(problem):
    x, w, b = arrays(problem)
    x[0, 0, 0, 0], x[0, 1, 2, 1] = np.nan, np.inf
    found, expected = [], []
    for mode, out in (("require", found), ("portable", expected)):
        with kernels(mode):
            y, pullback = conv2d.vjp(x, w, b, **problem[3])
            dy = np.ones_like(y)
            dy[0, 0, 1, 1], dy[0, 1, 3, 3] = -np.inf, np.nan
            out += [y, *pullback(dy)]
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(e))
        np.testing.assert_array_equal(np.isinf(a) * np.sign(a), np.isinf(e) * np.sign(e))


@pytest.mark.parametrize("shape", [(1, 1 << 11, 1 << 11, 1 << 11), (1 << 21, 4, 32, 32)])
def test_numbers_past_the_range_are_declined(shape):
    x = np.broadcast_to(np.float32(0), shape)
    w = np.broadcast_to(np.float32(0), (2, shape[1], 1, 1))
    options = {"groups": 1, "stride": (1, 1), "dilation": (1, 1), "padding": ((0, 0), (0, 0))}
    assert not convolution.fits(x, w, None, **options)


@pytest.mark.usefixtures("_most_parts")
def test_the_same_bits_each_time():
    x, w, b = arrays(TILES[1])
    with kernels("require"):
        runs = []
        for _ in range(2):
            y, pullback = conv2d.vjp(x, w, b, **TILES[1][3])
            runs.append([y, *pullback(y)])
    for one, other in zip(*runs, strict=True):
        np.testing.assert_array_equal(one, other)


# --- mistakes are caught --------------------------------------------------------------------------

BARRIER = "            cuda.syncthreads()\n"
BY_PIXELS = "if n < filters and p < left"

MISTAKES = {
    "fragment of weights": (
        arithmetic, "(row + q + e // 2 * 4) * row_w + column + i * 16 + g + e % 2 * 8",
        "(row + q + e % 2 * 4) * row_w + column + i * 16 + g + e // 2 * 8", TILES[2], "tf32",
    ),
    "fragment of sums": (
        arithmetic, "s = (i // 2 * 8 + j) * 4 + i % 2 * 2",
        "s = (i % 2 * 8 + j) * 4 + i // 2 * 2", TILES[2], "tf32x3",
    ),
    "a small product left out": (
        arithmetic, "mma_tf32((zero, zero, zero, zero), rest, b)", "(zero, zero, zero, zero)",
        TILES[2], "tf32x3",
    ),
    "a vector of columns": (
        arithmetic, "(h * down + ty) * u, u)", "(h * down + tx % down) * u, u)", TILES[0], None,
    ),
    "a filter too many": (
        arithmetic, BY_PIXELS, "if n <= filters and p < left", TILES[0], None,
    ),
    "a pixel too many": (arithmetic, "p + 1 < left", "p + 1 <= left", TILES[6], None),
    "no barrier in tiles": (tiled, BARRIER, "", TILES[5], None),
    "one buffer": (tiled, "now = DEPTH - now", "now = 0", TILES[5], None),
    "tap of a tile": (tiled, "range(first + DEPTH, ", "range(first, ", TILES[1], None),
    "read before the copy has landed": (
        tensor, "wait_async(1)", "wait_async(2)", TILES[2], "tf32",
    ),
    "no barrier in stages": (tensor, BARRIER, "", TILES[2], "tf32"),
    "a stage too few": (tensor, "STAGES = 3", "STAGES = 2", TILES[5], "tf32"),
    "no barrier in weights": (
        weight, BARRIER, "", TILES[1], None,
    ),
    "a pixel too many in weights": (
        weight, "left > 0 and", "left >= 0 and", TILES[1], None,
    ),
    "a part left out": (parts, "range(1, parts)", "range(2, parts)", TILES[1], None),
    "a part of another": (pixels, "part * part_rows", "0", TILES[5], None),
    "bias of each part": (
        convolution, "vector if r.parts > 1 else vector | flags", "vector | flags", TILES[0], None,
    ),
    "a row too many in a step": (weight, "iw >= last_w", "iw > last_w", TILES[2], None),
    "an image too late": (weight, "ih >= last_h", "ih > last_h", TILES[1], None),
    "pixels of the second thread": (tiled, "p0 + e * THREADS + t", "p0 + t", TILES[2], None),
    "rows of a depthwise filter": (
        weight, "(row0 + i) * TABLE", "(row0 + i + 1) * TABLE", FEW[8], None,
    ),
    "a row above the image": (gather, "start + g.corner[axis]", "start", FEW[2], None),
    "a phase at the wrong place": (
        gather, "top * width + left", "left", FEW[6], None,
    ),
    "ReLU of nothing": (cotangents, "<= 0", "< 0", FEW[1], None),
    "a column of the matrix": (
        pixels, "n * weight_step", "n * weight_step + 1", TILES[0], None,
    ),
}  # fmt: skip

FAMILY = gather, pixels, parts, arithmetic, few, tiled, tensor, weight, cotangents, convolution
"""The modules of the convolution, each after those that it imports."""


def with_mistake(monkeypatch, module, old, new):
    """Let all of the convolution run anew, one module of it with other text.

    Two blocks share each sum, if it has two steps.
    """
    made = plant(monkeypatch, module, old, new, FAMILY)
    for name in ("weight", "convolution"):
        monkeypatch.setattr(made[name], "parts_of", lambda blocks, steps, least: min(steps, 2))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    module, old, new, problem, way = MISTAKES[mistake]
    with_mistake(monkeypatch, module, old, new)
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check(problem, way=way)


@pytest.mark.parametrize("way", [None, "tf32", "tf32x3"])
def test_without_a_mistake_nothing_is_caught(monkeypatch, way):
    with_mistake(monkeypatch, gather, "FAR", "FAR")
    for problem in (FEW[2], FEW[8], TILES[1], TILES[2]):
        check(problem, way=way)


# --- what is compiled -----------------------------------------------------------------------------


def test_variants_are_all_kernels():
    """What the check of compiled code makes is all that ran here."""
    check(FEW[1])
    known = set()
    for module in FAMILY:
        made = module.variants() if hasattr(module, "variants") else []
        known |= {(k.function.__qualname__, k.parameters) for k in made}
    names = [module.__name__ for module in FAMILY]
    ran = [k for k in KERNELS if k.function.__module__ in names]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
