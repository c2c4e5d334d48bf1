"""The CUDA kernels of softmax and log_softmax against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import explain, kernels, log_softmax, softmax
from agnostic_xent.kernels.cuda import softmax as host
from agnostic_xent.kernels.cuda.toolchain import rows
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.mistaken import plant

ROWS = [((6,), -1), ((3, 1), 1), ((5, 8), 1), ((70, 3), 1), ((3, 9), 1), ((2, 130), 1)]
OTHERS = [((2, 7, 3), 1), ((5, 2, 33), 1), ((4, 40), 0), ((2, 1100), 1)]

each_operation = pytest.mark.parametrize("operation", [softmax, log_softmax], ids=lambda o: o.name)


def draw(shape, dtype="float32"):
    x, dy = 3 * np.random.default_rng(0).standard_normal((2, *shape))
    return x.astype(dtype), dy.astype(dtype)


def results(operation, x, dy, axis=-1):
    """Return value and gradient of the kernels, and of the definition in float64."""
    with kernels("require"):
        assert "CUDA" in explain(operation, x, axis=axis)
        y, pullback = operation.vjp(x, axis=axis)
        (dx,) = pullback(dy)
        np.testing.assert_array_equal(y, operation(x, axis=axis))
    with kernels("portable"):
        expected, exact = operation.vjp(x.astype("float64"), axis=axis)
        gradient = exact(dy.astype("float64"))[0]
    assert y.dtype == dx.dtype == x.dtype
    return (y, expected), (dx, gradient)


def check(operation, x, dy, axis=-1):
    for found, expected in results(operation, x, dy, axis):
        assert_close(found, expected, str(x.dtype), terms=8 + x.shape[axis] ** 0.5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("shape", "axis"), [*ROWS, *OTHERS], ids=str)
@each_operation
def test_values(operation, shape, axis, dtype):
    check(operation, *draw(shape, dtype), axis)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each_operation
def test_halves(operation, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    unit = 2.0**-8 if dtype == "float16" else 2.0**-5  # the pullback reads values, rounded
    for found, expected in results(operation, *draw((3, 20), dtype)):
        error = np.abs(found.astype("float64") - expected)
        assert np.all(error <= unit * np.max(np.abs(expected)))


@pytest.mark.parametrize("classes", [5, 40, 1100])
@each_operation
def test_special_values(operation, classes):
    x, dy = draw((9, classes))
    x[1] += 1e30
    x[2, 1], x[3, 1], x[3, 2], x[4, :], x[5, 0] = np.nan, np.inf, -np.inf, -np.inf, -np.inf
    x[6, 0], x[6, 1:] = 200, -200
    x[7, 1:] = -np.inf
    x[8, 2:4] = np.inf
    check(operation, x, dy)
    if classes == 5:
        check(operation, np.repeat(x[..., None], 33, axis=2), np.repeat(dy[..., None], 33, 2), 1)


@pytest.mark.parametrize("classes", [3, 9, 1100])
def test_a_value_near_zero_keeps_its_digits(classes):
    x = np.full((1, classes), -20.0, "float32")
    x[0, 1] = 0
    with kernels("require"):
        y = log_softmax(x)
    assert_close(y[0, 1] / -np.log1p((classes - 1) * np.exp(-20.0)), 1, "float32", terms=4)


@pytest.mark.parametrize("place", [np.asfortranarray, lambda x: np.repeat(x, 2, axis=1)[:, ::2]])
@each_operation
def test_arrays_lie_anywhere(operation, place):
    check(operation, *map(place, draw((3, 9))))


@pytest.mark.parametrize(("operation", "value"), [(softmax, 1), (log_softmax, 0)])
def test_a_number_without_dimensions_is_a_row_of_one(operation, value):
    x = np.asarray(3, "f4")
    assert "at least one dimension" in explain(operation, x)
    found, pullback = operation.vjp(x)
    assert (float(found), float(pullback(x)[0])) == (value, 0)


# --- mistakes are caught --------------------------------------------------------------------------

MISTAKES = {
    "a class left out": (rows, "if c < classes else", "if c < classes - 1 else", 9),
    "a class not written": (host, "if c < classes:", "if c < classes - 1:", 9),
    "classes at once": (host, "team * AT_ONCE", "team * 5", 1100),
    "no sum of a team": (host, "total = team_sum(total, room, t, team)", "pass", 9),
    "no maximum of a team": (
        host, "team_merge(top, rest, one, room, t, team)", "(top, rest)", 1100,
    ),
    "a row too many": (host, "if n >= rows", "if n > rows", 3),
    "classes apart": (host, "c * inner", "c", 40),
    "lost digits": (host, "math.log1p(rest)", "math.log(one + rest)", 0),
    "a sum without the greatest": (host, "(one + rest)", "rest", 9),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    module, old, new, classes = MISTAKES[mistake]
    plant(monkeypatch, module, old, new, [rows, host])
    if not classes:
        with pytest.raises(AssertionError):
            test_a_value_near_zero_keeps_its_digits(9)
        return
    shape = (classes, 33) if classes == 40 else (2, classes)
    with pytest.raises((AssertionError, IndexError)):
        check(softmax, *draw(shape), axis=-1 if classes != 40 else 0)


def test_variants_are_all_kernels():
    check(softmax, *draw((2, 9)))
    known = {(k.function.__qualname__, k.parameters) for k in host.variants()}
    ran = [k for k in KERNELS if k.function.__module__ == host.__name__]
    assert {(k.function.__qualname__, k.parameters) for k in ran} <= known
