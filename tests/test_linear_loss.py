"""linear_cross_entropy: what dense and cross_entropy give, within a budget of memory."""

from __future__ import annotations

import tracemalloc
from itertools import product

import numpy as np
import pytest
from conftest import assert_close

from agnostic_xent import cross_entropy, dense, kernels, linear_cross_entropy, to_numpy

N, D, CLASSES = 7, 4, 5
RNG = np.random.default_rng(11)
X, W, B = (RNG.standard_normal(shape) for shape in [(N, D), (CLASSES, D), (CLASSES,)])
LABELS = np.array([3, 0, 4, 1, 1, 2, 0])
SOFT = RNG.dirichlet(np.ones(CLASSES), N)
SHARES = SOFT * np.linspace(0.25, 2, N)[:, None]
CLASS_WEIGHT = RNG.random(CLASSES) + 0.5
SAMPLE_WEIGHT = np.array([1.0, 0.0, 2.0, 0.5, 0.0, 1.5, 1.0])
PRIOR = np.array([4.0, 0.5, 1.0, 0.125, 2.0])

REDUCTIONS = ("mean", "sum", "none")
FOR_BOTH = [
    {},
    {"class_weight": CLASS_WEIGHT},
    {"sample_weight": SAMPLE_WEIGHT},
    {"class_weight": CLASS_WEIGHT, "sample_weight": SAMPLE_WEIGHT, "normalize": "weight"},
    {"class_weight": CLASS_WEIGHT, "normalize": "weight", "label_smoothing": 0.2},
    {"class_weight": CLASS_WEIGHT, "normalize": "count"},
    {"label_smoothing": 0.1},
    {"temperature": 2.5},
    {"softcap": 2.0, "temperature": 0.5},
    {"class_prior": PRIOR},
    {"z_loss": 0.25, "sample_weight": SAMPLE_WEIGHT},
    {"softcap": 2.0, "class_prior": PRIOR, "z_loss": 0.25, "label_smoothing": 0.1},
    {"normalize": 100.0},
    {"sample_weight": np.zeros(N), "on_empty": "zero", "normalize": "weight"},
    {"sample_weight": np.zeros(N), "normalize": "weight"},
    {"class_weight": np.zeros(CLASSES), "normalize": "weight"},
]
FOR_LABELS = [
    {"ignore_index": 1},
    {"ignore_index": 1, "class_weight": CLASS_WEIGHT, "sample_weight": SAMPLE_WEIGHT},
    {"ignore_index": 0, "class_weight": CLASS_WEIGHT, "label_smoothing": 0.1, "temperature": 0.5},
    {"ignore_index": -100, "normalize": "count"},
]
FOR_SHARES = [
    {"normalize": "weight"},
    {"normalize": "weight", "sample_weight": SAMPLE_WEIGHT},
    {"normalize": "weight", "class_weight": CLASS_WEIGHT},
]
CASES = [(LABELS, o) for o in [*FOR_BOTH, *FOR_LABELS]]
CASES += [(SOFT, o) for o in FOR_BOTH] + [(SHARES, o) for o in FOR_SHARES]
ARRAYS = ("class_weight", "sample_weight", "class_prior")
ONE_ROW, SOME_ROWS, ALL_ROWS = 1, 3 * 8 * CLASSES * 8, 2**20


def both(x, w, target, b, options):
    """Return value and gradients (x, w, target, b) through the whole array of logits."""
    options = dict(options)
    weight = options.pop("class_weight", None)
    z, pull_dense = dense.vjp(x, w, b)
    value, pull_loss = cross_entropy.vjp(z, target, weight=weight, **options)

    def pullback(dy):
        dz, dt = pull_loss(dy)
        dx, dw, db = pull_dense(dz)
        return dx, dw, dt, db

    return value, pullback


def on_row(row, options, dtype):
    return {k: row.array(v, dtype) if k in ARRAYS else v for k, v in options.items()}


