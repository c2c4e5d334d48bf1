"""Pictures of a training run: curves, confusion matrix, calibration, confident mistakes."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.files import write_atomically
from ..core.requirements import missing
from ..training.loop import History
from .calibration import calibration_bins, expected_calibration_error
from .lettering import arrow, drawing, printable, shortened, width
from .sample_pictures import draw
from .thresholds import Thresholds
from .words import best_epoch

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase, SubFigure

__all__ = ["save_picture"]

BLUE, VERMILION = "#0072B2", "#D55E00"  # apart for colour-blind eyes too
COLORS = {"training": BLUE, "validation": VERMILION}
INK, FAINT = "#222222", "#8C8C8C"
STYLE: Any = {
    "font.size": 11,
    "text.color": INK,
    "text.parse_math": False,  # a class may have a dollar sign in its name
    "text.usetex": False,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.ymargin": 0.15,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
MOST_DOTS = 30  # on a line
MISTAKES = (2, 8)  # rows and columns of images
NAME = 14
"""Columns for the name of a class."""


def save_picture(
    path: str | os.PathLike[str],
    *,
    history: History,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    images: NDArray[np.floating] | None,
    classes: Sequence[str],
    title: str,
) -> None:
    """Draw how a classifier was trained and what it gets wrong, and write a PNG file atomically.

    Needs matplotlib, and no display.

    Parameters
    ----------
    path : path
        The file; an older one is replaced only when the new one is complete.
    history : History
        From `fit`; the validation curves are left out if it has no validation.
    labels : ndarray of integers, shape (N,)
        True classes of the test samples.
    probabilities : ndarray, shape (N, classes)
        Predicted probabilities of the test samples.
    images : ndarray, shape (N, C, H, W), (N, C, L) or (N, C, D, H, W), or None
        The test samples; None leaves out the pictures of mistakes.
    classes : sequence of str
        Name of each class.
    title : str
        Goes before the test accuracy, in one line above the drawings.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing("a picture", "matplotlib") from error

    classes, title = [*map(printable, classes)], printable(title)
    predicted = probabilities.argmax(axis=1)
    heights = (0.8, 6.2) if images is None else (0.8, 6.2, 4.8)  # inches
    with drawing(STYLE, (*classes, title)):
        figure = Figure(figsize=(16, sum(heights)), dpi=100, facecolor="white")
        rows = figure.subfigures(len(heights), squeeze=False, height_ratios=heights)
        heading, middle, *below = rows[:, 0]
        line = f"{title}: test accuracy {np.mean(predicted == labels):.4f}"
        heading.text(0.02, 0.4, line, fontsize=19, fontweight="bold", va="center")
        curves, matrix, reliability = middle.subfigures(1, 3, width_ratios=(8, 10, 6))
        if history:
            draw_curves(curves, curves_of(history))
        draw_confusion(matrix, labels, predicted, classes)
        draw_reliability(reliability, labels, probabilities)
        if images is not None:
            _draw_mistakes(below[0], labels, probabilities, images, classes)
        file = io.BytesIO()
        figure.savefig(file, format="png")
    write_atomically(path, file.getvalue())


Curves = Mapping[str, Mapping[str, Sequence[float]]]
"""Values by what they are, such as "loss", and by what they are of: "training", "validation"."""


def curves_of(history: History) -> Curves:
    """Return the loss and the accuracy of each epoch."""
    curves = {}
    for name in ("loss", "accuracy"):
        curves[name] = {"training": history.column(name)}
        if history[-1].validation_loss is not None:
            curves[name]["validation"] = history.column(f"validation_{name}")
    return curves


def draw_curves(figure: FigureBase, curves: Curves, unit: str = "epoch") -> None:
    """Draw values after each epoch, or other unit."""
    from matplotlib.ticker import MaxNLocator

    axes = figure.subplots(len(curves), 1, sharex=True, squeeze=False, gridspec_kw={"hspace": 0.28})
    figure.subplots_adjust(left=0.14, right=0.72, top=0.93, bottom=0.11)
    best = best_epoch(curves)
    for ax, (name, lines) in zip(axes[:, 0], curves.items(), strict=True):
        if best is not None:
            ax.axvline(best, color="#999999", ls=":", lw=1.5)  # where the validation loss was least
        ax.set_title(name.capitalize(), loc="left", fontweight="bold")
        ax.grid(axis="y", color="#E6E6E6")
        downwards = sorted(lines.items(), key=lambda line: line[1][-1], reverse=True)
        # the labels lie on either side of the ends, so that they never touch
        for (label, values), side in zip(downwards, ("bottom", "top"), strict=False):
            color, last = COLORS[label], values[-1]
            dots = "o" if len(values) <= MOST_DOTS else ""
            ax.plot(range(1, len(values) + 1), values, color=color, marker=dots, lw=2.5)
            ax.annotate(
                f"{label} {last:.4f}" if name == "accuracy" else f"{label} {last:.4g}",
                (len(values), last),
                xytext=(12, 0),
                textcoords="offset points",
                color=color,
                va=side,
            )
    axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes[-1, 0].set_xlabel(unit)


