"""The report of a classifier: one HTML page that holds its pictures and needs nothing else."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.files import write_atomically
from ..core.requirements import missing
from ..info import backend_line, threads, versions
from ..training.recipe import chance_loss
from .calibration import expected_calibration_error
from .conformal import fit_conformal
from .label_issues import ranked_issues
from .layer_times import LayerTime
from .lettering import drawing, printable
from .metrics import confusion_matrix
from .pictures import (
    STYLE,
    Curves,
    confident_mistakes,
    draw_confusion,
    draw_curves,
    draw_reliability,
    draw_thresholds,
)
from .sample_pictures import address, of_colors, picture, reason, weights
from .thresholds import Thresholds
from .words import in_words

__all__ = ["save_page"]

TEMPLATE = Path(__file__).parent / "page.html"
MISTAKES, ISSUES, FILTERS = 24, 24, 64
"""At most so many are shown."""
COVERAGES = (0.9, 0.95, 0.99)
"""Of the prediction sets."""
Explained: TypeAlias = Callable[[NDArray[np.integer]], NDArray[np.floating]]
"""Takes indices of samples; returns what in them spoke for their predicted class."""


def save_page(
    path: str | os.PathLike[str],
    *,
    title: str,
    loss: float | None,
    numbers: Mapping[str, str],
    curves: Curves,
    unit: str,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    images: NDArray[np.floating] | None,
    explained: Explained | None,
    classes: Sequence[str],
    filters: NDArray[np.floating] | None,
    layers: Sequence[LayerTime],
    layers_note: str,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
    groups: NDArray[Any] | None = None,
    strongest: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the page atomically: one file that opens without network, on a phone and on paper.

    Needs matplotlib and jinja2, and no display.

    Parameters
    ----------
    path : path
        The file; an older one is replaced only when the new one is complete.
    title : str
        What was trained, on what.
    loss : float or None
        Of the test samples.
    numbers : mapping of str
        What else is said at the top.
    curves : mapping
        How the training went, such as `curves_of` a history; without any, no picture shows it.
    unit : str
        What a training is counted in, such as "epoch".
    labels : ndarray of integers, shape (N,)
        True classes of the test samples.
    probabilities : ndarray, shape (N, classes)
        Predicted probabilities of the test samples.
    images : ndarray, shape (N, C, H, W), (N, C, L) or (N, C, D, H, W), or None
        The test samples as images, signals or volumes, as `picture` shows them; None shows none.
    explained : callable, optional
        Returns what in some samples, given their indices, spoke for the predicted class: an ndarray
        (M, C, ...), such as `integrated_gradients` makes. None shows no explanation.
    classes : sequence of str
        Name of each class.
    filters : ndarray, shape (K, C, KH, KW), (K, C, KL) or (K, C, KD, KH, KW), or None
        Weights of the first convolution.
    layers : sequence of LayerTime
        From `layer_times`; ``layers_note`` says in which step they were measured. Without any, the
        table is left out.
    settings, versions : mapping of str
        Tables at the end of the page.
    groups : ndarray, shape (N,), optional
        What each test sample belongs to, such as a person; a table has the accuracy of each.
    strongest : mapping of sequences of str, optional
        The features that speak most for each class, such as words.

    Raises
    ------
    ImportError
        If matplotlib or jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise missing("a report", "matplotlib", "jinja2") from error

    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    classes = [*map(printable, classes)]
    thresholds = _thresholds(labels, probabilities)
    with drawing(STYLE | {"svg.hashsalt": "agnostic_xent", "svg.fonttype": "path"}, classes):
        page = _template().render(
            title=title,
            summary=[*_summary(labels, probabilities, loss), *numbers.items()],
            pictures=[
                *_pictures(curves, unit, labels, probabilities, classes),
                *_of_thresholds(thresholds, classes[-1]),
            ],
            scores=_scores(matrix, classes),
            groups=_groups(groups, probabilities.argmax(axis=1) == labels),
            operating=_operating(thresholds),
            second=classes[-1],
            strongest=strongest or {},
            mistakes=_mistakes(labels, probabilities, images, explained, classes),
            issues=_issues(labels, probabilities, images, classes),
            sets=_sets(labels, probabilities),
            filters=_filters(filters),
            of_colors=filters is not None and of_colors(filters[0]),
            layers=layers,
            layers_note=layers_note,
            tables=(("Settings", settings), ("Versions", versions)),
        )
    write_atomically(path, page.encode())


def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda x: printable(x) if type(x) is str else x,
    )
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def machine(library: str) -> dict[str, str]:
    """Return versions, devices and threads, where arrays of a library are worked on."""
    return versions() | {library: backend_line(library), "threads": str(threads()["number"])}


def _summary(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating], loss: float | None
) -> list[tuple[str, str]]:
    calibration = float(expected_calibration_error(probabilities, labels, bins=10))
    return [
        ("test accuracy", f"{np.mean(probabilities.argmax(axis=1) == labels):.4f}"),
        *([] if loss is None else [("test loss", f"{loss:.4g}")]),
        ("calibration error", f"{calibration:.3f}"),
        ("test samples", f"{len(labels):,}"),
    ]


def _pictures(
    curves: Curves,
    unit: str,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
) -> list[tuple[str, str, str]]:
    """Return pictures, what they show in words, and what that means."""
    predicted = probabilities.argmax(axis=1)
    chance = chance_loss(np.bincount(labels))
    return [
        *_training(curves, unit, chance),
        (
            svg((5.6, 5.4), lambda figure: draw_confusion(figure, labels, predicted, classes)),
            "Counts of test samples by true class (rows) and predicted class (columns)",
            "",
        ),
        (
            svg((5.2, 4.8), lambda figure: draw_reliability(figure, labels, probabilities)),
            "Accuracy over confidence, and how many test samples have that confidence",
            "",
        ),
    ]


def _thresholds(
    labels: NDArray[np.integer], probabilities: NDArray[np.floating]
) -> Thresholds | None:
    """Return the thresholds of two classes; None of more."""
    if probabilities.shape[1] != 2:
        return None
    return Thresholds.of(probabilities[:, 1], labels == 1)


def _of_thresholds(found: Thresholds | None, name: str) -> list[tuple[str, str, str]]:
    if found is None:
        return []
    text = (
        f"ROC, and precision over recall, of {name}: area {found.area:.4f}, "
        f"average precision {found.average_precision:.4f}"
    )
    return [(svg((5.2, 4.8), lambda figure: draw_thresholds(figure, found, name)), text, "")]


PRECISIONS = (0.9, 0.95, 0.99)
"""Those of which the thresholds are told."""


def _operating(found: Thresholds | None) -> list[dict[str, str]]:
    """Return the threshold that has each precision, and its recall; a dash where none has."""
    if found is None:
        return []
    rows = []
    for wanted in PRECISIONS:
        threshold, recall = (
            ("–", "–")
            if (at := found.at_precision(wanted)) is None
            else (f"{at[0]:.4g}", f"{at[1]:.3f}")
        )
        rows.append({"precision": f"{wanted:g}", "threshold": threshold, "recall": recall})
    return rows


def _training(curves: Curves, unit: str, chance: float) -> list[tuple[str, str, str]]:
    if not curves:
        return []
    ends = [
        f"{name} in {of} {values[-1]:.4g}"
        for name, lines in curves.items()
        for of, values in lines.items()
    ]
    inches = (5.2, 4.8 if len(curves) > 1 else 3.2)
    drawn = svg(inches, lambda figure: draw_curves(figure, curves, unit))
    text = f"The training by {unit}; at the end {', '.join(ends)}"
    return [(drawn, text, in_words(curves, chance, unit))]


def _scores(matrix: NDArray[np.integer], classes: Sequence[str]) -> list[dict[str, str]]:
    """Return precision, recall and F1 of each class, and where most of its mistakes go to.

    A dash stands where one divides by nothing, and where there is no mistake.
    """
    rows = []
    for i, name in enumerate(classes):
        right, true, predicted = matrix[i, i], matrix[i].sum(), matrix[:, i].sum()
        shares = {"precision": (right, predicted), "recall": (right, true)}
        shares["f1"] = (2 * right, true + predicted)
        shown = {key: f"{a / b:.3f}" if b else "–" for key, (a, b) in shares.items()}
        taken_for = _taken_for(np.where(np.arange(len(classes)) == i, 0, matrix[i]), classes)
        rows.append({"name": name, **shown, "samples": f"{true:,}", "taken_for": taken_for})
    return rows


def _taken_for(mistakes: NDArray[np.integer], classes: Sequence[str]) -> str:
    """Return the class that most mistakes of a class go to, and how many they are."""
    most = int(mistakes.argmax())
    return f"{classes[most]}, {mistakes[most]:,}" if mistakes[most] else "–"


def _groups(groups: NDArray[Any] | None, right: NDArray[np.bool_]) -> list[dict[str, str]]:
    """Return the accuracy of each group, from the least one on."""
    if groups is None:
        return []
    names, numbers = np.unique(groups, return_inverse=True)
    samples, good = np.bincount(numbers), np.bincount(numbers, weights=right)
    return [
        {
            "name": str(names[i]),
            "accuracy": f"{good[i] / samples[i]:.3f}",
            "samples": f"{samples[i]:,}",
        }
        for i in np.argsort(good / samples, kind="stable")
    ]


def _mistakes(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    images: NDArray[np.floating] | None,
    explained: Explained | None,
    classes: Sequence[str],
) -> list[dict[str, str]] | None:
    if images is None:
        return None
    rows = confident_mistakes(labels, probabilities)[:MISTAKES]
    if explained is not None and len(rows):
        reasons = [*map(reason, explained(rows))]
    else:
        reasons = [""] * len(rows)
    return [
        {
            "picture": picture(images[i]),
            "reason": spoke,
            "true": classes[labels[i]],
            "predicted": classes[probabilities[i].argmax()],
            "probability": f"{probabilities[i].max():.3f}",
        }
        for i, spoke in zip(rows, reasons, strict=True)
    ]


def _issues(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    images: NDArray[np.floating] | None,
    classes: Sequence[str],
) -> list[dict[str, str]]:
    """Return the samples whose label is probably wrong, the worst first."""
    best = probabilities.argmax(axis=1)
    rows = ranked_issues(probabilities, labels)
    return [
        {
            "sample": f"{i}",
            "picture": "" if images is None else picture(images[i]),
            "label": classes[labels[i]],
            "suggested": classes[best[i]],
            "probability": f"{probabilities[i, labels[i]]:.3f}",
            "of_suggested": f"{probabilities[i, best[i]]:.3f}",
        }
        for i in rows[best[rows] != labels[rows]][:ISSUES]
    ]


def _sets(labels: NDArray[np.integer], probabilities: NDArray[np.floating]) -> list[dict[str, str]]:
    """Return how often sets of classes hold the true one, each half calibrated on the other."""
    rows: list[dict[str, Any]] = []
    half = np.arange(len(labels)) % 2 == 0
    for coverage in COVERAGES if len(labels) > 1 else ():
        taken = np.zeros(probabilities.shape, bool)
        for part in (half, ~half):
            sets = fit_conformal(probabilities[~part], labels[~part], coverage=coverage)
            if sets.threshold == math.inf:  # of all classes: too few samples for such a promise
                return rows
            taken[part] = sets(probabilities[part])
        sizes = taken.sum(axis=1)
        shares = [np.mean(sizes == 1), np.mean(sizes == 2), np.mean(sizes > 2)]
        rows.append(
            {
                "promised": f"{coverage:.2f}",
                "covered": f"{np.mean(taken[np.arange(len(labels)), labels]):.4f}",
                "size": f"{sizes.mean():.2f}",
                "shares": [f"{share:.3f}" for share in shares],
            }
        )
    return rows


def _filters(filters: NDArray[np.floating] | None) -> list[str]:
    if filters is None:
        return []
    limit = float(np.abs(filters).max()) or 1.0
    return [weights(w, limit) for w in filters[:FILTERS]]


# --- pictures as addresses -----------------------------------------------------------------------


def svg(inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    """Return what ``draw`` draws on a figure, as an address."""
    from matplotlib.figure import Figure

    figure, file = Figure(figsize=inches), io.BytesIO()
    draw(figure)
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return address("svg+xml", file.getvalue())
