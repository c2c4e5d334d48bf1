"""Mistakes in the CUDA kernels of cross entropy over labels are caught."""

from __future__ import annotations

import pytest

from agnostic_xent.kernels.cuda.loss import (
    apart,
    formulas,
    held,
    parts,
    rows,
    samples,
    streams,
    sums,
)
from agnostic_xent.kernels.cuda.loss import cross_entropy as host
from agnostic_xent.kernels.cuda.toolchain import elementary, vectors
from tests.cuda.cross_entropy_case import OPTIONS, check, draw
from tests.cuda.mistaken import plant

ROW, FEW, LONG, LONGER, APART = (2, 130), (7, 6), (3, 1501), (3, 1502), (7, 64)
"""Shapes; the long rows are held in shared memory, and the longer ones nowhere."""

MISTAKES = {
    "the last class left out": (
        vectors, "if below(j + u, classes):\n                            e",
        "if below(j + u, classes - 1):\n                            e", FEW, "plain",
    ),
    "a vector over the end": (vectors, "np.int32(classes - width + 1)", "classes", FEW, "plain"),
    "a row too many": (rows, "min(row, rows - 1)", "min(row, rows)", FEW, "plain"),
    "classes of a shifted row": (rows, " - (start & (width - 1))", "", FEW, "plain"),
    "the label among the others": (rows, "hide(e, np.int32(label - first))", "pass", FEW, "plain"),
    "the label's own gradient": (
        parts, "if holds(np.int32(label - first))", "if False", FEW, "plain",
    ),
    "no maximum": (
        rows, "top = team_max(greatest(e, kind(-math.inf)), room, t, team)",
        "top = greatest(e, kind(-math.inf))", ROW, "plain",
    ),
    "a part of a row": (
        vectors, "+ k * team * width < extent", "+ k * team * width < extent - 64", ROW, "plain",
    ),
    "an exponential to first order": (
        elementary, "missing if missing < 1 else np.float32(1)", "np.float32(1)", FEW, "plain",
    ),
    "what is kept": (vectors, "store(row, j, (e[i], e[i + 1], e[i + 2], e[i + 3]))",
                     "store(row, j, (e[i], e[i], e[i + 2], e[i + 3]))", LONG, "plain"),
    "what is behind a row": (
        vectors, "e[k * width + u] = -math.inf", "e[k * width + u] = 0", LONG, "plain",
    ),
    "logits in place of exponentials": (
        held, "sharpness)\n            keep(row, e, base, t, extent)", "sharpness)", LONG, "plain",
    ),
    "a shifted long row": (held, "base + t * width - ahead", "base + t * width", LONG, "plain"),
    "a long row's shifts": (
        held, "shifts = team_sum(shifts, room, t, team)", "pass", LONG, "smoothed",
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
        streams, "others *= exponential((mine - most) * sharpness)", "pass", LONGER, "plain",
    ),
    "others of other threads": (
        streams, "others *= exponential((mine - top) * sharpness)", "pass", LONGER, "plain",
    ),
    "a class of four": (apart, "classes, AT_ONCE):", "classes, 5):", APART, "plain"),
    "masses of who is ignored": (
        samples, "if is_counted(n, label, sample_weight, ignore, flags):", "if True:",
        FEW, "count",
    ),
    "the cotangent of each": (samples, "n if each else 0", "0", FEW, "none"),
    "a level of the tree": (
        sums, "if i < n", "if i < n - 1", FEW, "plain",
    ),
    "weights of a count": (host, ' if self.by == "weight" else 0', "", FEW, "count"),
}  # fmt: skip

FAMILY = (
    elementary, vectors, formulas, parts, rows, held, streams, apart, samples, sums, host
)  # fmt: skip
"""The modules of the loss, each after those that it imports."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    module, old, new, shape, options = MISTAKES[mistake]
    made = plant(monkeypatch, module, old, new, FAMILY)
    if shape in (LONG, LONGER):
        monkeypatch.setattr(made["vectors"], "TEAMS", ())
        monkeypatch.setattr(made["vectors"], "HELD", ((64, 1 << 16),) if shape == LONG else ())
        monkeypatch.setitem(made["vectors"].MOST, "f4", 64)
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check(*draw(shape, 0 if shape == APART else -1, **OPTIONS[options]))


def test_without_a_mistake_nothing_is_caught(monkeypatch):
    plant(monkeypatch, vectors, "TEAMS", "TEAMS", FAMILY)
    for shape in (FEW, ROW):
        check(*draw(shape, **OPTIONS["all"]))
