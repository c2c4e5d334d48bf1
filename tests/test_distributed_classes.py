"""linear_cross_entropy with its classes split over ranks: what one rank gives, in less memory."""

from __future__ import annotations

import distributed_case
import numpy as np
import pytest
from conftest import assert_close
from distributed_case import slice_of
from ranks import on_ranks
from test_linear_loss import CASES, CLASSES, LABELS, SOFT, B, D, N, W, X

from agnostic_xent import linear_cross_entropy

ONE_ROW, ALL_ROWS = 1, 2**20


class Rank:
    """What tells where the slice of a rank lies."""

    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def one_rank(cases):
    """Return value and gradients of each case without ranks."""
    for arrays, options in cases:
        value, pullback = linear_cross_entropy.vjp(*arrays, **options)
        dy = np.linspace(0.5, 2, value.size, dtype=value.dtype).reshape(value.shape)
        yield [value, value, *pullback(dy)]


def of_slice(expected, rank):
    """Return what a rank has of value and gradients."""
    value, alone, dx, dw, dt, db = expected
    own = slice_of(len(dw), rank)
    cut = None if dt is None else dt[:, own]
    return value, alone, dx, dw[own], cut, None if db is None else db[own]


@pytest.mark.parametrize("ranks", [2, 3])
def test_equals_one_rank(ranks):
    cases = [
        ((X, W, target, b), options | {"reduction": reduction})
        for target, options in CASES
        for reduction in ("mean", "sum", "none")
        for b in (B, None)
    ]
    found = on_ranks(ranks, distributed_case.class_parallel, cases, ONE_ROW, ALL_ROWS)
    for i, expected in enumerate([*one_rank(cases)] * 2):
        for rank, results in enumerate(found):
            parts = of_slice(expected, Rank(rank, ranks))
            for actual, part in zip(results[i], parts, strict=True):
                if part is None:
                    assert actual is None
                else:
                    assert_close(actual, part, "float64", 64)


def extreme():
    """Return features that make logits of any kind: each row of the one-hot x is a column of w."""
    inf, nan = np.inf, np.nan
    logits = np.array([
        [0.0, 30.0, 0.0, 0.0, 0.0],  # a confident right answer keeps its digits
        [1e4, 1e4 + 1, 1e4, 1e4, 1e4 - 3],
        [0.0, 0.0, -inf, 0.0, 0.0],
        [-inf, -inf, -inf, -inf, 2.0],
        [-inf] * 5,
        [0.0, 0.0, inf, 0.0, 0.0],
        [0.0, nan, 0.0, 0.0, 0.0],
        [1.0, 2.0, 3.0, 4.0, nan],
        [5.0] * 5,
    ])  # fmt: skip
    return logits, np.array([1, 1, 2, 4, 0, 0, 3, 4, 2])


def test_extreme_logits():
    logits, labels = extreme()
    # one feature, and the logits as biases of a weight of 0: a call for each row
    x, w = np.zeros((1, 1)), np.zeros((CLASSES, 1))
    cases = [
        ((x, w, labels[i : i + 1], row), {"reduction": "none"}) for i, row in enumerate(logits)
    ]
    found = on_ranks(2, distributed_case.class_parallel, cases, ALL_ROWS)
    for i, expected in enumerate(one_rank(cases)):
        for rank, results in enumerate(found):
            parts = of_slice(expected, Rank(rank, 2))
            for actual, part in zip(results[i], parts, strict=True):
                if part is not None:
                    bound = 64 * np.finfo("float64").eps
                    np.testing.assert_allclose(actual, part, rtol=bound, atol=0)


def test_a_label_is_looked_for_among_all_classes():
    bad = LABELS.copy()
    bad[2] = CLASSES
    cases = [
        ((X, W, bad, B), {}),
        ((X, W, SOFT, B), {"ignore_index": 1}),
        ((X, W, bad, B), {"check_labels": False, "reduction": "none"}),
    ]
    for *errors, found in on_ranks(2, distributed_case.class_parallel, cases, ALL_ROWS):
        assert "target[2] is 5, but labels must be in [0, 5)" in errors[0]
        assert "ignore_index" in errors[1]
        assert np.isnan(found[0]).tolist() == [i == 2 for i in range(N)]


def test_half_precision_and_bits():
    cases = [((X.astype("f2"), W.astype("f2"), LABELS, B.astype("f2")), {})]
    first, second = (
        on_ranks(3, distributed_case.class_parallel, cases, ALL_ROWS) for _ in range(2)
    )
    (expected,) = one_rank(cases)
    for rank, (one, two) in enumerate(zip(first, second, strict=True)):
        parts = of_slice(expected, Rank(rank, 3))
        for actual, again, part in zip(one[0], two[0], parts, strict=True):
            if part is not None:
                assert actual.dtype == "float16"
                assert (actual == again).all()
                assert_close(actual, part, "float16")


def test_memory_falls_with_the_ranks():
    classes = 60_000
    (one,) = on_ranks(1, distributed_case.memory_of_slices, classes)
    for own in on_ranks(3, distributed_case.memory_of_slices, classes):
        assert own < one / 2
    assert one > classes * D * 4