def draw_confusion(
    figure: FigureBase,
    labels: NDArray[np.integer],
    predicted: NDArray[np.integer],
    classes: Sequence[str],
) -> None:
    """Draw how many samples of each class were taken for which."""
    n, names = len(classes), [shortened(name, NAME) for name in classes]
    counts = np.zeros((n, n), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    right = np.eye(n, dtype=bool)

    ax = figure.subplots()
    figure.subplots_adjust(left=0.17, right=0.97, top=0.93, bottom=0.17)
    for color_map, hidden, limit in (("Blues", ~right, 1.3), ("Oranges", right, 0.35)):
        shown = np.ma.masked_array(share, hidden)
        ax.imshow(shown, cmap=color_map, vmin=0, vmax=limit, aspect="auto")
    size = min(12.0, 130 / n)
    for row, column in np.argwhere(counts):
        dark = share[row, column] > (0.7 if row == column else 0.22)
        style: Any = {"color": "white" if dark else INK, "size": size, "ha": "center"}
        ax.text(column, row, str(counts[row, column]), va="center", **style)
    ax.set_title("Confusion matrix", loc="left", fontweight="bold")
    slant: Any = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
    ax.set_xticks(range(n), names, size=size, **(slant if max(map(width, names)) > 4 else {}))
    ax.set_yticks(range(n), names, size=size)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def draw_reliability(
    figure: FigureBase, labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> None:
    """Draw how often predictions of a confidence are right."""
    confidence, accuracy, count = calibration_bins(probabilities, labels, bins=10)
    error = float(expected_calibration_error(probabilities, labels, bins=10))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.2, right=0.95, top=0.93, bottom=0.11, hspace=0.2)
    upper.set_title(f"Reliability (error {error:.3f})", loc="left", fontweight="bold")
    upper.plot((0, 1), (0, 1), color=FAINT, ls=":")
    filled = count > 0
    upper.plot(confidence[filled], accuracy[filled], color=BLUE, marker="o", lw=2.5)
    upper.set_ylabel("accuracy")
    upper.set_ylim(-0.03, 1.03)
    lower.bar(np.arange(10) / 10 + 0.05, count, width=0.09, color=BLUE)
    lower.set_ylabel("samples")
    lower.set_xlabel("confidence")
    lower.set_xlim(-0.03, 1.03)
    for axis in (upper.yaxis, lower.xaxis):
        axis.set_ticks((0, 0.5, 1))


def draw_thresholds(figure: FigureBase, found: Thresholds, name: str) -> None:
    """Draw the ROC curve of a class, and its precision over its recall."""
    upper, lower = figure.subplots(2, 1)
    figure.subplots_adjust(left=0.2, right=0.95, top=0.93, bottom=0.11, hspace=0.55)
    style: Any = {"loc": "left", "fontweight": "bold"}
    upper.set_title(f"ROC of {shortened(name, NAME)} (area {found.area:.4f})", **style)
    upper.plot((0, 1), (0, 1), color=FAINT, ls=":")
    x, y = (np.append(0, values) for values in (found.false_alarms, found.recall))
    upper.plot(x, y, color=BLUE, lw=2.5)
    upper.set_xlabel("false alarms")
    upper.set_ylabel("recall")
    lower.set_title(f"Precision (average {found.average_precision:.4f})", **style)
    lower.axhline(found.positives / found.samples, color=FAINT, ls=":")
    lower.plot(found.recall, found.precision, color=BLUE, lw=2.5, drawstyle="steps-pre")
    lower.set_xlabel("recall")
    lower.set_ylabel("precision")
    for ax in (upper, lower):
        ax.set_xlim(-0.03, 1.03)
        ax.set_ylim(-0.03, 1.03)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_ticks((0, 0.5, 1))


def confident_mistakes(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> NDArray[np.integer]:
    """Return which samples are wrong, the most confident first."""
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-confidence[wrong], kind="stable")]


def _draw_mistakes(
    figure: SubFigure,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    images: NDArray[np.floating],
    classes: Sequence[str],
) -> None:
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    worst = confident_mistakes(labels, probabilities)
    heading = "Most confident mistakes (true → predicted, probability)"
    if not len(worst):
        heading = "No mistakes"
    figure.text(0.02, 0.95, heading, fontweight="bold", fontsize="large", va="center")
    axes = figure.subplots(*MISTAKES, gridspec_kw={"hspace": 0.42, "wspace": 0.12})
    figure.subplots_adjust(left=0.02, right=0.98, top=0.9, bottom=0.12)
    for ax in axes.flat:
        ax.set_axis_off()
    for ax, i in zip(axes.flat, worst, strict=False):
        draw(ax, images[i])
        names = arrow(*(shortened(classes[k], NAME) for k in (labels[i], predicted[i])))
        size = min(10, 225 / width(names))  # long ones lie apart too
        ax.set_title(f"{names}\n{confidence[i]:.3f}", y=0, pad=-5, va="top", fontsize=size)