@pytest.mark.parametrize("memory", [ONE_ROW, SOME_ROWS, ALL_ROWS])
@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equals_the_loss_of_whole_logits(mode, reduction, memory):
    for (target, options), b in product(CASES, [B, None]):
        options = options | {"reduction": reduction}
        with kernels("portable"):
            expected, pull_expected = both(X, W, target, b, options)
        with kernels(mode):
            value, pullback = linear_cross_entropy.vjp(X, W, target, b, memory=memory, **options)
            alone = linear_cross_entropy(X, W, target, b, memory=memory, **options)
            assert_close(value, expected, "float64", 64)
            np.testing.assert_array_equal(value, alone)
            for seed in (1, 2):  # a pullback may be called again
                dy = np.asarray(np.random.default_rng(seed).standard_normal(expected.shape))
                found = pullback(dy)
                for g, e in zip(found, pull_expected(dy), strict=True):
                    assert (g is None) == (e is None)
                    if e is not None:
                        assert_close(g, e, "float64", 256)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_options_on_every_row(row, reduction):
    """The options that need arrays of the right library, device and dtype, in several blocks."""
    for dtype, case in product(
        row.dtypes, [(LABELS, FOR_LABELS[1]), (SOFT, FOR_BOTH[3]), (LABELS, FOR_BOTH[11])]
    ):
        target, options = case[0], case[1] | {"reduction": reduction}
        exact = {k: v.astype(dtype).astype(float) if k in ARRAYS else v for k, v in options.items()}
        arrays = [
            a.astype(dtype).astype(float) if a.dtype.kind == "f" else a for a in (X, W, target, B)
        ]
        expected, pull_expected = both(*arrays, exact)
        dy = np.asarray(RNG.standard_normal(expected.shape)).astype(dtype)
        placed = on_row(row, options, dtype)

        def gradients(dy, *arrays, placed=placed):
            value, pullback = linear_cross_entropy.vjp(*arrays, memory=SOME_ROWS, **placed)
            return value, pullback(dy), pullback(dy)

        value, *twice = row.call(
            gradients, row.array(dy, dtype), *(row.array(a, dtype) for a in arrays)
        )
        row.check(value, dtype)
        assert_close(value, expected, dtype, 64)
        for found in twice:
            for g, e in zip(found, pull_expected(dy.astype(float)), strict=True):
                if e is not None:
                    row.check(g, dtype)
                    assert_close(g, e, dtype, 256)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("on_empty", ["nan", "zero"])
def test_an_empty_batch(reduction, on_empty):
    x, labels = X[:0], LABELS[:0]
    options = {"reduction": reduction, "on_empty": on_empty}
    value, pullback = linear_cross_entropy.vjp(x, W, labels, B, **options)
    np.testing.assert_array_equal(value, cross_entropy(dense(x, W, B), labels, **options))
    dx, dw, dt, db = pullback(np.ones_like(value))
    assert dx.shape == (0, D)
    assert dt is None
    assert not dw.any()
    assert not db.any()


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_ignored_rows_have_no_gradient(reduction):
    """Exactly 0, even where the mean has no divisor and is NaN."""
    value, pullback = linear_cross_entropy.vjp(
        X, W, np.full(N, -1), B, ignore_index=-1, reduction=reduction, memory=ONE_ROW
    )
    assert np.isnan(value).all() == (reduction == "mean")
    for g in pullback(np.ones_like(value)):
        assert g is None or not g.any()


@pytest.mark.parametrize("wrt", [(), (0,), (1,), (2,), (3,), (0, 3)])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_wrt(reduction, wrt):
    value, pullback = linear_cross_entropy.vjp(X, W, SOFT, B, wrt=wrt, reduction=reduction)
    found = pullback(np.ones_like(value))
    assert [i for i, g in enumerate(found) if g is not None] == list(wrt)


def half(x, library, dtype):
    """Return an array of a half-precision dtype."""
    if library == "numpy":
        return x.astype(dtype)
    torch = pytest.importorskip("torch")
    return torch.asarray(x).to(getattr(torch, dtype))


@pytest.mark.parametrize(("library", "dtype"), [("numpy", "float16"), ("torch", "bfloat16")])
def test_half_precision_is_summed_in_float32(library, dtype):
    """One rounding of the result: the sums over 4,096 rows are those of float32."""
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 4096)
    x, w = (half(rng.standard_normal(s), library, dtype) for s in [(4096, 2), (3, 2)])
    exact = [to_numpy(a.float() if library == "torch" else a).astype(float) for a in (x, w)]
    target = labels if library == "numpy" else pytest.importorskip("torch").asarray(labels)
    value, pullback = linear_cross_entropy.vjp(x, w, target, memory=2**12)
    expected, pull_expected = both(*exact, labels, None, {})
    dw = pullback(value * 0 + 1)[1]
    assert value.dtype == dw.dtype == x.dtype
    rounding = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[dtype]
    assert abs(float(value) - expected) <= 1.01 * rounding * abs(expected)
    assert np.abs(dw.tolist() - pull_expected(np.ones(()))[1]).max() <= rounding


@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_memory_stays_in_the_budget(mode, reduction):
    n, features, classes, memory = 512, 64, 20_000, 2 * 2**20
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s, dtype="float32") for s in [(n, features), (classes, features)])
    labels, b = rng.integers(0, classes, n), np.zeros(classes, "float32")

    def step():
        value, pullback = linear_cross_entropy.vjp(
            x, w, labels, b, reduction=reduction, memory=memory
        )
        return pullback(np.ones_like(value))

    with kernels(mode):
        step()  # compiles, where there is a kernel
        tracemalloc.start()
        try:
            step()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    gradients = x.nbytes + w.nbytes + b.nbytes
    slack = x.nbytes + 3 * b.nbytes  # blocks of dx before they are joined; one row's indices
    assert peak <= memory + gradients + slack
    assert peak < n * classes * 4 / 4  # of the logits alone


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("target", [LABELS, SOFT])
def test_the_kernel_of_the_blocks_may_be_required(target, dtype):
    pytest.importorskip("numba")
    target = target.astype(dtype) if target.dtype.kind == "f" else target
    with kernels("require"):
        value, pullback = linear_cross_entropy.vjp(X.astype(dtype), W.astype(dtype), target)
        pullback(np.ones_like(value))
        with pytest.raises(RuntimeError, match="native byte order"):
            linear_cross_entropy(X.astype(">f4"), W.astype(">f4"), LABELS)


