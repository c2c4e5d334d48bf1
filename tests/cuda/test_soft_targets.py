"""The CUDA kernels of cross entropy over probabilities against the definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import cross_entropy, explain, kernels
from agnostic_xent.kernels.cuda.loss import cross_entropy as labels
from agnostic_xent.kernels.cuda.loss import soft_targets as host
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.mistaken import plant

SHAPES = [((6,), -1), ((3, 1), 1), ((5, 8), 1), ((3, 9), 1), ((2, 1100), 1)]
PLANES = [((2, 7, 3), 1), ((5, 2, 33), 1), ((4, 40), 0)]
OPTIONS = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "none": {"reduction": "none"},
    "smoothed": {"label_smoothing": 0.25, "temperature": 0.5},
    "weight": {"weight": True},
    "by weight": {"weight": True, "normalize": "weight"},
    "by the target": {"normalize": "weight"},
    "by sample weight": {"sample_weight": True, "normalize": "weight"},
    "all": {
        "weight": True, "sample_weight": True, "label_smoothing": 0.1, "temperature": 2.0,
        "normalize": "weight",
    },
    "none of all": {
        "weight": True, "sample_weight": True, "label_smoothing": 0.1, "reduction": "none",
    },
    "number": {"sample_weight": True, "normalize": 7.0},
}  # fmt: skip


def draw(shape, axis=-1, dtype="float32", **options):
    """Return logits, probabilities and options with arrays in place of True."""
    rng = np.random.default_rng(4)
    axis %= len(shape)
    samples = shape[:axis] + shape[axis + 1 :]
    logits, t = 3 * rng.standard_normal(shape), rng.random(shape)
    t = np.moveaxis(t / np.sum(t, axis=axis, keepdims=True), axis, -1)
    if len(shape) > 1:
        t[0] = np.arange(shape[axis]) == shape[axis] // 2  # one that is certain
        t[1] /= 2  # one that is known in part
    t = np.moveaxis(t, -1, axis)
    if "weight" in options:
        options["weight"] = rng.random(shape[axis]).astype(dtype)
        options["weight"][-1] = shape[axis] == 1
    if "sample_weight" in options:
        options["sample_weight"] = np.asarray(rng.random(samples)).astype(dtype)
        options["sample_weight"].reshape(-1)[1::4] = 0  # these samples' logits count for nothing
        np.moveaxis(logits, axis, -1)[options["sample_weight"] == 0] = np.nan
    return logits.astype(dtype), np.ascontiguousarray(t).astype(dtype), options | {"axis": axis}


def results(x, t, options, wrt=None):
    """Return value and gradients of the kernel, and of the definition in float64."""
    wide = {k: v.astype("f8") if isinstance(v, np.ndarray) else v for k, v in options.items()}
    with kernels("portable"):
        expected, exact = cross_entropy.vjp(x.astype("f8"), t.astype("f8"), wrt=wrt, **wide)
    found, slopes = [], []
    with kernels("require"):
        assert "CUDA" in explain(cross_entropy, x, t, **options)
        value, pullback = cross_entropy.vjp(x, t, wrt=wrt, **options)
        np.testing.assert_array_equal(value, cross_entropy(x, t, **options))
        for dy in (np.ones(expected.shape), np.random.default_rng(2).random(expected.shape)):
            dy = np.asarray(dy).astype(x.dtype)
            found += pullback(dy)
            slopes += exact(dy.astype("f8"))
    assert [g is None for g in found] == [g is None for g in slopes]
    pairs = [(g, s) for g, s in zip(found, slopes, strict=True) if g is not None]
    pairs.insert(0, (value, expected))
    assert all(one.dtype == x.dtype for one, _ in pairs)
    return pairs


def check(x, t, options, wrt=None):
    for found, expected in results(x, t, options, wrt):
        assert np.all(np.isfinite(expected))
        assert_close(found, expected, str(x.dtype), terms=8 + x.shape[options["axis"]] ** 0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), SHAPES, ids=str)
def test_shapes(shape, axis, dtype):
    check(*draw(shape, axis, dtype))


@pytest.mark.parametrize("name", ["plain", "all", "none of all"])
@pytest.mark.parametrize(("shape", "axis"), PLANES, ids=str)
def test_planes(monkeypatch, shape, axis, name):
    check(*draw(shape, axis, **OPTIONS[name]))
    monkeypatch.setattr(labels, "FEW_PIXELS", 0)
    check(*draw(shape, axis, **OPTIONS[name]))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", [(7, 6), (5, 20), (3, 1030)], ids=str)
def test_options(shape, name):
    check(*draw(shape, **OPTIONS[name]))


@pytest.mark.parametrize("wrt", [(), (0,), (1,)], ids=str)
@pytest.mark.parametrize("name", ["by weight", "none of all"])
def test_only_wanted_gradients(name, wrt):
    check(*draw((5, 6), **OPTIONS[name]), wrt=wrt)


def test_a_gradient_is_the_callers():
    x, t, options = draw((3, 4))
    with kernels("require"):
        _, pullback = cross_entropy.vjp(x, t, wrt=(0,), **options)
        first = pullback(np.ones((), "f4"))[0]
        kept = first.copy()
        first[...] = 7
        np.testing.assert_array_equal(pullback(np.ones((), "f4"))[0], kept)


@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_halves(dtype, name):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    x, t, options = draw((5, 20), dtype=dtype, **OPTIONS[name])
    unit = 2.0**-10 if x.dtype.name == "float16" else 2.0**-7
    for found, expected in results(x, t, options):
        error = np.abs(np.asarray(found, "f8") - expected)
        assert np.all(error <= unit * np.abs(expected) + 2.0**-20)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("width", [5, 40])
def test_special_values(width, weighted):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((11, width)).astype("f4"), rng.random((11, width)).astype("f4")
    x[1] += 1e30
    x[2, 1], x[3, 1], x[4, :], x[5, 0], x[6, 1] = np.nan, np.inf, -np.inf, -np.inf, -np.inf
    x[8, 0], x[8, 1:], x[9, 0], x[9, 1:], x[10, 1:] = 40, -40, -200, 200, -np.inf
    t[6, 1] = 0
    t[7:, 0], t[7:, 1:] = 1, 0
    options = {"axis": 1, "reduction": "none"}
    if weighted:
        options["weight"] = rng.random(width).astype("f4")
        options["weight"][1] = 0
    pairs = results(x, t, options)
    pairs += results(x.T.copy(), t.T.copy(), options | {"axis": 0}, wrt=(0,))
    for found, expected in pairs:
        assert_close(found, expected, "float32", terms=8 + width**0.5)


@pytest.mark.parametrize("width", [3, 40])
def test_a_sample_that_is_almost_certain_keeps_its_digits(width):
    x, t = np.full((2, width), -30, "f4"), np.zeros((2, width), "f4")
    x[0, 1], x[1, 1], t[:, 1] = 0, -10, 1
    with kernels("require"):
        found, pullback = cross_entropy.vjp(x, t, reduction="none", wrt=(0,))
        dx = pullback(np.ones(2, "f4"))[0]
    others = (width - 1) * np.exp([-30.0, -20.0])
    assert_close(found / np.log1p(others), np.ones(2), "float32", terms=8)
    assert_close(dx[:, 1] / -(others / (1 + others)), np.ones(2), "float32", terms=8)


@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_nothing_counts(on_empty):
    x, t, options = draw((3, 4), on_empty=on_empty, normalize="weight")
    options["sample_weight"] = np.zeros(3, "f4")
    for found, expected in results(x, t, options):
        np.testing.assert_array_equal(found, expected)


def strided(x):
    wide = np.zeros([2 * n + 1 for n in x.shape], x.dtype)
    part = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    part[...] = x
    part.flags.writeable = False
    return part


def test_arrays_lie_anywhere():
    x, t, options = draw((5, 7), **OPTIONS["none of all"])
    options = {k: strided(v) if isinstance(v, np.ndarray) else v for k, v in options.items()}
    check(strided(x), strided(t), options)


def test_labels_are_not_taken():
    options = {"weight": None, "sample_weight": None}
    assert host.takes(np.ones((2, 3)), np.ones(2, "i8"), **options) == "it takes probabilities"


# --- mistakes are caught --------------------------------------------------------------------------

MISTAKES = {
    "a class left out": ("if c < classes:", "if c < classes - 1:", "plain"),
    "classes that are not there": ("if j + u * team < classes:", "if True:", "smoothed"),
    "classes at once": ("team * AT_ONCE", "team * 5", "plain"),
    "a row too many": ("if n >= rows:  #", "if n > rows:  #", "plain"),
    "smoothing": ("p[u] * kept + spread)\n        top", "p[u] * kept)\n        top", "smoothed"),
    "weights of the target": (
        "weight_of(weight, j + u * team, flags, one) * (p[u]", "(p[u]", "weight",
    ),
    "no sum of a team": ("mass = team_sum(mass, room, t, team)\n        log", "log", "weight"),
    "sharpness": ("absorb(top, rest, v[u], sharpness)", "absorb(top, rest, v[u], one)", "smoothed"),
    "the target's part": ("e / total - q\n", "e / total\n", "plain"),
    "the temperature": ("b * (slope * sharpness)", "b * slope", "smoothed"),
    "who has no weight": ("zero if a == 0 else b *", "b *", "all"),
    "the share of the divisor": ("if flags & DIVIDED:  # by", "if False:  # by", "by the target"),
    "the divisor": ("if flags & DIVIDED:\n", "if False:\n", "by weight"),
    "masses": ("mass += w * widen", "mass += widen", "by weight"),
    "each cotangent": ("n if flags & EACH else 0", "0", "none"),
    "a default": ('by_default = "count"', 'by_default = "weight"', "weight"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    old, new, name = MISTAKES[mistake]
    plant(monkeypatch, host, old, new)
    with pytest.raises((AssertionError, IndexError)):
        check(*draw((7, 20 if name == "weight" else 6), **OPTIONS[name]))


def test_mistakes_in_the_last_digits_are_caught(monkeypatch):
    plant(monkeypatch, host, "if q == mass", "if False")
    with pytest.raises(AssertionError):
        test_a_sample_that_is_almost_certain_keeps_its_digits(3)


def test_variants_are_all_kernels():
    check(*draw((3, 9), **OPTIONS["all"]))
    known = {(k.function.__qualname__, k.parameters) for k in host.variants()}
    ran = [k for k in KERNELS if k.function.__module__ == host.__name__]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
