"""Confident learning against plain loops, on every row of the matrix."""

from __future__ import annotations

import math

import numpy as np
import pytest

import agnostic_xent as ax

N, CLASSES = 300, 5


def draw(seed=0, wrong=0.1, classes=CLASSES):
    """Return probabilities of a fair model, labels of which some are wrong, and which ones."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, N)
    logits = 1.5 * rng.standard_normal((N, classes)) + 4 * np.eye(classes)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    flipped = rng.random(N) < wrong
    return p, np.where(flipped, (truth + rng.integers(1, classes, N)) % classes, truth), flipped


def plain_joint(p, labels):
    classes = p.shape[1]
    means = [p[labels == j, j].mean() if (labels == j).any() else math.inf for j in range(classes)]
    joint = np.zeros((classes, classes), int)
    for q, label in zip(p, labels, strict=True):
        confident = [j for j in range(classes) if q[j] >= means[j] - 1e-6]
        if confident:
            joint[label, max(confident, key=lambda j: q[j])] += 1
    return joint


def plain_issues(p, labels):
    joint, found = plain_joint(p, labels), np.zeros(len(p), bool)
    for j, counts in enumerate(joint):
        of_label = np.flatnonzero(labels == j)
        wrong = counts.sum() - counts[j]
        worst = of_label[np.argsort(p[of_label, j], kind="stable")]
        found[worst[: round(wrong * len(of_label) / max(1, counts.sum()))]] = True
    return found


@pytest.mark.parametrize("seed", range(3))
def test_counts_and_issues_are_those_of_plain_loops(row, seed):
    p, labels, flipped = draw(seed)
    for dtype in row.dtypes:
        own = p.astype(dtype).astype("float64")
        probs, y = row.array(p, dtype), row.array(labels)
        joint = row.call(ax.confident_joint, probs, y)
        row.check(joint, "int64")
        np.testing.assert_array_equal(ax.to_numpy(joint), plain_joint(own, labels))
        issues = row.call(ax.label_issues, probs, y)
        row.check(issues, "bool")
        np.testing.assert_array_equal(ax.to_numpy(issues), plain_issues(own, labels))
    assert ax.to_numpy(issues)[flipped].mean() > 0.8


def test_a_class_without_samples_has_no_issues(row):
    p, labels, _ = draw()
    labels = np.where(labels == 2, 3, labels)
    probs, y = row.array(p, "float32"), row.array(labels.astype("uint8"))
    joint = ax.to_numpy(ax.confident_joint(probs, y))
    assert not joint[2].any()
    assert not joint[:, 2].any()
    np.testing.assert_array_equal(
        ax.to_numpy(ax.label_issues(probs, y)), plain_issues(p.astype("float32"), labels)
    )


def test_perfect_and_equal_probabilities_have_no_issues(row):
    for p in (np.eye(3)[[0, 1, 2, 1]], np.full((4, 3), 1 / 3)):
        issues = ax.label_issues(row.array(p, "float32"), row.array(np.array([0, 1, 2, 1])))
        assert p[0, 0] != 1 or not ax.to_numpy(issues).any()
    np.testing.assert_array_equal(ax.to_numpy(issues), [False, True, True, True])


def test_a_label_that_cannot_be_read_is_an_issue_if_out_of_range():
    jax = pytest.importorskip("jax")
    p, y = jax.numpy.asarray([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]]), jax.numpy.asarray([0, 1, 2])
    assert jax.jit(ax.label_issues)(p, y).tolist() == [False, False, True]


@pytest.mark.parametrize("function", [ax.confident_joint, ax.label_issues])
def test_bad_input(function):
    p, labels, _ = draw()
    for args, error, message in [
        ((p[0], labels), ValueError, r"probs must have 2 dimensions \(N, classes\)"),
        ((p[:0], labels[:0]), ValueError, r"probs must hold at least one sample"),
        ((p, labels[:3]), ValueError, r"labels must have shape \(300,\)"),
        ((p, labels + 5), ValueError, r"labels\[0\] is \d, but labels must be in \[0, 5\)"),
        ((p, p[:, 0]), TypeError, r"labels must have an integer dtype"),
        ((p.tolist(), labels), TypeError, r"probs must be an array"),
    ]:
        with pytest.raises(error, match=message):
            function(*args)
