"""What must come out in the cases that libraries get wrong; each row was somebody's bug."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from conftest import each_row_and_mode, tolerance

import agnostic_xent as ax

INF, NAN = float("inf"), float("nan")
LOG2 = float(np.log(2))
BCE, CE = "binary_cross_entropy_with_logits", "cross_entropy"


@dataclass(frozen=True)
class Case:
    """One call and what comes out; None for a gradient that another test looks at."""

    about: str
    scores: Any
    target: Any
    loss: Any
    gradient: Any = None
    options: dict[str, Any] = field(default_factory=dict)
    operation: str = CE
    dtype: str = "float32"

    @property
    def id(self) -> str:
        return self.about.replace(" ", "_")

    @property
    def empty(self) -> bool:
        return np.size(self.scores) == 0


def labels(*values: int, dtype: str = "int64") -> np.ndarray:
    return np.array(values, dtype=dtype)


def options(**values: Any) -> dict[str, Any]:
    return values


Z = [[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]]
LSE = [np.log(np.sum(np.exp(row))) for row in Z]
NONE = options(reduction="none")

CASES = [
    Case("all ignored, mean: NaN as torch", Z, labels(-1, -1), NAN, np.zeros((2, 3)),
         options(ignore_index=-1)),
    Case("all ignored, zero on request", Z, labels(7, 7), 0.0, np.zeros((2, 3)),
         options(ignore_index=7, on_empty="zero")),
    Case("all ignored, sum", Z, labels(-1, -1), 0.0, np.zeros((2, 3)),
         options(ignore_index=-1, reduction="sum")),
    Case("-inf where the soft target is 0", [[0.0, -INF, 0.0]], [[0.5, 0.0, 0.5]], LOG2,
         [[0.0, 0.0, 0.0]]),
    Case("-inf elsewhere than the label", [[0.0, -INF, 0.0]], labels(2), LOG2, [[0.5, 0.0, -0.5]]),
    Case("-inf on the label", [[0.0, -INF], [0.0, 0.0]], labels(1, 1), [INF, LOG2],
         [[1.0, -1.0], [0.5, -0.5]], NONE),
    Case("a row of -inf, a +inf, a NaN: each its own row", [[-INF, -INF], [INF, 0.0], [0.0, NAN],
         [0.0, 0.0]], labels(0, 1, 0, 0), [NAN, NAN, NAN, LOG2],
         [[NAN, NAN], [NAN, NAN], [NAN, NAN], [-0.5, 0.5]], NONE),
    Case("-inf with label smoothing", [[0.0, -INF]], labels(0), INF,
         options=options(label_smoothing=0.1)),
    Case("a large common offset", [[1e8, 1e8]], labels(0), LOG2, [[-0.5, 0.5]]),
    Case("a large negative offset", [[-1e8, -1e8]], labels(1), LOG2, [[0.5, -0.5]]),
    Case("weighted mean of labels", Z, labels(2, 0),
         (2 * (LSE[0] - 3) + 4 * (LSE[1] - 3)) / 6, options=options(weight=[4.0, 0.0, 2.0])),
    Case("weighted mean of one-hot rows, as torch", Z, [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]],
         (2 * (LSE[0] - 3) + 4 * (LSE[1] - 3)) / 2, options=options(weight=[4.0, 0.0, 2.0])),
    Case("weighted mean by count", Z, labels(2, 0), (2 * (LSE[0] - 3) + 4 * (LSE[1] - 3)) / 2,
         options=options(weight=[4.0, 0.0, 2.0], normalize="count")),
    Case("class weight, smoothing and an ignored index", Z, labels(-100, 0),
         0.9 * 4 * (LSE[1] - 3) + 0.1 / 3 * (4 * (LSE[1] - 3) + 1 * (LSE[1] - 1) + 2 * LSE[1]),
         options=options(weight=[4.0, 1.0, 2.0], label_smoothing=0.1, ignore_index=-100,
                         reduction="sum")),
    *(
        Case(f"ignore_index {index} outside the classes", Z, labels(index, 0),
             [0.0, LSE[1] - 3], options=options(reduction="none", ignore_index=index))
        for index in (255, -100, -1, 2**31 - 1)
    ),
    Case("ignore_index that is a class stays in the softmax", Z, labels(1, 2), [0.0, LSE[1]],
         options=options(reduction="none", ignore_index=1)),
    Case("an ignored row of NaN leaves no trace", [[NAN, NAN], [0.0, 0.0]], labels(9, 1), LOG2,
         [[0.0, 0.0], [0.5, -0.5]], options(ignore_index=9)),
    Case("a row of weight 0 leaves no trace", [[NAN, INF], [0.0, 0.0]], labels(0, 1), LOG2,
         [[0.0, 0.0], [0.5, -0.5]], options(sample_weight=[0.0, 1.0])),
    Case("an explicit denominator", Z, labels(2, 0), (LSE[0] - 3 + LSE[1] - 3) / 8,
         options=options(normalize=8)),
    Case("uint8 labels, none ignored by a negative index", Z, labels(2, 0, dtype="uint8"),
         [LSE[0] - 3, LSE[1] - 3], options=options(reduction="none", ignore_index=-1)),
    Case("an empty batch", np.zeros((0, 3)), labels(), NAN, np.zeros((0, 3))),
    Case("an empty batch, zero on request", np.zeros((0, 3)), labels(), 0.0, np.zeros((0, 3)),
         options(on_empty="zero")),
    Case("one class", [[5.0]], labels(0), 0.0, [[0.0]]),
    Case("a confident right answer keeps its digits", [[0.0, 30.0]], labels(1),
         np.log1p(np.exp(-30.0)), [[np.exp(-30.0), -np.exp(-30.0)]], options(reduction="sum")),
    Case("temperature", Z, labels(2, 0),
         [np.log(np.sum(np.exp(np.array(row) / 2))) - 1.5 for row in Z],
         options=options(temperature=2.0, reduction="none")),
    Case("BCE of z = +-100 is exact", [-100.0, 100.0], [1.0, 0.0], [100.0, 100.0], [-1.0, 1.0],
         NONE, BCE),
    Case("BCE of a right answer keeps its digits", [-60.0, 60.0], [0.0, 1.0],
         [np.exp(-60.0)] * 2, [np.exp(-60.0), -np.exp(-60.0)], NONE, BCE),
    Case("BCE of infinite logits", [-INF, INF, INF], [0.0, 1.0, 0.0], [0.0, 0.0, INF],
         [0.0, 0.0, 1.0], NONE, BCE),
    Case("BCE: pos_weight with soft targets", [1.5, -0.5], [0.3, 0.6],
         [(1 - t) * z + (1 + (3.0 - 1) * t) * np.log1p(np.exp(-z)) for z, t in
          ((1.5, 0.3), (-0.5, 0.6))], None, options(reduction="none", pos_weight=[3.0, 3.0]), BCE),
    Case("BCE of probabilities 0 and 1", [0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0],
         [0.0, 0.0, 100.0, 100.0], [1.0, -1.0, 0.0, 0.0], NONE, "binary_cross_entropy"),
    Case("CCE: 0 * log 0 = 0", [[0.0, 1.0]], [[0.0, 1.0]], 0.0, [[0.0, -1.0]],
         operation="categorical_cross_entropy"),
    Case("CCE: log 0 counts where the target is not 0", [[0.0, 1.0]], labels(0), INF, None,
         operation="categorical_cross_entropy"),
]  # fmt: skip


@each_row_and_mode("case", CASES)
def test_case(row, mode, case):
    operation = getattr(ax, case.operation)
    given = {
        name: row.array(value, case.dtype) if isinstance(value, list) else value
        for name, value in case.options.items()
    }
    scores = row.array(np.array(case.scores, dtype="float64"), case.dtype)
    target = row.array(case.target, case.dtype)

    def both(scores, target, *arrays):
        named = given | dict(zip(named_arrays, arrays, strict=True))
        loss, pullback = operation.vjp(scores, target, **named)
        return loss, pullback(ones)[0], operation(scores, target, **named)

    named_arrays = [name for name, value in given.items() if hasattr(value, "dtype")]
    ones = row.array(np.ones(np.shape(case.loss)), case.dtype)
    with ax.kernels(mode):
        loss, gradient, again = row.call(
            both, scores, target, *(given[name] for name in named_arrays)
        )
    np.testing.assert_allclose(ax.to_numpy(loss), case.loss, **bounds(case.dtype))
    np.testing.assert_allclose(ax.to_numpy(again), case.loss, **bounds(case.dtype))
    if case.gradient is not None:
        np.testing.assert_allclose(ax.to_numpy(gradient), case.gradient, **bounds(case.dtype))


def bounds(dtype: str) -> dict[str, float]:
    """Relative error alone: tiny losses and gradients have to keep their digits, too."""
    return {"rtol": tolerance(dtype, 4), "atol": 0.0}


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_half_precision_sums_in_float32(name):
    """70,000 equal logits, and a mean of terms whose sum overflows float16."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    wide = np.zeros((1, 70_000), dtype=dtype)
    assert ax.log_softmax(wide)[0, 0] == dtype.type(-np.log(70_000))
    assert ax.logsumexp(wide)[0] == dtype.type(np.log(70_000))
    loss, pullback = ax.cross_entropy.vjp(wide, np.array([3]))
    assert loss.dtype == dtype
    assert loss == dtype.type(np.log(70_000))
    (gradient, _) = pullback(np.ones_like(loss))
    assert gradient.dtype == dtype
    assert gradient[0, 3] == dtype.type(1 / 70_000 - 1)
    many = np.zeros((70_000, 2), dtype=dtype)
    many[:, 0] = 8
    terms = float(np.log1p(np.exp(8.0)))
    assert ax.cross_entropy(many, np.ones(70_000, dtype=np.int8)) == dtype.type(terms)


INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]


@pytest.mark.parametrize("kind", INTEGERS)
def test_any_integer_dtype(row, kind):
    """More classes than the small dtypes count: comparing must not wrap around."""
    z = np.zeros((3, 300), dtype="float32")
    z[0, 1], z[1, 100], z[2, 44] = 1.0, 2.0, 3.0
    names = np.array([1, 100, 44]).astype(kind)
    loss = row.call(
        lambda z, t: ax.cross_entropy(z, t, reduction="none"), row.array(z), row.array(names)
    )
    expected = [np.log(299 + np.exp(v)) - v for v in (1.0, 2.0, 3.0)]
    np.testing.assert_allclose(ax.to_numpy(loss), expected, rtol=tolerance("float32", 16))


@pytest.mark.parametrize(
    ("named", "error", "message"),
    [
        (
            options(on_empty="raise", ignore_index=0),
            ValueError,
            "target holds no sample that counts",
        ),
        (options(on_empty="maybe"), ValueError, "on_empty must be one of 'nan', 'zero', 'raise'"),
        (options(normalize=0), ValueError, "normalize must be .* a number > 0"),
        (options(normalize="mean"), ValueError, "normalize must be"),
        (options(weight=np.ones(2)), ValueError, r"weight must have shape \(3,\)"),
        (options(weight=np.ones(3, dtype="float32")), TypeError, "weight has dtype float32"),
        (options(sample_weight=np.ones(3)), ValueError, r"sample_weight must have shape \(2,\)"),
        (options(label_smoothing=1.5), ValueError, r"label_smoothing must be in \[0, 1\]"),
        (options(temperature=0), ValueError, "temperature must be a number > 0"),
        (options(ignore_index=0.5), TypeError, "ignore_index must be an integer"),
    ],
)
def test_options_out_of_range(named, error, message):
    with pytest.raises(error, match=message):
        ax.cross_entropy(np.array(Z), labels(0, 0), **named)


def test_ignore_index_is_for_labels():
    with pytest.raises(ValueError, match="ignore_index is for integer labels"):
        ax.cross_entropy(np.array(Z), np.array(Z), ignore_index=0)


def test_no_ignore_index_means_none():
    with pytest.raises(ValueError, match=r"target\[0\] is -1"):
        ax.cross_entropy(np.array(Z), labels(-1, 0))


def test_an_ignored_label_is_no_bad_label():
    with pytest.raises(ValueError, match=r"target\[1\] is 9"):
        ax.cross_entropy(np.array(Z), labels(-1, 9), ignore_index=-1)


def test_bce_weights_that_do_not_broadcast():
    for name in ("weight", "pos_weight"):
        with pytest.raises(ValueError, match=f"{name} must broadcast to shape"):
            ax.binary_cross_entropy_with_logits(np.array(Z), np.array(Z) / 3, **{name: np.ones(2)})
