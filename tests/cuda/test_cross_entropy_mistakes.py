"""Mistakes in the CUDA kernels of cross entropy over labels are caught."""

from __future__ import annotations

import inspect
import sys
from types import ModuleType

import pytest

from agnostic_xent.kernels.cuda.loss import cross_entropy as host
from agnostic_xent.kernels.cuda.loss import formulas as loss_formulas
from agnostic_xent.kernels.cuda.loss import rows as loss_rows
from agnostic_xent.kernels.cuda.loss import streams as loss_streams
from agnostic_xent.kernels.cuda.loss import sums as loss_sums
from tests.cuda.cross_entropy_case import OPTIONS, check, draw

ROW, FEW, WIDE_ROW = (2, 130), (7, 6), (2, 1500)
MISTAKES = {
    "the last class left out": (
        "loss_rows", "j + u < classes:\n                        v",
        "j + u < classes - 1:\n                        v", FEW, "plain",
    ),
    "a vector over the end": ("loss_rows", "j + width <= classes", "j < classes", FEW, "plain"),
    "a row too many": ("loss_rows", "min(row, count - 1)", "min(row, count)", FEW, "plain"),
    "classes of a shifted row": ("loss_rows", "- (start & (width - 1))", "", FEW, "plain"),
    "the label among the others": (
        "loss_rows", "kind(0) if j == label else e[i]", "e[i]", FEW, "plain",
    ),
    "no maximum": (
        "loss_rows", "top = team_max(read(e, x, start, first, classes), room, t, team)",
        "top = read(e, x, start, first, classes)", ROW, "plain",
    ),
    "sharpness": (
        "loss_rows", "shift = (at_label - top) * sharpness", "shift = at_label - top", FEW,
        "all",
    ),
    "who has no weight": (
        "loss_formulas", "get(sample_weight, n) == 0", "get(sample_weight, n) == 1", FEW,
        "all",
    ),
    "smoothing of the label": (
        "loss_formulas", "kept * w + spread * w", "kept * w", FEW, "smoothed",
    ),
    "the rest of q": ("loss_formulas", "spread * (whole - w)", "spread * whole", FEW, "smoothed"),
    "shifts": (
        "loss_formulas", "whole * log_sum - shifts", "whole * log_sum + shifts", FEW,
        "smoothed",
    ),
    "others or own": ("loss_formulas", "total * (own / s) - q", "total * (own / s)", FEW, "plain"),
    "the sum of weights": (
        "loss_formulas", "get(weight_sum, 0)", "classes", FEW, "weight and smoothed",
    ),
    "others of a smaller maximum": (
        "loss_streams", "others *= math.exp((top - most) * sharpness)", "pass", WIDE_ROW,
        "plain",
    ),
    "others of other threads": (
        "loss_streams", "others * math.exp((mine - top) * sharpness)", "others", WIDE_ROW,
        "plain",
    ),
    "a class of four": ("loss_streams", "team * AT_ONCE):", "team * 5):", WIDE_ROW, "plain"),
    "masses of who is ignored": (
        "loss_streams", "if is_counted(n, label, sample_weight, ignore, flags):", "if True:",
        FEW, "count",
    ),
    "the cotangent of each": ("loss_streams", "n if each else 0", "0", FEW, "none"),
    "a level of the tree": (
        "loss_sums", "if t + k * THREADS < n", "if t + k * THREADS < n - 1", FEW, "plain",
    ),
    "weights of a count": ("cross_entropy", '0 if by == "count" else', "", FEW, "count"),
}  # fmt: skip

ORDER = ("loss_formulas", "loss_rows", "loss_streams", "loss_sums", "cross_entropy")


def with_mistake(monkeypatch, name, old, new):
    """Load all files of the loss anew, one of them with other text."""
    assert name in ORDER
    for module in ORDER:
        full = f"agnostic_xent.kernels.cuda.{module}"
        text = inspect.getsource(sys.modules[full] if module != "cross_entropy" else host)
        if module == name:
            assert old in text
            text = text.replace(old, new)
        if module == "cross_entropy":
            text = text[: text.index('register("cross_entropy"')]
        made = ModuleType(full)
        made.__package__ = "agnostic_xent.kernels.cuda"
        exec(compile(text, f"{module}, mistaken", "exec"), made.__dict__)
        if module != "cross_entropy":
            monkeypatch.setitem(sys.modules, full, made)
            monkeypatch.setattr(sys.modules["agnostic_xent.kernels.cuda"], module, made)
    monkeypatch.setattr(host, "Problem", made.Problem)
    return made


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(monkeypatch, mistake):
    name, old, new, shape, options = MISTAKES[mistake]
    sources = [loss_formulas, loss_rows, loss_streams, loss_sums, host]
    assert old in inspect.getsource(dict(zip(ORDER, sources, strict=True))[name])
    if shape == WIDE_ROW:
        monkeypatch.setattr(loss_rows, "TEAMS", ())
    made = with_mistake(monkeypatch, name, old, new)
    if shape == WIDE_ROW:
        monkeypatch.setattr(sys.modules[made.rows_kernel.__module__], "TEAMS", ())
    with pytest.raises((AssertionError, IndexError, RuntimeError)):
        check(*draw(shape, **OPTIONS[options]))


def test_without_a_mistake_nothing_is_caught(monkeypatch):
    with_mistake(monkeypatch, "loss_rows", "TEAMS", "TEAMS")
    for shape in (FEW, ROW):
        check(*draw(shape, **OPTIONS["all"]))
