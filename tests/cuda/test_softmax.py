"""The CUDA kernels of softmax and log_softmax against the portable definitions in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import explain, kernels, log_softmax, softmax
from agnostic_xent.kernels.cuda.softmax import held, sweeps
from agnostic_xent.kernels.cuda.softmax import softmax as host
from agnostic_xent.kernels.cuda.toolchain import rows, vectors
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.holding import PLACES, hold_in
from tests.cuda.mistaken import plant

ROWS = [
    ((6,), -1), ((3, 1), 1), ((5, 8), 1), ((70, 3), 1), ((3, 9), 1), ((2, 29), 1), ((3, 30), 1),
    ((5, 62), 1), ((2, 125), 1), ((2, 130), 1), ((3, 253), 1), ((3, 254), 1), ((2, 513), 1),
]  # fmt: skip
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


@pytest.mark.parametrize("place", PLACES[1:])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 1), (3, 3), (2, 700), (2, 2048), (3, 2051)], ids=str)
@each_operation
def test_long_rows(monkeypatch, operation, shape, dtype, place):
    hold_in(monkeypatch, place)
    check(operation, *draw(shape, dtype))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each_operation
def test_halves(monkeypatch, operation, dtype, place):
    hold_in(monkeypatch, place)
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    unit = 2.0**-8 if dtype == "float16" else 2.0**-5  # the pullback reads values, rounded
    for found, expected in results(operation, *draw((3, 20), dtype)):
        error = np.abs(found.astype("float64") - expected)
        assert np.all(error <= unit * np.max(np.abs(expected)))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("classes", [5, 40, 1100])
@each_operation
def test_special_values(monkeypatch, operation, classes, place):
    hold_in(monkeypatch, place)
    x, dy = draw((9, classes))
    x[1] += 1e30
    x[2, 1], x[3, 1], x[3, 2], x[4, :], x[5, 0] = np.nan, np.inf, -np.inf, -np.inf, -np.inf
    x[6, 0], x[6, 1:] = 200, -200
    x[7, 1:] = -np.inf
    x[8, 2:4] = np.inf
    check(operation, x, dy)
    if classes == 5:
        check(operation, np.repeat(x[..., None], 33, axis=2), np.repeat(dy[..., None], 33, 2), 1)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("classes", [3, 9, 1100])
def test_a_value_near_zero_keeps_its_digits(monkeypatch, classes, place):
    hold_in(monkeypatch, place)
    a_value_near_zero(classes)


def a_value_near_zero(classes):
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
    "a class not written": (sweeps, "if c < classes:", "if c < classes - 1:", 9),
    "classes at once": (sweeps, "team * AT_ONCE", "team * 5", 1100),
    "no sum of a team": (sweeps, "total = team_sum(total, room, t, team)", "pass", 9),
    "no maximum of a team": (
        sweeps, "team_merge(top, rest, one, room, t, team)", "(top, rest)", 1100,
    ),
    "a row too many": (sweeps, "if n >= rows", "if n > rows", 3),
    "classes apart": (sweeps, "c * inner", "c", 40),
    "lost digits": (sweeps, "math.log1p(rest)", "math.log(one + rest)", 0),
    "a sum without the greatest": (sweeps, "(one + rest)", "rest", 9),
}  # fmt: skip
LONG = "shared memory"
HELD_MISTAKES = {
    "classes of a shifted row": (" - (start & (width - 1))", "", softmax, "registers"),
    "a row too many": ("classes if row < rows else 0", "classes", softmax, "registers"),
    "no maximum of a team": (
        "top = team_max(greatest(e, kind(-math.inf)), room, t, team)",
        "top = greatest(e, kind(-math.inf))", softmax, "registers",
    ),
    "the greatest among the others": ("if d == 0:", "if d != d:", log_softmax, "certain"),
    "equals are one": ("ones += kind(1)", "ones = kind(1)", softmax, "equal"),
    "lost digits": ("math.log1p(rest)", "math.log(kind(1) + rest)", log_softmax, "certain"),
    "a shifted long row": ("base + t * width - ahead", "base + t * width", softmax, LONG),
    "no maximum of a block": ("top = team_max(top, room, t, team)", "pass", softmax, LONG),
    "a chunk's sum": ("others + some", "some", softmax, LONG),
    "exponentials that are not kept": (
        "            if not log:\n", "            if log:\n", softmax, LONG,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_sweeps_are_caught(monkeypatch, mistake):
    module, old, new, classes = MISTAKES[mistake]
    made = plant(monkeypatch, module, old, new, [rows, vectors, held, sweeps, host])
    monkeypatch.setattr(made["vectors"], "TEAMS", ())
    monkeypatch.setattr(made["vectors"], "HELD", ())
    if not classes:
        with pytest.raises(AssertionError):
            a_value_near_zero(9)
        return
    shape = (classes, 33) if classes == 40 else (2, classes)
    with pytest.raises((AssertionError, IndexError)):
        check(softmax, *draw(shape), axis=-1 if classes != 40 else 0)


@pytest.mark.parametrize("mistake", HELD_MISTAKES)
def test_mistakes_where_rows_are_held_are_caught(monkeypatch, mistake):
    old, new, operation, case = HELD_MISTAKES[mistake]
    made = plant(monkeypatch, held, old, new, [rows, vectors, held, sweeps, host])
    if case == LONG:
        monkeypatch.setattr(made["vectors"], "TEAMS", ())
        monkeypatch.setattr(made["vectors"], "HELD", ((64, 1 << 16),))
    x, dy = draw((3, 1101 if case == LONG else 9))
    if case == "equal":
        x[:] = 1
    with pytest.raises((AssertionError, IndexError)):
        a_value_near_zero(9) if case == "certain" else check(operation, x, dy)


def test_variants_are_all_kernels():
    check(softmax, *draw((2, 9)))
    modules = held, sweeps
    known = {named(k) for m in modules for k in m.variants()}
    names = {m.__name__ for m in modules}
    assert {named(k) for k in KERNELS if k.function.__module__ in names} <= known


def named(kernel):
    """Return a kernel's name, but for its threads, and its parameters."""
    return kernel.function.__qualname__.rstrip("0123456789"), kernel.parameters
