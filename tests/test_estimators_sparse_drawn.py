"""SGD of sparse samples with options drawn together: the dense fit of the same rows."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("scipy")

from scipy import sparse

from agnostic_xent import LogisticRegression, cosine

FORMATS = ("csr_matrix", "csr_array", "csc_array", "coo_matrix")


def drawn_rows(rng):
    """Return sparse rows, some of them without entries and some entries 0."""
    shape = int(rng.integers(30, 200)), int(rng.integers(1, 50))
    x = sparse.random(*shape, float(rng.uniform(0.02, 0.5)), format="csr", random_state=rng)
    x.data -= 2 * (rng.random() < 0.3)
    x.data[rng.random(x.nnz) < 0.1] = 0
    return x.astype(rng.choice(["float64", "float32"]))


def drawn_targets(rng, count, classes):
    """Return labels, soft labels or several labels a sample."""
    table = rng.random((count, classes))
    kind = rng.choice(["labels", "soft", "several"], p=[0.5, 0.25, 0.25])
    if kind == "soft":
        return table / table.sum(axis=1, keepdims=True)
    if kind == "several":
        one = np.eye(classes, dtype=bool)  # each label is there, and is not
        return np.concatenate([one, ~one, table > 0.5])[:count]
    return np.arange(count) % classes


def drawn_options(rng, of_labels):
    """Return options of a classifier, and whether it is given the samples in parts."""
    rates = (None, 0.1, cosine(0.3, steps=300))
    options = {
        "solver": "sgd",
        "max_iter": int(rng.integers(1, 4)),
        "random_state": int(rng.integers(1000)),
        "batch_size": int(rng.choice([1, 2, 7, 32, 1000])),
        "average": bool(rng.integers(2)),
        "fit_intercept": bool(rng.random() < 0.8),
        "C": float(10 ** rng.uniform(-1, 2)),
        "l1_ratio": float(rng.choice([0.0, 0.0, 0.3, 1.0])),
        "learning_rate": rates[int(rng.integers(3))],
    }
    if of_labels and rng.random() < 0.4:
        options["class_weight"] = "balanced" if rng.random() < 0.5 else {0: 2.0, 1: 0.5}
    in_parts = rng.random() < 0.3 and options.get("class_weight") != "balanced"
    if not in_parts and rng.random() < 0.3:
        options |= {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 1}
    return options, in_parts


def fitted(options, in_parts, x, y, weights, classes):
    """Return a classifier of all samples, or of three parts of them, one after another."""
    model = LogisticRegression(**options)
    if not in_parts:
        return model.fit(x, y, sample_weight=weights)
    for part in (slice(0, 15), slice(15, len(y) - 3), slice(len(y) - 3, len(y))):
        known = {"classes": range(classes)} if y.ndim == 1 else {}
        some = None if weights is None else weights[part]
        model.partial_fit(x[part], y[part], sample_weight=some, **known)
    return model


@pytest.mark.parametrize("seed", range(40))
def test_the_dense_fit(seed):
    rng = np.random.default_rng(seed)
    x, classes = drawn_rows(rng), int(rng.integers(2, 6))
    y = drawn_targets(rng, x.shape[0], classes)
    options, in_parts = drawn_options(rng, y.ndim == 1)
    weights = None if rng.random() < 0.5 else rng.random(len(y)) * (rng.random(len(y)) < 0.9)
    given = x if in_parts else getattr(sparse, rng.choice(FORMATS))(x)
    expected = fitted(options, in_parts, x.toarray(), y, weights, classes)
    found = fitted(options, in_parts, given, y, weights, classes)
    digits = 1e-10 if x.dtype == "float64" else 1e-3
    scale = 1 + np.abs(expected.coef_).max()
    for name in ("coef_", "intercept_"):
        pair = getattr(found, name), getattr(expected, name)
        np.testing.assert_allclose(*pair, rtol=0, atol=digits * scale)
    np.testing.assert_allclose(found.loss_curve_, expected.loss_curve_, rtol=10 * digits)
