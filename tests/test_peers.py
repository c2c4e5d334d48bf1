"""Values and gradients against torch and SciPy, on random shapes that hypothesis draws."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

import agnostic_xent as ax

torch = pytest.importorskip("torch")
scipy_special = pytest.importorskip("scipy.special")

FEW = settings(max_examples=40, deadline=None, derandomize=True)
functional = torch.nn.functional


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def compare(ours, theirs, arrays, terms: int = 256) -> None:
    """Compare value and gradients of our operation and torch's function of the same arrays."""
    value, pullback = ours(*arrays)
    tensors = [torch.asarray(a.copy()).requires_grad_(a.dtype.kind == "f") for a in arrays]
    expected = theirs(*tensors)
    assert_close(value, expected.detach(), "float64", terms)
    dy = normal(1, *value.shape)
    leaves = [t for t in tensors if t.requires_grad]
    slopes = torch.autograd.grad(expected, leaves, torch.asarray(dy))
    found = [g for g, a in zip(pullback(dy), arrays, strict=True) if a.dtype.kind == "f"]
    for g, e in zip(found, slopes, strict=True):
        assert_close(g, e, "float64", terms)


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    window, stride, dilation = draw(pair), draw(pair), draw(pair)
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    image = [
        max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, 5))
        for k, d, p in zip(window, dilation, padding, strict=True)
    ]
    n, c, k = (
        draw(st.integers(0, 3)),
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 2)),
    )
    shapes = ((n, c, *image), (k, c // groups, *window), (k,))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return shapes, options, draw(st.integers(0, 99))


@FEW
@given(convolutions())
def test_conv2d(case):
    shapes, options, seed = case
    compare(
        lambda *a: ax.conv2d.vjp(*a, **options),
        lambda *a: functional.conv2d(*a, **options),
        [normal(seed + i, *shape) for i, shape in enumerate(shapes)],
    )


@st.composite
def pools(draw):
    window = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    padding = tuple(draw(st.integers(0, k // 2)) for k in window)
    image = [k + draw(st.integers(0, 5)) for k in window]
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    options = {"stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    # few distinct values, so that windows have ties
    x = np.round(normal(draw(st.integers(0, 99)), draw(st.integers(1, 2)), 2, *image))
    return x, window, options


@FEW
@given(pools())
def test_max_pool2d(case):
    x, window, options = case
    compare(
        lambda x: ax.max_pool2d.vjp(x, window, **options),
        lambda x: functional.max_pool2d(x, window, **options),
        [x],
    )


@FEW
@given(pools(), st.booleans())
def test_avg_pool2d(case, count_include_pad):
    x, window, options = case
    options = options | {"count_include_pad": count_include_pad}
    compare(
        lambda x: ax.avg_pool2d.vjp(x, window, **options),
        lambda x: functional.avg_pool2d(x, window, **options),
        [x],
    )


@pytest.mark.parametrize("bad", [np.nan, -np.inf, np.inf])
def test_max_pool2d_of_what_is_not_finite(bad):
    x = np.zeros((1, 1, 4, 4))
    x[0, 0, :2, :2] = bad
    compare(
        lambda x: ax.max_pool2d.vjp(x, 2, padding=1),
        lambda x: functional.max_pool2d(x, 2, padding=1),
        [x],
    )


@FEW
@given(
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from(["mean", "sum", "none"]),
    st.integers(0, 99),
)
def test_losses(n, classes, reduction, seed):
    z = 10 * normal(seed, n, classes)
    labels = np.random.default_rng(seed).integers(0, classes, n)
    soft = scipy_special.softmax(normal(seed + 1, n, classes), axis=1)
    options = {"reduction": reduction}
    for target in (labels, soft):
        compare(
            lambda z, t: ax.cross_entropy.vjp(z, t, **options),
            lambda z, t: functional.cross_entropy(z, t, **options),
            [z, target],
        )
    compare(
        lambda z, t: ax.binary_cross_entropy_with_logits.vjp(z, t, **options),
        lambda z, t: functional.binary_cross_entropy_with_logits(z, t, **options),
        [z, soft],
    )
    compare(
        lambda p, t: ax.binary_cross_entropy.vjp(p, t, **options),
        lambda p, t: functional.binary_cross_entropy(p, t, **options),
        [0.98 * scipy_special.softmax(z, axis=1) + 0.01, soft],
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ax.sigmoid, scipy_special.expit),
        (ax.log_sigmoid, scipy_special.log_expit),
        (ax.softmax, lambda x: scipy_special.softmax(x, axis=-1)),
        (ax.log_softmax, lambda x: scipy_special.log_softmax(x, axis=-1)),
        (ax.logsumexp, lambda x: scipy_special.logsumexp(x, axis=-1)),
    ],
)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0, 1e4])
def test_activations_against_scipy(ours, theirs, scale):
    x = scale * normal(0, 50, 7)
    assert_close(ours(x), theirs(x), "float64", 16)


def test_logsumexp_of_infinities():
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 2.0]])
    assert ax.logsumexp(x).tolist() == [-np.inf, np.inf, 2.0]
    _, pullback = ax.logsumexp.vjp(x)
    assert pullback(np.ones(3))[0][2].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("mode", ["portable", "auto"])
def test_gradient_of_logsumexp_at_an_offset(mode):
    """The value rounds to the offset; the gradient is the softmax all the same."""
    x = np.array([[1e8, 1e8], [-1e8, -1e8]], dtype="float32")
    with ax.kernels(mode):
        _, pullback = ax.logsumexp.vjp(x)
        (gradient,) = pullback(np.ones(2, dtype="float32"))
    np.testing.assert_array_equal(gradient, np.full((2, 2), 0.5))


def test_unfold_and_fold_are_adjoint():
    from agnostic_xent.core.geometry import output_size
    from agnostic_xent.operations.unfolding import fold, taps

    geometry = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "dilation": (1, 2)}
    x, window = normal(0, 2, 3, 6, 7), (3, 2)
    columns = normal(1, 6, 2, 3, *output_size((6, 7), window, **geometry))
    unfolded = taps(x, window, **geometry)
    left = sum(float(np.sum(a * b)) for a, b in zip(unfolded, columns, strict=True))
    right = float(np.sum(x * fold(list(columns), (6, 7), window, **geometry)))
    assert_close(np.array(left), np.array(right), "float64", 512)
