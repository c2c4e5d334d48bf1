"""Labels at the edges of their dtypes: an error that names the label, or what is documented."""

from __future__ import annotations

import functools
from itertools import product

import numpy as np
import pytest
from conftest import modes_of

import agnostic_xent as ax
from agnostic_xent.core.arrays import is_traced

EDGES = [  # a label out of range whose bits, read as another dtype, are in range
    ("int8", -1, 300),
    ("int8", -128, 300),
    ("int16", -100, 70_000),
    ("int32", -1, 3),
    ("int64", -(2**63), 3),
    ("uint8", 255, 3),
    ("uint16", 65_535, 3),
    ("uint64", 2**63, 3),
    ("uint64", 2**64 - 1, 3),
]


@pytest.mark.parametrize("mode", ["auto", "portable"])
@pytest.mark.parametrize(("dtype", "label", "classes"), EDGES)
def test_a_label_out_of_range_is_named(dtype, label, classes, mode):
    labels = np.asarray([0, label], dtype)
    message = rf"target\[1\] is {label}, but labels must be in \[0, {classes}\)"
    for loss in (ax.cross_entropy, ax.nll_loss):
        with ax.kernels(mode), pytest.raises(ValueError, match=message):
            loss(np.zeros((2, classes), "float32"), labels)


@pytest.mark.parametrize("batch_size", [1, 64])
def test_training_names_it_before_the_first_step(batch_size):
    x, y = np.zeros((50, 6), "float32"), np.zeros(50, "int8")
    y[7] = -1
    model = ax.Sequential(ax.Dense(300))
    params, _ = model.init(0, (6,))
    with pytest.raises(ValueError, match=r"target\[7\] is -1"):
        ax.fit(
            model, params, (x, y), loss=ax.cross_entropy, optimizer=ax.SGD(0.1), epochs=1,
            batch_size=batch_size,
        )  # fmt: skip


def test_a_single_label_is_named():
    with pytest.raises(ValueError, match=r"target is 7, but labels must be in \[0, 3\)"):
        ax.cross_entropy(np.zeros(3), np.asarray(7))
    assert float(ax.cross_entropy(np.zeros(3), np.asarray(2))) == pytest.approx(np.log(3))


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
LOSSES = {
    "cross_entropy": lambda z, y, **options: ax.cross_entropy(z, y, **options),
    "nll_loss": lambda z, y, **options: ax.nll_loss(z, y, **options),
    "linear_cross_entropy": lambda z, y, **options: ax.linear_cross_entropy(z, z.T, y, **options),
}
METRICS = {
    "accuracy": ax.accuracy,
    "top_k_accuracy": lambda z, y: ax.top_k_accuracy(z, y, 2),
    "log_loss": ax.log_loss,
    "brier_score": ax.brier_score,
    "confusion_matrix": lambda z, y: ax.confusion_matrix(y, y, z.shape[1]),
    "expected_calibration_error": ax.expected_calibration_error,
}


def of(row, label, dtype):
    """Return scores of three samples and three classes, and labels 0, ``label`` and 2."""
    return row.array(np.eye(3), "float32"), row.array(np.asarray([0, label, 2], dtype))


def edges(dtype):
    """Yield the ends of a dtype's range, each with numbers of the same bits in other dtypes."""
    info = np.iinfo(dtype)
    for label in {info.min, info.max} - {0}:
        yield label, [-1 if label > 0 else 2**64 - 1, label - 2**info.bits, label + 2**info.bits]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_edge_is_ignored_by_itself_alone(row, dtype):
    """Labels and ``ignore_index`` are whole numbers: 2^64 - 1 is not -1 in any dtype."""
    losses = LOSSES.values() if row.library == "numpy" else [LOSSES["cross_entropy"]]
    for label, others in edges(dtype):
        z, y = of(row, label, dtype)
        for mode, loss in product(modes_of("cross_entropy", row.library), losses):
            options = {"reduction": "none", "check_labels": False}
            with ax.kernels(mode):
                term = ax.to_numpy(loss(z, y, ignore_index=label, **options))[1]
                not_ignored = [loss(z, y, ignore_index=i, **options) for i in others]
            assert term == 0
            assert all(np.isnan(ax.to_numpy(terms)[1]) for terms in not_ignored)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_edge_that_is_not_ignored_is_an_error_that_names_it(row, dtype):
    for label, others in edges(dtype):
        z, y = of(row, label, dtype)
        if is_traced(y):
            return
        ax.cross_entropy(z, y, ignore_index=label)
        for ignored in others:
            with pytest.raises(ValueError, match=rf"target\[1\] is {label}, but labels must"):
                ax.cross_entropy(z, y, ignore_index=ignored)
        for metric in METRICS.values():
            with pytest.raises(ValueError, match=rf"labels\[1\] is {label}, but labels must"):
                metric(z, y)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_metrics_take_every_integer_dtype(row, dtype):
    z, wide, labels = *of(row, 2, "int64"), of(row, 2, dtype)[1]
    for metric in METRICS.values():
        expected = ax.to_numpy(metric(z, wide))
        np.testing.assert_array_equal(ax.to_numpy(metric(z, labels)), expected)


