"""float16 and bfloat16: every operation keeps them, and a training in them learns."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conftest import VERSIONS
from samples import SAMPLES
from test_operations import cotangent, first
from training_case import CNN, SOFTMAX, images, start

import agnostic_xent as ax
from agnostic_xent.core.conversion import backend
from agnostic_xent.core.operation import OPERATIONS

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
HALVES = [
    (library, dtype) for library in ("numpy", "torch", "jax") if VERSIONS[library] for dtype in EPS
]
each_half = pytest.mark.parametrize(("library", "dtype"), HALVES)


def half(library, dtype, x):
    """Return numbers as an array of a library, in half precision."""
    if library == "numpy":
        return np.asarray(x).astype({"bfloat16": ml_dtypes.bfloat16}.get(dtype, dtype))
    xp = backend(library)
    return xp.astype(xp.asarray(np.asarray(x, "float32")), getattr(xp, dtype))


def wide(x):
    xp = backend("torch" if type(x).__module__ == "torch" else "numpy")
    return np.asarray(xp.astype(x, xp.float32) if xp.__name__.endswith("torch") else x, "float64")


def name_of(x):
    return str(x.dtype).rpartition(".")[2]


def called(sample, arrays):
    operation = OPERATIONS[sample.operation]
    value, pullback = operation.vjp(*arrays, *sample.extra, **sample.options)
    values = value if isinstance(value, tuple) else (value,)
    dy = cotangent(sample, first(value).shape).astype(values[0].dtype)
    return [x for x in (*values, *pullback(dy)) if x is not None]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("sample", [s for s in SAMPLES if not s.empty], ids=lambda s: s.id)
def test_operations_keep_half_precision(sample, dtype):
    rounded = [
        x if x is None or x.dtype.kind != "f" else half("numpy", dtype, x) for x in sample.arrays
    ]
    exact = [x if x is None or x.dtype.kind != "f" else wide(x) for x in rounded]
    with ax.kernels("portable"):
        for found, expected in zip(called(sample, rounded), called(sample, exact), strict=True):
            assert name_of(found) == dtype
            bound = 8 * EPS[dtype] * max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(wide(found), expected, atol=bound)


def test_large_activations_have_a_variance():
    x = np.asarray([[[[300.0]]], [[[-300.0]]]], "float16")
    one, zero = np.ones(1, "float16"), np.zeros(1, "float16")
    y, _, _ = ax.batch_norm(x, one, zero, zero, one, train=True)
    np.testing.assert_allclose(y.ravel(), [1, -1], atol=2e-3)  # whose squares are no float16


@pytest.mark.parametrize(
    "optimizer", [ax.SGD(0.1), ax.SGD(0.1, 0.9, nesterov=True), ax.AdamW(0.01)], ids=str
)
@each_half
def test_the_state_of_an_optimizer_is_float32(library, dtype, optimizer):
    rng = np.random.default_rng(4)
    w, grads = rng.standard_normal(50), 1e-4 * rng.standard_normal((10, 50))
    params = {"w": half(library, dtype, w)}
    exact = {"w": wide(params["w"])}
    state, exact_state = optimizer.init(params), optimizer.init(exact)
    for g in grads:
        g = half(library, dtype, g)
        params, state = optimizer.update(params, {"w": g}, state)
        exact, exact_state = optimizer.update(exact, {"w": wide(g)}, exact_state)
        for name, part in state.items():
            if isinstance(part, dict) and name != "steps":
                assert {name_of(x) for x in part.values()} <= {"float32"}
                expected = exact_state[name]
                for key, x in part.items():
                    np.testing.assert_allclose(wide(x), expected[key], rtol=1e-5, atol=1e-12)
    assert name_of(params["w"]) == dtype
    np.testing.assert_allclose(wide(params["w"]), exact["w"], atol=10 * EPS[dtype] * 3)


@each_half
def test_adamw_sees_gradients_whose_squares_are_no_float16(library, dtype):
    params, grads = {"w": half(library, dtype, [1.0, 1.0])}, half(library, dtype, [1e-4, -1e-4])
    adamw = ax.AdamW(0.25, weight_decay=0.0)
    params, _ = adamw.update(params, {"w": grads}, adamw.init(params))
    np.testing.assert_allclose(wide(params["w"]), [0.75, 1.25], rtol=EPS[dtype])


@each_half
@pytest.mark.parametrize("optimizer", [ax.SGD(0.1, 0.9), ax.AdamW(0.01)], ids=str)
def test_a_training_learns(library, dtype, optimizer):
    x, y = images(60)
    model = SOFTMAX if library == "jax" else CNN  # which compiles each of its steps
    params = {name: half(library, dtype, w) for name, w in start(model).items()}
    data = half(library, dtype, x), backend(library).asarray(y)
    options = {"loss": ax.cross_entropy, "optimizer": optimizer, "batch_size": 10, "rng": 0}
    trained, history = ax.fit(model, params, data, epochs=6, **options)
    assert {name_of(w) for w in trained.values()} == {dtype}
    assert history[-1].loss < history[0].loss / 2
    assert ax.evaluate(model, trained, data, loss=ax.cross_entropy)[1] > 0.9
