"""The CPU kernels of softmax cross entropy against the portable definition in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

numba = pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.simd.few import FEW  # noqa: E402

SHAPES = [
    (1, 1), (1, 2), (7, 1), (5, 3), (17, 10), (128, 10), (3, FEW), (3, FEW + 1), (13, 127),
    (5, 1009), (2, 4096), (2, 4097), (3, 8200), (1000, 31), (700, 153),
    (1200, 1), (1201, 2), (33, 3), (15, 4), (16, 4), (19, 5), (16, 7), (8, 8), (47, 8), (50, 9),
    (9, 16), (31, 17), (40, 33), (130, 64),
]  # fmt: skip
PLANES = [
    (2, 3, 5),
    (1, 1, 4),
    (2, 19, 7, 13),
    (3, 64, 17),
    (2, 65, 48),
    (1, 130, 1031),
    (4, 5, 1),
    (2, 7, 5, 8),
]


def example(shape, axis=-1, dtype="float32", seed=0):
    rng = np.random.default_rng(seed)
    samples = np.delete(shape, axis)
    z = (3 * rng.standard_normal(shape)).astype(dtype)
    return z, rng.integers(0, shape[axis], samples)


def probabilities(shape, axis=-1, dtype="float32", seed=5):
    """Return targets of which some are one-hot, and some hold zeros."""
    rng = np.random.default_rng(seed)
    t = rng.random(shape) * (rng.random(shape) < 0.7)
    rows = np.moveaxis(t, axis, -1)
    rows[..., 0] += 0.1
    rows[0] = 0
    rows[0, ..., -1] = 1
    return (t / t.sum(axis=axis, keepdims=True)).astype(dtype)


def options_for(z, y, axis, weight, sample_weight, ignore):
    rng = np.random.default_rng(1)
    options = {"axis": axis}
    if weight:
        options["weight"] = (rng.random(z.shape[axis]) + 0.1).astype(z.dtype)
    if sample_weight:
        a = rng.random(y.shape).astype(z.dtype)
        a[rng.random(y.shape) < 0.3] = 0
        options["sample_weight"] = a
    if ignore:
        options["ignore_index"] = int(y.flat[0])
    return options


def both(z, y, dy=None, **options):
    """Return value and gradient, of the kernel and of the portable definition in float64."""
    wide = {k: v.astype("float64") if isinstance(v, np.ndarray) else v for k, v in options.items()}
    target = y.astype("float64") if y.dtype.kind == "f" else y
    with ax.kernels("portable"):
        expected, back = ax.cross_entropy.vjp(z.astype("float64"), target, **wide)
    if dy is None:
        dy = np.random.default_rng(2).standard_normal(expected.shape)
    dy = np.asarray(dy, dtype=z.dtype)
    slope = back(dy.astype("float64"))[0]
    with ax.kernels("require"):
        value, back = ax.cross_entropy.vjp(z, y, **options)
        alone = ax.cross_entropy(z, y, **options)
    found = back(dy)
    if y.dtype.kind != "f":
        assert found[1] is None
    assert value.dtype == found[0].dtype == z.dtype
    assert value.shape == expected.shape
    np.testing.assert_array_equal(value, alone)
    return (value, found[0]), (expected, slope)


def agree(found, expected, terms):
    for f, e in zip(found, expected, strict=True):
        assert_close(f, e, str(f.dtype), terms)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "axis"), [(s, -1) for s in SHAPES] + [(s, 1) for s in PLANES] + [((11, 5), 0)]
)
def test_shapes(shape, axis, dtype):
    for reduction, y_type in (("mean", "int64"), ("sum", "uint16"), ("none", ">i4")):
        z, y = example(shape, axis, dtype)
        found, expected = both(z, y.astype(y_type), axis=axis, reduction=reduction)
        terms = 8 + (shape[0] if reduction != "none" else 0)
        agree(found, expected, terms)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((9, 7), -1), ((39, 2), -1), ((21, 19), -1), ((6, 70), -1), ((4, 7, 3), 1), ((2, 7, 37), 1)],
)
def test_options(shape, axis, reduction):
    z, y = example(shape, axis)
    flags = itertools.product((False, True), repeat=3)
    for weight, sample_weight, ignore in flags:
        for smoothing, temperature in ((0.0, 1.0), (0.1, 1.0), (0.0, 2.5), (1.0, 0.7)):
            for normalize in (None, "count", 7.5) if reduction == "mean" else (None,):
                options = options_for(z, y, axis, weight, sample_weight, ignore)
                options |= {"label_smoothing": smoothing, "temperature": temperature}
                options |= {"normalize": normalize, "reduction": reduction}
                agree(*both(z, y, **options), terms=64)


@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.1}, {"temperature": 2.5}], ids=str)
@pytest.mark.parametrize("overwrite", [False, True])
def test_maxima_that_rise_along_a_row(options, overwrite):
    """The exponentials of a piece know the maximum so far only."""
    z = np.random.default_rng(6).normal(scale=5, size=(5, 2500)).astype("float32")
    z[0], z[1], z[2, :1100] = np.sort(z[0]), -np.sort(-z[1]), -1e5
    z[3, -1], z[4, :1024] = 200, -np.inf
    weight = (z[4] > -np.inf).astype("float32")  # with smoothing, -inf needs a weight of 0
    for y in np.array([[0, 0, 0, 0, 1024], [2499, 2499, 1099, 2499, 2000]]):
        given = options | {"weight": weight, "reduction": "none"}
        _, expected = both(z, y, **given)
        with ax.kernels("require"):
            loss, back = ax.cross_entropy.vjp(z.copy(), y, overwrite_logits=overwrite, **given)
        dy = np.random.default_rng(2).standard_normal(5).astype("float32")
        agree((loss, back(dy)[0]), expected, terms=64)


@pytest.mark.parametrize(
    ("classes", "axis"), [(4, -1), (6, -1), (9, -1), (60, -1), (70, -1), (1030, -1), (6, 1)]
)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_special_values(classes, axis, smoothing, weighted):
    """Each row of its own kind, the last one plain: only its own row is touched."""
    inf, nan = np.inf, np.nan
    z = np.random.default_rng(3).standard_normal((8, classes)).astype("float32")
    z[0, 1], z[1, 2], z[2], z[3, 0], z[4, 3] = nan, inf, -inf, -inf, -inf
    z[5], z[6] = 1e8, -np.arange(classes) * 40.0
    y = np.array([0, 0, 0, 0, 1, 2, 0, 3])
    weight = np.ones(classes, "float32")
    weight[3] = 0
    if axis == 1:  # enough pixels for the loops whose lanes they are
        z, y = np.repeat(z, 10, axis=0), np.repeat(y, 10)
        z, y = np.ascontiguousarray(z.reshape(2, 40, classes).swapaxes(1, 2)), y.reshape(2, 40)
    options = {"axis": axis, "label_smoothing": smoothing, "reduction": "none"}
    if weighted:
        options["weight"] = weight
    found, expected = both(z, y, np.ones(y.shape), **options)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(f), np.isnan(e))
        np.testing.assert_array_equal(np.isinf(f), np.isinf(e))
        np.testing.assert_allclose(f, e, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("classes", [5, 60, 70])
def test_exact_zeros_and_small_losses(classes):
    z = np.full((2, classes), -np.inf, "float32")
    z[0, 4], z[1, :2] = 3, (0, -30)
    value, back = ax.cross_entropy.vjp(z, np.array([4, 0]), reduction="none")
    g = back(np.ones(2, "float32"))[0]
    assert value[0] == 0
    assert not g[0].any()
    assert_close(value[1], np.log1p(np.exp(-30.0)), "float32", 1)
    assert_close(g[1, :2], np.exp(-30.0) * np.array([-1, 1]), "float32", 1)
    assert not g[1, 2:].any()


@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 5), -1), ((4, 50), -1), ((4, 80), -1), ((2, 5, 2), 1), ((2, 5, 40), 1)]
)
def test_samples_that_do_not_count_are_zero_even_as_nan(shape, axis):
    z, y = example(shape, axis)
    y.flat[0], y.flat[-1] = 255, 1
    a = np.ones(y.shape, "float32")
    a.flat[-1] = 0
    np.moveaxis(z, axis, -1)[0 if axis == -1 else (0, 0)] = np.nan
    np.moveaxis(z, axis, -1)[-1 if axis == -1 else (-1, -1)] = np.inf
    for dy in (1.0, np.inf, np.nan):
        for reduction in ("mean", "none"):
            value, back = ax.cross_entropy.vjp(
                z, y, axis=axis, ignore_index=255, sample_weight=a, reduction=reduction
            )
            g = np.moveaxis(back(np.full(value.shape, dy, "float32"))[0], axis, -1)
            g = g.reshape(-1, shape[axis])
            assert np.all(g[[0, -1]] == 0)
            assert np.all(np.isfinite(value))


@pytest.mark.parametrize(
    ("shape", "axis"), [((4, 5), -1), ((4, 50), -1), ((4, 80), -1), ((2, 5, 2), 1), ((2, 5, 40), 1)]
)
def test_an_unchecked_label_out_of_range_is_nan_in_its_row(shape, axis):
    z, y = example(shape, axis)
    y.flat[1], y.flat[2] = shape[axis], -1
    options = {"axis": axis, "check_labels": False, "reduction": "none"}
    found, expected = both(z, y, np.ones(y.shape), **options)
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_array_equal(np.isnan(f), np.isnan(e))
    assert np.isnan(found[0]).sum() == 2


@pytest.mark.parametrize("on_empty", ["nan", "zero"])
@pytest.mark.parametrize("shape", [(0, 3), (3, 4), (3, 60), (3, 70)])
def test_nothing_counts(shape, on_empty):
    z, y = np.ones(shape, "float32"), np.full(shape[0], -100)
    options = {"ignore_index": -100, "on_empty": on_empty}
    value, back = ax.cross_entropy.vjp(z, y, **options)
    np.testing.assert_array_equal(value, np.nan if on_empty == "nan" else 0)
    np.testing.assert_array_equal(back(np.ones_like(value))[0], np.zeros(shape))


def test_no_classes():
    """No label is right; unchecked, a term is the sum of nothing."""
    z, y = np.ones((2, 0)), np.zeros(2, int)
    with pytest.raises(ValueError, match="target"):
        ax.cross_entropy(z, y)
    assert ax.cross_entropy(z, y, check_labels=False) == 0


def test_ignored_label_that_the_dtype_cannot_hold():
    z, y = example((4, 5))
    agree(*both(z, y.astype("uint8"), ignore_index=-100), terms=8)
    agree(*both(z, y.astype("uint64"), ignore_index=-1, reduction="none"), terms=8)


def layouts(z):
    readonly = z.copy()
    readonly.flags.writeable = False
    wide = np.zeros((z.shape[0], 2 * z.shape[1]), z.dtype)
    wide[:, ::2] = z
    return readonly, np.asfortranarray(z), wide[:, ::2], z[::-1].copy()[::-1]


@pytest.mark.parametrize("shape", [(6, 5), (6, 70)])
def test_layouts_give_the_same_bits(shape):
    z, y = example(shape)
    value, back = ax.cross_entropy.vjp(z, y)
    g = back(np.float32(1))[0]
    for other in layouts(z):
        with ax.kernels("require"):
            found, back = ax.cross_entropy.vjp(other, layouts(y[:, None])[2][:, 0])
        assert found == value
        np.testing.assert_array_equal(back(np.float32(1))[0], g)


@pytest.mark.parametrize(
    ("z", "y", "reason"),
    [
        (np.ones((2, 3), "float16"), np.zeros(2, int), "not <f2"),
        (np.ones((2, 3), ">f4"), np.zeros(2, int), "native byte order, not >f4"),
        (np.ones((2, 3), ">f8"), np.ones((2, 3), ">f8"), "native byte order, not >f8"),
        (np.ones((2, 3)).view(np.recarray), np.zeros(2, int), "not recarray"),
    ],
)
def test_what_is_declined(z, y, reason):
    line = ax.explain(ax.cross_entropy, z, y)
    assert line.startswith("cross_entropy: portable (Numba loops: it takes")
    assert reason in line


def test_explain_says_that_the_kernel_runs():
    line = ax.explain(ax.cross_entropy, *example((2, 3)))
    assert line == "cross_entropy: Numba loops (it takes these arguments)"


@pytest.mark.parametrize("dy", [1.0, 2.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_the_pullback_is_pure(dy, reduction):
    z, y = example((6, 70))
    value, back = ax.cross_entropy.vjp(z, y, reduction=reduction)
    dy = np.full(value.shape, dy, "float32")
    first = back(dy)[0]
    kept = first.copy()
    first[:] = 7  # it is the caller's
    second = back(dy)[0]
    np.testing.assert_array_equal(second, kept)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize(
    ("shape", "axis"), [((2500, 7), -1), ((250, 70), -1), ((2, 7, 1300), 1), ((5, 11), -1)]
)
def test_a_cotangent_a_sample(shape, axis):
    """On one thread and on several; what does not count stays 0 whatever comes."""
    z, y = example(shape, axis)
    y.flat[3] = -1
    dy = np.random.default_rng(4).standard_normal(y.shape)
    agree(*both(z, y, dy, axis=axis, ignore_index=-1, reduction="none"), terms=8)
    dy.flat[3] = np.nan
    _, back = ax.cross_entropy.vjp(z, y, axis=axis, ignore_index=-1, reduction="none")
    assert np.isfinite(back(dy.astype("float32"))[0]).all()


@pytest.mark.parametrize("shape", [(5, 11), (600, 3), (5, 70), (3, 9000), (300, 101)])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_logits_may_be_overwritten(shape, smoothing):
    z, y = example(shape)
    options = {"label_smoothing": smoothing, "reduction": "sum"}
    expected, back = ax.cross_entropy.vjp(z, y, **options)
    kept, slope = z.copy(), back(np.float32(2))[0]
    value, back = ax.cross_entropy.vjp(z, y, overwrite_logits=True, **options)
    found = back(np.float32(2))[0]
    assert_close(value, expected, "float32", 8)
    assert_close(found, slope, "float32", 8)
    if shape[1] > FEW:
        assert np.shares_memory(found, z)
        with pytest.raises(RuntimeError, match="the logits are gone"):
            back(np.float32(1))
    kept.flags.writeable = False
    untouched = kept.copy()
    ax.cross_entropy.vjp(kept, y, overwrite_logits=True, **options)[1](np.float32(1))
    ax.cross_entropy(z, y, overwrite_logits=True)
    np.testing.assert_array_equal(kept, untouched)


@pytest.mark.parametrize("shape", [(6, 5), (6, 70), (6, 5, 40)])
@pytest.mark.parametrize("bad", [-1, 70, 2**40])
def test_a_bad_label_is_found_before_anything_is_written(shape, bad):
    """In a call like an earlier one, where the loops look at the labels."""
    z, y = example(shape, 1)
    options = {"axis": 1, "overwrite_logits": True}
    ax.cross_entropy.vjp(z.copy(), y, **options)
    kept = z.copy()
    y.flat[3] = bad
    place = ", ".join(map(str, np.unravel_index(3, y.shape)))
    for call in (ax.cross_entropy, ax.cross_entropy.vjp):
        with pytest.raises(
            ValueError, match=rf"^target\[{place}\] is {bad}, but labels must be in"
        ):
            call(z, y, **options)
    np.testing.assert_array_equal(z, kept)
    _, back = ax.cross_entropy.vjp(z, y, ignore_index=bad, **options)
    assert np.isfinite(back(np.float32(1))[0]).all()


def test_without_the_gradient():
    z, y = example((6, 70))
    assert ax.cross_entropy.vjp(z, y, wrt=[])[1](np.float32(1)) == (None, None)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4096, 10), -1),
        ((40001, 2), -1),
        ((1500, 50), -1),
        ((300, 101), -1),
        ((5, 9001), -1),
        ((2, 11, 3000), 1),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_the_same_bits_for_any_number_of_threads(shape, axis, soft):
    z, y = example(shape, axis)
    if soft:
        y = probabilities(shape, axis)
    found = []
    threads = numba.get_num_threads()
    try:
        for n in {1, min(2, threads), threads}:
            numba.set_num_threads(n)
            for _ in range(2):
                value, back = ax.cross_entropy.vjp(z, y, axis=axis, label_smoothing=0.1, wrt=[0])
                found.append((value.tobytes(), back(np.float32(0.3))[0].tobytes()))
    finally:
        numba.set_num_threads(threads)
    assert len(set(found)) == 1
