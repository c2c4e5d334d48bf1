"""The CUDA kernels of cross entropy over labels against the portable definition in float64."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import cross_entropy, explain, kernels, linear_cross_entropy
from agnostic_xent.kernels.cuda.loss import apart, held, rows, samples, streams, sums
from agnostic_xent.kernels.cuda.loss import cross_entropy as host
from agnostic_xent.kernels.cuda.toolchain import elementary, vectors
from agnostic_xent.kernels.cuda.toolchain.device import SIMULATED
from agnostic_xent.kernels.cuda.toolchain.launching import KERNELS
from tests.conftest import assert_close
from tests.cuda.cross_entropy_case import OPTIONS, check, draw
from tests.cuda.holding import PLACES, hold_in

ROWS = [  # each team, its least and most classes
    (1, 1), (5, 2), (33, 10), (3, 13), (9, 14), (2, 29), (33, 30), (5, 61), (17, 62), (2, 125),
    (3, 126), (9, 253), (3, 254), (1, 509), (1, 512), (2, 510), (1, 1024),
]  # fmt: skip
PLANES = [((2, 3, 5, 7), 1), ((3, 33, 1), 0), ((2, 9, 4), 1), ((300, 2), 0)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", ROWS, ids=str)
def test_rows(shape, dtype):
    check(*draw(shape, dtype=dtype))


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("shape", [(7, 6), (2, 130)], ids=str)
def test_options_of_rows(shape, name):
    check(*draw(shape, **OPTIONS[name]))


@pytest.mark.parametrize("seed", range(20))
def test_options_in_combination(seed):
    rng = np.random.default_rng(seed)
    options = {name: True for name in ("weight", "sample_weight") if rng.integers(2)}
    every = {
        "ignore_index": (None, 0, -100), "label_smoothing": (0.0, 0.1, 1.0),
        "temperature": (1.0, 0.5), "reduction": ("mean", "sum", "none"),
        "normalize": (None, "weight", "count", 7), "on_empty": ("nan", "zero", "raise"),
        "check_labels": (True, False),
    }  # fmt: skip
    options |= {name: choice[rng.integers(len(choice))] for name, choice in every.items()}
    shape, axis = [((7, 6), 1), ((6, 7), 0), ((3, 2, 5), 1), ((2, 40), -1)][rng.integers(4)]
    check(*draw(shape, axis, ["float32", "float64"][seed % 2], **options))


@pytest.mark.parametrize("name", ["plain", "all", "none of all"])
@pytest.mark.parametrize(("shape", "axis"), PLANES, ids=str)
def test_planes(monkeypatch, shape, axis, name):
    check(*draw(shape, axis, **OPTIONS[name]))
    monkeypatch.setattr(host, "FEW_PIXELS", 0)
    check(*draw(shape, axis, "float64", **OPTIONS[name]))


@pytest.mark.parametrize("place", PLACES[1:])
@pytest.mark.parametrize("name", ["plain", "all", "none of all", "weight and smoothed"])
@pytest.mark.parametrize("classes", [1, 3, 700, 2048, 2051])
def test_long_rows(monkeypatch, classes, name, place):
    hold_in(monkeypatch, place)
    check(*draw((3, classes), **OPTIONS[name]))


@pytest.mark.parametrize("place", PLACES[1:])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rows_of_several_chunks(monkeypatch, dtype, place):
    hold_in(monkeypatch, place, 512)
    check(*draw((2, 8195 if dtype == "float32" else 4097), dtype=dtype, **OPTIONS["all"]))


@pytest.mark.parametrize("place", PLACES[1:])
def test_the_most_threads_of_a_row(monkeypatch, place):
    hold_in(monkeypatch, place, 1024)
    check(*draw((1, 4100), **OPTIONS["weight and smoothed"]))


def test_what_holds_a_row():
    """48K classes in float32 are read once; so are 24K in float64."""
    for code in ("f4", "f2", "u2"):
        found = [vectors.held_by(code, n) for n in (4097, 8192, 16 << 10, 48 << 10, 64 << 10)]
        assert found == [128, 256, 512, 1024, None]
        assert vectors.team_for(code, 4096) == (256, 16)
    assert vectors.held_by("f8", 24 << 10) == 1024


@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.parametrize("shape", [(3, 2042), (3, 4090)], ids=str)
def test_largest_teams(shape, name):
    check(*draw(shape, **OPTIONS[name]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["plain", "all"])
@pytest.mark.parametrize("shape", [(5, 10), (3, 40), (2, 300)], ids=str)
def test_halves(monkeypatch, shape, name, dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes", reason="it gives NumPy the dtype").bfloat16
    logits, labels, options = draw(shape, dtype=dtype, **OPTIONS[name])
    # rounded once: half a unit of float16 is two of 2**-12
    with kernels("portable"):
        wide = {k: x.astype("f4") if hasattr(x, "dtype") else x for k, x in options.items()}
        expected, exact = cross_entropy.vjp(logits.astype("f4"), labels, **wide)
        dx = exact(np.ones(expected.shape, "f4"))[0]
    for place in PLACES:
        hold_in(monkeypatch, place)
        with kernels("require"):
            found, pullback = cross_entropy.vjp(logits, labels, **options)
            gradient = pullback(np.ones(found.shape, dtype))[0]
        unit = 2.0**-10 if logits.dtype.name == "float16" else 2.0**-7
        for one, other in ((found, expected), (gradient, dx)):
            assert one.dtype == logits.dtype
            one, other = np.asarray(one, "f8"), np.asarray(other, "f8")
            assert np.all(np.isfinite(other))
            assert np.all(np.abs(one - other) <= unit * np.abs(other) + 2.0**-24)


# --- special values -------------------------------------------------------------------------------


def special(width):
    """Return rows of logits that are far off, infinite and NaN; the label is 0."""
    rows = np.random.default_rng(0).standard_normal((11, width)).astype("float32")
    rows[1] += 1e30
    rows[2, 1] = np.nan
    rows[3, 1] = np.inf
    rows[4, :] = -np.inf
    rows[5, 0] = -np.inf
    rows[6, 1] = -np.inf
    rows[7, 0] = np.nan
    rows[8, 0], rows[8, 1:] = 40, -40
    rows[9, 0], rows[9, 1:] = -200, 200
    rows[10, 1:] = -np.inf
    return rows


@pytest.mark.parametrize(
    ("name", "width", "place"),
    [
        *(
            (name, width, "registers")
            for name in ("plain", "smoothed", "weight", "weight and smoothed")
            for width in (5, 140)
        ),
        *(("weight and smoothed", width, place) for width in (5, 140) for place in PLACES[1:]),
    ],
    ids=str,
)
def test_special_values(monkeypatch, width, name, place):
    hold_in(monkeypatch, place)
    logits = special(width)
    _, _, options = draw(logits.shape, **OPTIONS[name])
    if "weight" in options:
        options["weight"][0] = 0.5
        options["weight"][1] = 0
    labels, options = np.zeros(len(logits), "int64"), options | {"reduction": "none"}
    check(logits, labels, options, finite=False)
    check(logits.T.copy(), labels, options | {"axis": 0}, finite=False)


def test_a_sample_that_is_almost_certain_keeps_its_digits():
    logits = np.array([[40.0, 0.0, 1.0], [20.0, 0.0, -1.0]], "float32")
    labels = np.zeros(2, "int64")
    with kernels("require"):
        found, pullback = cross_entropy.vjp(logits, labels, reduction="none")
        (dx, _) = pullback(np.ones(2, "float32"))
    wide = logits.astype("float64")
    others = np.exp(wide[:, 1:] - wide[:, :1])
    sums = np.sum(others, axis=1)
    for one, other in ((found, np.log1p(sums)), (dx[:, 0], -sums / (1 + sums))):
        assert_close(one / other, np.ones(2), "float32", terms=4)


@pytest.mark.parametrize("place", PLACES)
def test_bad_labels(monkeypatch, place):
    hold_in(monkeypatch, place)
    logits, _, _ = draw((5, 4))
    labels = np.array([0, -1, 4, 2**40, 3])
    with kernels("require"), pytest.raises(ValueError, match=r"target\[1\] is -1"):
        cross_entropy(logits, labels)
    options = {"axis": 1, "reduction": "none", "check_labels": False}
    for extra in ({}, {"ignore_index": -1}, {"weight": np.ones(4, "f4")}, {"reduction": "mean"}):
        check(logits, labels, options | extra, finite=False)


@pytest.mark.parametrize("on_empty", ["nan", "zero"])
@pytest.mark.parametrize("extra", [{"ignore_index": 1}, {"sample_weight": np.zeros(3, "f4")}])
def test_nothing_counts(on_empty, extra):
    logits, labels, options = draw((3, 4), on_empty=on_empty)
    check(logits, np.ones_like(labels), options | extra, finite=False)


@pytest.mark.parametrize("label_dtype", ["int8", "uint8", "int32", "uint64"])
def test_dtypes_of_labels(label_dtype):
    check(*draw((6, 5), label_dtype=label_dtype, ignore_index=2))
    check(*draw((6, 5), label_dtype=label_dtype, ignore_index=-100))


@pytest.mark.parametrize("label_dtype", ["int8", "uint8", "uint32", "int64", "uint64"])
def test_an_edge_is_ignored_by_itself_alone(label_dtype):
    info = np.iinfo(label_dtype)
    logits, labels, options = draw((6, 5), label_dtype=label_dtype)
    labels[1], options["check_labels"] = info.max, False
    for ignored in (info.max, -1, info.min, info.max - 2**info.bits):
        check(logits, labels, options | {"ignore_index": ignored}, finite=ignored == info.max)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_layer(dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.standard_normal(s).astype(dtype) for s in [(9, 4), (6, 4), (6,)])
    labels, weight = rng.integers(0, 6, 9), rng.random(6).astype(dtype)
    options = {"memory": 4 * 6 * 8, "label_smoothing": 0.1}
    wide = (a.astype("f8") for a in (x, w))
    with kernels("portable"):
        expected, exact = linear_cross_entropy.vjp(
            *wide, labels, b.astype("f8"), class_weight=weight.astype("f8"), **options
        )
    with kernels("require"):
        assert "CUDA" in explain(linear_cross_entropy, x, w, labels, b, **options)
        value, pullback = linear_cross_entropy.vjp(x, w, labels, b, class_weight=weight, **options)
        found = pullback(np.ones((), dtype))
    slopes = exact(np.ones(()))
    for one, other in zip((value, *found), (expected, *slopes), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert_close(one, other, dtype, terms=16)


def test_one_sample_without_an_axis():
    check(*draw((6,)))
    check(*draw((6,), reduction="none", label_smoothing=0.1))


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


@pytest.mark.parametrize("place", [read_only, strided, beside])
def test_arrays_lie_anywhere(place):
    check(*draw((5, 7), **OPTIONS["all"]), place=place)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("shape", "axis"), [((5, 7), 1), ((2, 3, 8, 5), 1)], ids=str)
def test_the_gradient_may_go_over_the_logits(monkeypatch, shape, axis, place):
    hold_in(monkeypatch, place)
    logits, labels, options = draw(shape, axis)
    with kernels("require"):
        expected = cross_entropy.vjp(logits, labels, **options)[1](np.ones((), "f4"))[0]
        given = logits.copy()
        _, pullback = cross_entropy.vjp(given, labels, overwrite_logits=True, **options)
        (dx, _) = pullback(np.ones((), "f4"))
        assert np.shares_memory(dx, given) or not SIMULATED
        np.testing.assert_array_equal(dx, expected)
        with pytest.raises(RuntimeError, match="called but once"):
            pullback(np.ones((), "f4"))


def test_more_rows_than_a_grid_has_blocks_run_portably():
    assert not host.fits(np.broadcast_to(np.float32(0), (1 << 31, 1 << 9)))


def test_probabilities_are_not_taken():
    x = np.ones((2, 3), "float32")
    options = {"weight": None, "sample_weight": None}
    assert host.takes(x, x, **options) == "it takes labels"
    assert "native" in host.takes(x.astype(">f4"), np.ones(2, "i8"), **options)
    assert "int16" in host.takes(x.astype("i2"), np.ones(2, "i8"), **options)


def test_sums_of_several_levels(monkeypatch):
    monkeypatch.setattr(sums, "PER_THREAD", 1)
    monkeypatch.setattr(sums, "BLOCK", sums.THREADS)
    monkeypatch.setattr(sums, "ENOUGH", 2)
    monkeypatch.setattr(samples, "PER_THREAD", 1)
    monkeypatch.setattr(host, "PER_THREAD", 1)
    check(*draw((1000, 2), ignore_index=1))


def test_the_same_bits_each_time():
    logits, labels, options = draw((40, 11), **OPTIONS["all"])
    with kernels("require"):
        runs = [cross_entropy.vjp(logits, labels, **options) for _ in range(2)]
        gradients = [pullback(loss)[0] for loss, pullback in runs]
    assert runs[0][0] == runs[1][0]
    np.testing.assert_array_equal(*gradients)


def test_exponentials():
    """Within 5 * 2^-23, of which the instruction for powers of two has 2, and ln 2 most others."""
    v = np.float32(-88 * np.random.default_rng(0).random(5000) ** 2)
    exact = np.exp(v.astype("f8"))
    with np.errstate(all="ignore"):
        found = np.array([elementary.exp32(x) for x in v])
    assert np.max(np.abs(found / exact - 1)[exact > 2.0**-125]) < 5 * 2.0**-23
    ends = np.float32([0, -0.0, -104, -3e38, -np.inf, np.nan])
    with np.errstate(all="ignore"):
        found = [elementary.exp32(x) for x in ends]
    np.testing.assert_array_equal(found, [1, 1, 0, 0, 0, np.nan])


# --- what is compiled -----------------------------------------------------------------------------


def test_variants_are_all_kernels():
    check(*draw((7, 6), **OPTIONS["all"]))
    modules = apart, held, rows, samples, streams, sums
    known = {named(k) for m in modules for k in m.variants()}
    names = {m.__name__ for m in modules}
    assert {named(k) for k in KERNELS if k.function.__module__ in names} <= known


def named(kernel):
    """Return a kernel's name, but for its threads, and its parameters."""
    return kernel.function.__qualname__.rstrip("0123456789"), kernel.parameters
