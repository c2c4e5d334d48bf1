"""Explanations against plain loops and central differences, on every row of the matrix."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

RNG = np.random.default_rng(7)


def net(*layers, shape, seed=1):
    """Return a model and parameters in float64 that do not vanish."""
    model = ax.Sequential(*layers)
    params, _ = model.init(seed, shape)
    rng = np.random.default_rng(seed)
    return model, {k: v + 0.1 * rng.random(v.shape) for k, v in params.items()}


IMAGES = net(
    ax.Standardize(), ax.Conv2d(3, 3, padding=1), ax.BatchNorm2d(), ax.ReLU(), ax.MaxPool2d(2),
    ax.Dropout(0.5), ax.Flatten(), ax.Dense(4),
    shape=(2, 6, 5),
)  # fmt: skip
SIGNALS = net(
    ax.Conv2d(3, (1, 3)), ax.ReLU(), ax.Conv2d(2, (1, 3)), ax.GlobalAvgPool2d(), ax.Dense(3),
    shape=(2, 1, 12),
)  # fmt: skip
NUMBERS = net(ax.Dense(6), ax.ReLU(), ax.Dense(3), shape=(7,))
CASES = {
    "images": (*IMAGES, RNG.standard_normal((3, 2, 6, 5))),
    "signals": (*SIGNALS, RNG.standard_normal((4, 2, 1, 12))),
    "numbers": (*NUMBERS, RNG.standard_normal((5, 7))),
}
each_case = pytest.mark.parametrize("case", CASES)
TARGET = np.array([2, 0, 1, 2, 0])


def on_row(row, case, dtype):
    model, params, x = CASES[case]
    return model, {k: row.array(v, dtype) for k, v in params.items()}, row.array(x, dtype)


def slope(f, x, step=1e-6):
    """Return the gradient of a number by central differences."""
    found = np.zeros(x.shape)
    for i in np.ndindex(x.shape):
        move = np.zeros(x.shape)
        move[i] = step
        found[i] = (f(x + move) - f(x - move)) / (2 * step)
    return found


def plain_integral(case, target, baseline, steps):
    model, params, x = CASES[case]
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    found = np.zeros(x.shape)
    for n, sample in enumerate(x):
        for node, weight in zip(nodes, weights, strict=True):
            at = baseline + (node + 1) / 2 * (sample - baseline)
            found[n] += weight / 2 * slope(lambda v, k=target[n]: model(params, v[None])[0, k], at)
    return found * (x - baseline)


@each_case
def test_integrated_gradients(row, case):
    expected = plain_integral(case, TARGET, 0.25, steps=3)
    for dtype in row.dtypes:
        model, params, x = on_row(row, case, dtype)
        target = row.array(TARGET[: len(CASES[case][2])])
        found = row.call(
            lambda p, x, t: ax.integrated_gradients(model, p, x, t, baseline=0.25, steps=3),  # noqa: B023
            params, x, target,
        )  # fmt: skip
        row.check(found, dtype)
        np.testing.assert_allclose(
            np.asarray(ax.to_numpy(found), "float64"),
            expected,
            atol=2e-5 if dtype == "float32" else 1e-8,
        )


@each_case
def test_integrated_gradients_sum_to_the_difference_of_logits(case):
    model, params, x = CASES[case]
    base = RNG.standard_normal(x.shape[1:])
    logits, zero = model(params, x), model(params, base[None])
    best = logits.argmax(axis=1)
    expected = logits[np.arange(len(x)), best] - zero[0, best]
    found = ax.integrated_gradients(model, params, x, baseline=base, steps=1000)
    axes = tuple(range(1, x.ndim))
    scale = np.abs(found).sum(axis=axes)
    assert (np.abs(found.sum(axis=axes) - expected) < 1e-3 * scale).all()
    whole = ax.integrated_gradients(
        model, params, x, best, baseline=np.broadcast_to(base, x.shape), steps=9
    )
    np.testing.assert_array_equal(
        whole, ax.integrated_gradients(model, params, x, baseline=base, steps=9)
    )


def plain_occlusion(case, target, window, stride, baseline):
    model, params, x = CASES[case]
    space = x.shape[2:] if x.ndim > 2 else x.shape[1:]
    total, count = np.zeros((len(x), *space)), np.zeros(space)
    before = model(params, x)
    starts = [range(0, n - w + s, s) for n, w, s in zip(space, window, stride, strict=True)]
    for start in itertools.product(*starts):
        cut = tuple(slice(a, a + w) for a, w in zip(start, window, strict=True))
        covered = x.copy()
        covered[(..., *cut)] = baseline
        after = model(params, covered)
        for n, k in enumerate(target[: len(x)]):
            total[(n, *cut)] += before[n, k] - after[n, k]
        count[cut] += 1
    return total / count


@pytest.mark.parametrize(
    ("case", "window", "stride"),
    [
        ("images", (3, 2), (2, 1)),
        ("images", (4, 5), (3, 3)),
        ("signals", (1, 5), (1, 2)),
        ("numbers", (2,), (2,)),
    ],
)
def test_occlusion(row, case, window, stride):
    expected = plain_occlusion(case, TARGET, window, stride, -0.5)
    for dtype in row.dtypes:
        model, params, x = on_row(row, case, dtype)
        target = row.array(TARGET[: len(CASES[case][2])])
        options = {"window": window, "stride": stride, "baseline": -0.5}
        found = row.call(lambda p, x, t: ax.occlusion(model, p, x, t, **options), params, x, target)  # noqa: B023
        row.check(found, dtype)
        assert_close(found, expected, dtype, 100)


def test_one_window_size_is_cut_to_the_sample():
    model, params, x = CASES["signals"]
    np.testing.assert_array_equal(
        ax.occlusion(model, params, x, window=5, stride=2),
        ax.occlusion(model, params, x, window=(1, 5), stride=(1, 2)),
    )


def enlarged(cam, space):
    """Return heat maps interpolated between the centres of their pixels, number by number."""
    for axis, size in enumerate(space, 1):
        n = cam.shape[axis]
        centres = (np.arange(n) + 0.5) * size / n - 0.5
        cam = np.apply_along_axis(lambda v: np.interp(np.arange(size), centres, v), axis, cam)  # noqa: B023
    return cam


@pytest.mark.parametrize(
    ("case", "layer", "last"),
    [("images", "4", "4"), ("images", "2", "2"), ("images", None, "5"), ("signals", None, "2")],
)
def test_grad_cam(row, case, layer, last):
    model, params, x = CASES[case]
    cut = int(last) + 1
    head, tail = ax.Sequential(*model.layers[:cut]), ax.Sequential(*model.layers[cut:])
    own = {
        f"{int(k.partition('.')[0]) - cut}.{k.partition('.')[2]}": v
        for k, v in params.items()
        if int(k.partition(".")[0]) >= cut
    }
    outputs = head({k: v for k, v in params.items() if int(k.partition(".")[0]) < cut}, x)
    expected = []
    for output, k in zip(outputs, TARGET, strict=False):
        grad = slope(lambda v, k=k: tail(own, v[None])[0, k], output)
        expected.append(np.maximum(0, (grad.mean(axis=(1, 2), keepdims=True) * output).sum(axis=0)))
    expected = enlarged(np.array(expected), x.shape[2:])
    for dtype in row.dtypes:
        _, params, x = on_row(row, case, dtype)
        target = row.array(TARGET[: len(CASES[case][2])])
        found = row.call(
            lambda p, x, t: ax.grad_cam(model, p, x, t, layer=layer), params, x, target
        )
        row.check(found, dtype)
        np.testing.assert_allclose(
            ax.to_numpy(found), expected, atol=1e-5 if dtype == "float32" else 1e-8
        )
    assert expected.max() > 0


def test_the_most_probable_class_is_the_default():
    model, params, x = CASES["images"]
    best = model(params, x).argmax(axis=1)
    for f, options in [
        (ax.integrated_gradients, {}),
        (ax.occlusion, {"window": 2}),
        (ax.grad_cam, {}),
    ]:
        np.testing.assert_array_equal(
            f(model, params, x, **options), f(model, params, x, best, **options)
        )


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_pieces_change_nothing(monkeypatch, size):
    model, params, x = CASES["images"]
    expected = [ax.integrated_gradients(model, params, x), ax.occlusion(model, params, x, window=2)]
    monkeypatch.setattr("agnostic_xent.evaluation.explanations.ROWS", size)
    for found, e in zip(
        [ax.integrated_gradients(model, params, x), ax.occlusion(model, params, x, window=2)],
        expected,
        strict=True,
    ):
        assert_close(found, e, "float64", 256)


def test_half_precision_is_summed_in_float32():
    """Each step adds less than float16 keeps beside the sum."""
    model, params = ax.Sequential(ax.Dense(1, bias=False)), {"0.weight": np.ones((1, 3), "float16")}
    found = ax.integrated_gradients(model, params, np.ones((2, 3), "float16"), steps=1000)
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.ones((2, 3)))


M, P, X = CASES["images"]
FLAT = CASES["numbers"]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: ax.integrated_gradients(M, P, X, TARGET),
            ValueError,
            r"target must have shape \(3,\)",
        ),
        (lambda: ax.integrated_gradients(M, P, X, TARGET[:3] + 4), ValueError, r"target\[0\] is 6"),
        (
            lambda: ax.integrated_gradients(M, P, X, TARGET[:3] / 2),
            TypeError,
            r"target must have an integer",
        ),
        (
            lambda: ax.integrated_gradients(M, P, X, steps=0),
            ValueError,
            r"steps must be an integer >= 1",
        ),
        (
            lambda: ax.integrated_gradients(M, P, X, baseline=X[0, 0]),
            ValueError,
            r"baseline must be a number or have shape",
        ),
        (
            lambda: ax.integrated_gradients(M, P, X, baseline=X.astype("float32")),
            TypeError,
            r"baseline has dtype",
        ),
        (lambda: ax.integrated_gradients(M, P, X[:0]), ValueError, r"x must hold samples"),
        (
            lambda: ax.integrated_gradients(M, P, X.astype(int)),
            TypeError,
            r"x must have a real floating",
        ),
        (
            lambda: ax.integrated_gradients(ax.ReLU(), {}, X),
            ValueError,
            r"model must make logits of shape",
        ),
        (lambda: ax.occlusion(M, P, X, window=0), ValueError, r"window must be an integer >= 1"),
        (
            lambda: ax.occlusion(M, P, X, window=(2,)),
            ValueError,
            r"window must be an integer or 2 of them",
        ),
        (
            lambda: ax.occlusion(M, P, X, window=(7, 2)),
            ValueError,
            r"window must be an integer >= 1 and <= 6",
        ),
        (
            lambda: ax.occlusion(M, P, X, window=2, stride=(3, 1)),
            ValueError,
            r"stride must be .* <= 2",
        ),
        (
            lambda: ax.grad_cam(ax.Dense(2), P, X),
            TypeError,
            r"model must be a Sequential, got Dense",
        ),
        (
            lambda: ax.grad_cam(M, P, X, layer="9"),
            ValueError,
            r"layer must be one of 0, 1, .* got '9'",
        ),
        (lambda: ax.grad_cam(M, P, X, layer="6"), ValueError, r"that of '6' has none"),
        (
            lambda: ax.grad_cam(*FLAT),
            ValueError,
            r"x must have 3 dimensions \(N, C, H, W\) or \(N, C, L\)",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
