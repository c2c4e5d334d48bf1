"""Labels at the edges of their dtypes: an error that names the label, or what is documented."""

from __future__ import annotations

import numpy as np
import pytest

import agnostic_xent as ax

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


@pytest.mark.parametrize("mode", ["auto", "portable"])
@pytest.mark.parametrize(
    ("dtype", "ignored"),
    [("uint64", 2**64 - 1), ("uint64", 2**63), ("int64", -(2**63)), ("int8", -128), ("uint8", 255)],
)
def test_any_label_of_the_dtype_can_be_ignored(dtype, ignored, mode):
    labels = np.asarray([0, ignored, 2], dtype)
    with ax.kernels(mode):
        terms = ax.cross_entropy(np.zeros((3, 3)), labels, ignore_index=ignored, reduction="none")
    np.testing.assert_allclose(terms, [np.log(3), 0, np.log(3)])


@pytest.mark.parametrize("mode", ["auto", "portable"])
@pytest.mark.parametrize(
    ("dtype", "label", "ignored"), [("uint64", 2**64 - 1, -1), ("uint8", 156, -100)]
)
def test_what_the_dtype_cannot_hold_ignores_nothing(dtype, label, ignored, mode):
    with ax.kernels(mode), pytest.raises(ValueError, match=rf"target\[1\] is {label}"):
        ax.cross_entropy(np.zeros((2, 3)), np.asarray([0, label], dtype), ignore_index=ignored)


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