ERRORS = [
    ({"x": X[0]}, ValueError, r"x must have 2 dimensions \(N, D\)"),
    ({"x": X[:, :3]}, ValueError, r"x must have shape \(N, 4\) to fit weight"),
    ({"x": X.astype("float32")}, TypeError, r"weight has dtype float64 but x has float32"),
    ({"x": X.astype(int)}, TypeError, r"x must have a real floating dtype"),
    ({"weight": W[0]}, ValueError, r"weight must have 2 dimensions \(classes, D\)"),
    ({"bias": B[:3]}, ValueError, r"bias must have shape \(5,\)"),
    ({"target": LABELS[:3]}, ValueError, r"target must have shape \(7,\)"),
    ({"target": SOFT[:, :3]}, ValueError, r"target must have shape \(7, 5\)"),
    ({"target": SOFT.astype("float32")}, TypeError, r"target must be labels of an integer dtype"),
    ({"target": list(LABELS)}, TypeError, r"target must be an array"),
    ({"target": LABELS + 1}, ValueError, r"target\[2\] is 5, but labels must be in \[0, 5\)"),
    ({"target": SOFT, "ignore_index": 1}, ValueError, r"ignore_index is for integer labels"),
    ({"ignore_index": 1.5}, TypeError, r"ignore_index must be an integer or None"),
    ({"class_weight": B[:3]}, ValueError, r"class_weight must have shape \(5,\)"),
    ({"sample_weight": B}, ValueError, r"sample_weight must have shape \(7,\)"),
    ({"label_smoothing": 1.5}, ValueError, r"label_smoothing must be in \[0, 1\]"),
    ({"temperature": 0.0}, ValueError, r"temperature must be a number > 0"),
    ({"reduction": "avg"}, ValueError, r"reduction must be one of"),
    ({"normalize": "rows"}, ValueError, r"normalize must be"),
    ({"on_empty": "skip"}, ValueError, r"on_empty must be one of"),
    ({"memory": 0}, ValueError, r"memory must be an integer >= 1"),
    ({"memory": 1e6}, ValueError, r"memory must be an integer >= 1"),
    (
        {"sample_weight": np.zeros(N), "on_empty": "raise"},
        ValueError,
        r"target holds no sample that counts",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), ERRORS)
def test_bad_input(change, error, message):
    arguments = {"x": X, "weight": W, "target": LABELS} | change
    with pytest.raises(error, match=message):
        linear_cross_entropy(**arguments)


def test_an_unchecked_bad_label_is_nan(row):
    def terms(x, w, labels):
        options = {"reduction": "none", "check_labels": False, "memory": SOME_ROWS}
        value, pullback = linear_cross_entropy.vjp(x, w, labels, **options)
        return value, pullback(value * 0 + 1)[0]

    labels = LABELS.copy()
    labels[3] = CLASSES
    value, dx = row.call(terms, *(row.array(a, "float32") for a in (X, W, labels)))
    assert np.isnan(to_numpy(value)).nonzero()[0].tolist() == [3]
    assert np.isnan(to_numpy(dx)).all(axis=1).nonzero()[0].tolist() == [3]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_logsumexp_on_request(row, reduction):
    """Of all rows, the ignored one included, and beside the same value and gradients."""
    options = {"ignore_index": 1, "z_loss": 0.25, "reduction": reduction, "memory": SOME_ROWS}
    sums = np.log(np.exp(X @ W.T + B) @ PRIOR)
    for dtype in row.dtypes:
        arrays = [row.array(a, dtype) for a in (X, W, LABELS, B, PRIOR)]

        def both(x, w, target, b, prior):
            given = options | {"class_prior": prior}
            found, pullback = linear_cross_entropy.vjp(
                x, w, target, b, return_logsumexp=True, **given
            )
            value, pullback_alone = linear_cross_entropy.vjp(x, w, target, b, **given)
            one = value * 0 + 1
            return found, value, pullback(one)[1], pullback_alone(one)[1]

        (loss, log_sums), value, *slopes = row.call(both, *arrays)
        row.check(log_sums, dtype)
        assert_close(log_sums, sums, dtype, 64)
        assert_close(loss, to_numpy(value), dtype)
        assert_close(slopes[0], to_numpy(slopes[1]), dtype)
