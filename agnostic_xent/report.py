"""The report of a classifier: one HTML page that holds its pictures and needs nothing else."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .calibration import expected_calibration_error
from .checkpoints import write_atomically
from .history import History
from .layer_times import LayerTime
from .metrics import confusion_matrix
from .pictures import (
    STYLE,
    confident_mistakes,
    draw_confusion,
    draw_curves,
    draw_reliability,
)

__all__ = ["save_report"]

TEMPLATE = Path(__file__).parent / "report.html"
MISTAKES, FILTERS = 24, 64
"""At most so many are shown."""


def save_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    history: History,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    images: NDArray[np.floating] | None,
    classes: Sequence[str],
    filters: NDArray[np.floating] | None,
    layers: Sequence[LayerTime],
    layers_note: str,
    settings: Mapping[str, Any],
    versions: Mapping[str, str],
) -> None:
    """Write the page atomically: one file that opens without network, on a phone and on paper.

    Needs matplotlib and jinja2, and no display.

    Parameters
    ----------
    path : path
        The file; an older one is replaced only when the new one is complete.
    title : str
        What was trained, on what.
    history : History
        From `fit`.
    labels : ndarray of integers, shape (N,)
        True classes of the test samples.
    probabilities : ndarray, shape (N, classes)
        Predicted probabilities of the test samples.
    images : ndarray, shape (N, C, H, W), or None
        The test samples as images, of which the first channel is shown; None shows none.
    classes : sequence of str
        Name of each class.
    filters : ndarray, shape (K, C, KH, KW), or None
        Weights of the first convolution.
    layers : sequence of LayerTime
        From `layer_times`; ``layers_note`` says in which step they were measured.
    settings, versions : mapping of str
        Tables at the end of the page.

    Raises
    ------
    ImportError
        If matplotlib or jinja2 is not installed.
    """
    import jinja2
    import matplotlib

    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), len(classes))
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": "agnostic_xent", "svg.fonttype": "path"}):
        page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
            title=title,
            summary=_summary(history, labels, probabilities, layers),
            pictures=_pictures(history, labels, probabilities, classes),
            scores=_scores(matrix, classes),
            mistakes=_mistakes(labels, probabilities, images, classes),
            filters=_filters(filters),
            layers=layers,
            layers_note=layers_note,
            tables=(("Settings", settings), ("Versions", versions)),
        )
    write_atomically(path, page.encode())


def _summary(
    history: History,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    layers: Sequence[LayerTime],
) -> list[tuple[str, str]]:
    loss = history[-1].validation_loss
    calibration = float(expected_calibration_error(probabilities, labels, bins=10))
    return [
        ("test accuracy", f"{np.mean(probabilities.argmax(axis=1) == labels):.4f}"),
        *([] if loss is None else [("test loss", f"{loss:.4g}")]),
        ("calibration error", f"{calibration:.3f}"),
        ("test samples", f"{len(labels):,}"),
        ("parameters", f"{sum(layer.parameters for layer in layers):,}"),
        ("epochs", f"{len(history)}"),
        ("training", f"{sum(history.column('seconds')):.3g} s"),
    ]


def _pictures(
    history: History,
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    classes: Sequence[str],
) -> list[tuple[str, str]]:
    """Return pictures, and what they show in words."""
    predicted = probabilities.argmax(axis=1)
    last = history[-1]
    curves = f"Loss and accuracy of {len(history)} epochs; the last are {last.loss:.4g} and "
    return [
        (
            _svg((5.2, 4.8), lambda figure: draw_curves(figure, history)),
            f"{curves}{last.accuracy:.4f} in training",
        ),
        (
            _svg((5.6, 5.4), lambda figure: draw_confusion(figure, labels, predicted, classes)),
            "Counts of test samples by true class (rows) and predicted class (columns)",
        ),
        (
            _svg((5.2, 4.8), lambda figure: draw_reliability(figure, labels, probabilities)),
            "Accuracy over confidence, and how many test samples have that confidence",
        ),
    ]


def _scores(matrix: NDArray[np.integer], classes: Sequence[str]) -> list[dict[str, str]]:
    """Return precision, recall and F1 of each class; a dash where one divides by nothing."""
    rows = []
    for i, name in enumerate(classes):
        right, true, predicted = matrix[i, i], matrix[i].sum(), matrix[:, i].sum()
        shares = {"precision": (right, predicted), "recall": (right, true)}
        shares["f1"] = (2 * right, true + predicted)
        shown = {key: f"{a / b:.3f}" if b else "–" for key, (a, b) in shares.items()}
        rows.append({"name": name, **shown, "samples": f"{true:,}"})
    return rows


def _mistakes(
    labels: NDArray[np.integer],
    probabilities: NDArray[np.floating],
    images: NDArray[np.floating] | None,
    classes: Sequence[str],
) -> list[dict[str, str]] | None:
    if images is None:
        return None
    return [
        {
            "picture": _png(images[i, 0], "gray_r"),
            "true": classes[labels[i]],
            "predicted": classes[probabilities[i].argmax()],
            "probability": f"{probabilities[i].max():.3f}",
        }
        for i in confident_mistakes(labels, probabilities)[:MISTAKES]
    ]


def _filters(filters: NDArray[np.floating] | None) -> list[str]:
    if filters is None:
        return []
    limit = float(np.abs(filters).max())
    return [
        _png(w.reshape(-1, w.shape[2]), "RdBu_r", (-limit, limit))  # (C * KH, KW)
        for w in filters[:FILTERS]
    ]


# --- pictures as addresses -----------------------------------------------------------------------


def _svg(inches: tuple[float, float], draw: Callable[[Any], None]) -> str:
    from matplotlib.figure import Figure

    figure, file = Figure(figsize=inches), io.BytesIO()
    draw(figure)
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    return _address("svg+xml", file.getvalue())


def _png(image: NDArray[np.floating], colors: str, limits: Any = (None, None)) -> str:
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, image, cmap=colors, format="png", vmin=limits[0], vmax=limits[1])
    return _address("png", file.getvalue())


def _address(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