def test_training_ignores_whole_numbers():
    """2^64 - 1 in the totals of an epoch: it is no right prediction, and no term."""
    model, params = ax.Sequential(ax.Dense(3, bias=False)), {"0.weight": np.eye(3)}
    y = np.asarray([0, 2**64 - 1, 1], "uint64")
    loss = functools.partial(ax.cross_entropy, ignore_index=2**64 - 1)
    found = ax.evaluate(model, params, (np.eye(3), y), loss=loss, batch_size=2)
    kept = ax.evaluate(model, params, (np.eye(3)[[0, 2]], y[[0, 2]]), loss=ax.cross_entropy)
    assert found == pytest.approx(kept)


def test_jax_without_64_bits_takes_uint32():
    jax = pytest.importorskip("jax")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    try:
        z, y = jax.numpy.zeros((2, 3)), jax.numpy.asarray([1, 2**32 - 1], "uint32")
        terms = ax.cross_entropy(z, y, ignore_index=2**32 - 1, reduction="none")
        np.testing.assert_allclose(terms, [np.log(3), 0], rtol=1e-6)
        with pytest.raises(ValueError, match=r"target\[1\] is 4294967295"):
            ax.cross_entropy(z, y, ignore_index=-1)
    finally:
        jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("mode", modes_of("cross_entropy"))
@pytest.mark.parametrize("shape", [(6, 4), (6, 30), (6, 4, 40)])
def test_what_an_unchecked_bad_label_counts(shape, mode):
    """1 in a mean, as any sample, but 0 among weights of classes: it has none."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal(shape)
    y = rng.integers(0, 4, (shape[0], *shape[2:]))
    a, w = rng.random(y.shape) + 0.5, rng.random(shape[1]) + 0.5
    y[2], y[4] = -1, shape[1]
    good = (y >= 0) & (y < shape[1])
    known = np.where(good, y, 0)
    counts = {
        None: np.ones(y.shape), "sample_weight": a, "weight": w[known] * good,
        "both": w[known] * good * a,
    }  # fmt: skip
    for name, count in counts.items():
        options = {"axis": 1, "check_labels": False, "label_smoothing": 0.25}
        options |= {"weight": w} if name in ("weight", "both") else {}
        options |= {"sample_weight": a} if name in ("sample_weight", "both") else {}
        with ax.kernels(mode):
            of_mean = ax.cross_entropy.vjp(z, y, **options)[1](np.ones(()))[0]
            of_sum = ax.cross_entropy.vjp(z, y, reduction="sum", **options)[1](np.ones(()))[0]
        there = np.broadcast_to(np.expand_dims(good, 1), shape)
        np.testing.assert_allclose(of_mean[there], of_sum[there] / count.sum(), rtol=1e-12)
        assert np.isnan(of_mean[~there]).all()


# --- masks ---------------------------------------------------------------------------------------

MASKED = np.ma.MaskedArray([[1.0, 5.0], [2.0, 3.0]], [[0, 1], [0, 0]])


CALLS = {
    "logits": lambda: ax.cross_entropy(MASKED, np.asarray([0, 1])),
    "target": lambda: ax.cross_entropy(np.ones((2, 2)), np.ma.MaskedArray([0, 1], [0, 1])),
    "weight": lambda: ax.cross_entropy(np.ones((2, 2)), np.asarray([0, 1]), weight=MASKED[0]),
    "relu": lambda: ax.relu(MASKED),
    "softmax.vjp": lambda: ax.softmax.vjp(MASKED),
    "dense": lambda: ax.dense(np.ones((2, 2)), MASKED),
    "accuracy": lambda: ax.accuracy(MASKED, np.asarray([0, 1])),
    "to_backend": lambda: ax.to_backend(MASKED, np),
}


@pytest.mark.parametrize("name", CALLS)
def test_masked_arrays_are_refused(name):
    for _ in range(2):  # the first time and when the type has been seen
        with pytest.raises(TypeError, match=r"mask|filled"):
            CALLS[name]()
