"""Mistakes in the CUDA kernels of cross entropy over labels are caught."""

from __future__ import annotations

import pytest

from agnostic_xent.kernels.cuda.loss import cross_entropy as host
from agnostic_xent.kernels.cuda.loss import formulas, rows, streams, sums
from tests.cuda.cross_entropy_case import OPTIONS, check, draw
from tests.cuda.mistaken import plant

ROW, FEW, WIDE_ROW = (2, 130), (7, 6), (2, 1500)
MISTAKES = {
    "the last class left out": (
        rows, "j + u < classes:\n                        v",
        "j + u < classes - 1:\n                        v", FEW, "plain",
    ),
    "a vector over the end": (rows, "j + width <= classes", "j < classes", FEW, "plain"),
    "a row too many": (rows, "min(row, rows - 1)", "min(row, rows)", FEW, "plain"),
    "classes of a shifted row": (rows, "- (start & (width - 1))", "", FEW, "plain"),
    "the label among the others": (
        rows, "kind(0) if j == label else e[i]", "e[i]", FEW, "plain",
    ),
    "no maximum": (
        rows, "top = team_max(read(e, x, start, first, own_classes), room, t, team)",
        "top = read(e, x, start, first, classes)", ROW, "plain",
    ),
    "sharpness": (
        rows, "shift = (at_label - top) * sharpness", "shift = at_label - top", FEW,
        "all",
    ),
    "who has no weight": (
        formulas, "get(sample_weight, n) == 0", "get(sample_weight, n) == 1", FEW,
        "all",
    ),
    "smoothing of the label": (
        formulas, "kept * w + spread * w", "kept * w", FEW, "smoothed",
    ),
    "the rest of q": (formulas, "spread * (whole - w)", "spread * whole", FEW, "smoothed"),
    "shifts": (
        formulas, "whole * log_sum - shifts", "whole * log_sum + shifts", FEW,
        "smoothed",
    ),
    "others or own": (formulas, "total * (own / s) - q", "total * (own / s)", FEW, "plain"),
    "the sum of weights": (
        formulas, "get(weight_sum, 0)", "classes", FEW, "weight and smoothed",
    ),
    "others of a smaller maximum": (
        streams, "others *= math.exp((top - most) * sharpness)", "pass", WIDE_ROW,
        "plain",
    ),
    "others of other threads": (
        streams, "others * math.exp((mine - top) * sharpness)", "others", WIDE_ROW,
        "plain",
    ),
    "a class of four": (streams, "team * AT_ONCE):", "team * 5):", WIDE_ROW, "plain"),
    "masses of who is ignored": (
        streams, "if is_counted(n, label, sample_weight, ignore, flags):", "if True:",
        FEW, "count",
    ),
    "the cotangent of each": (streams, "n if each else 0", "0", FEW, "none"),
    "a level of the tree": (
        sums, "if first + t + k * THREADS < n", "if first + t + k * THREADS < n - 1", FEW, "plain",
    ),
    "weights of a count": (host, ' if self.by == "weight" else 0', "", FEW, "count"),
}  # fmt: skip

FAMILY = formulas, rows, streams, sums, host
"""The modules of the loss, each after those that it imports."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    module, old, new, shape, options = MISTAKES[mistake]
    made = plant(monkeypatch, module, old, new, FAMILY)
    if shape == WIDE_ROW:
        monkeypatch.setattr(made["rows"], "TEAMS", ())
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check(*draw(shape, **OPTIONS[options]))


def test_without_a_mistake_nothing_is_caught(monkeypatch):
    plant(monkeypatch, rows, "TEAMS", "TEAMS", FAMILY)
    for shape in (FEW, ROW):
        check(*draw(shape, **OPTIONS["all"]))
