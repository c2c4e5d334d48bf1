"""What a trained model does on test data: one line, and the report."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import (
    History,
    cross_entropy,
    integrated_gradients,
    predict,
    recording_log_proba,
    to_backend,
    to_numpy,
)
from ..core.arrays import Array
from ..core.conversion import backend
from ..core.requirements import installing
from ..core.sparse import CSR
from ..core.texts import printable
from ..datasets import Dataset
from ..datasets.words import Words
from ..evaluation.explanations import SHOWN_STEPS
from ..evaluation.folder import Settings
from ..evaluation.layer_times import how_measured, layer_times
from ..evaluation.page import machine, save_page
from ..evaluation.pictures import Curves, curves_of, save_picture
from ..evaluation.strongest import strongest
from ..training.batches import as_source
from ..training.linear_epochs import linear_steps
from .data import there
from .output import print_results
from .recipes import RECIPES, loss_of, probabilities, targets


def write_report(
    folder: Path,
    settings: Settings,
    params: dict[str, Array],
    history: History,
    data: Dataset,
    loss_on_test: float | None,
) -> None:
    """Write report.html and report.png; without their packages, say how to get them."""
    xp, model = backend(settings.backend), settings.network()
    loss = loss_of(settings.model, len(settings.classes))
    shown: dict[str, Any] = {
        "title": f"{settings.model} on {data.name}, {settings.backend}",
        "labels": data.test_y,
        "probabilities": probabilities(predict(model, params, there(data.test_x, xp))),
        "images": data.test_x if data.test_x.ndim > 2 else None,
        "classes": data.classes,
    }
    size = min(settings.batch_size, len(data.test_x))
    x = there(data.test_x[:size], xp)
    y = to_backend(targets(loss, data.test_y[:size]), xp)
    first = next(w for name, w in params.items() if name.endswith("weight"))
    optimizer = RECIPES[settings.model].optimizer(settings.learning_rate or 1.0, 1)
    source = as_source("data", (x, y), first)
    note = how_measured(size, settings.backend)
    if linear_steps(model, params, source, loss, optimizer, size) is not None:
        note += " In training, whole epochs of this model run in one kernel, faster than this."
    unit = "epoch" if history else "iteration"
    numbers = {
        "parameters": f"{sum(math.prod(w.shape) for w in params.values()):,}",
        f"{unit}s": f"{settings.epochs}" if settings.estimator else f"{len(history)}",
    }
    if history:
        numbers["training"] = f"{sum(history.column('seconds')):.3g} s"
    numbers |= of_recordings(settings, params, data)

    def explained(rows: NDArray[np.integer]) -> NDArray[Any]:
        samples = to_backend(data.test_x[rows], xp)
        return to_numpy(integrated_gradients(model, params, samples, steps=SHOWN_STEPS))

    try:
        save_picture(folder / "report.png", **shown, history=history)
        save_page(
            folder / "report.html",
            **shown,
            explained=explained if loss is cross_entropy else None,
            loss=loss_on_test,
            numbers=numbers,
            curves=curves_of(history) if history else _objective(settings),
            unit=unit,
            filters=to_numpy(first) if first.ndim > 2 else None,
            layers=[] if isinstance(x, CSR) else layer_times(model, params, x, y, loss),
            layers_note=note,
            settings=readable(settings),
            versions=machine(settings.backend),
            groups=data.test_person,
            strongest=_strongest(settings, first),
        )
    except ImportError:
        print(f"no report: {installing('matplotlib', 'jinja2')} brings its tools", file=sys.stderr)


def of_recordings(settings: Settings, params: dict[str, Array], data: Dataset) -> dict[str, str]:
    """Return the accuracy of recordings by its name, if the samples to test on are windows of some.

    Parameters are of the library of the settings.
    """
    if data.test_recording is None:
        return {}
    logits = predict(settings.network(), params, there(data.test_x, backend(settings.backend)))
    predicted = to_numpy(recording_log_proba(logits, data.test_recording)[1]).argmax(axis=1)
    first = np.unique(data.test_recording, return_index=True)[1]
    return {"accuracy of recordings": f"{np.mean(predicted == data.test_y[first]):.4f}"}


def print_scores(
    options: argparse.Namespace,
    recordings: dict[str, str],
    loss: float | None,
    accuracy: float | None,
    more: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Print how a model did on test data: of recordings, if there are some, and of samples."""
    shown = {**recordings, **more, "test accuracy": f"{accuracy:.4f}"}
    results: dict[str, Any] = {name.replace(" ", "_"): float(x) for name, x in recordings.items()}
    results |= {"test_loss": loss, "test_accuracy": accuracy}
    print_results(options, results, [f"{name}: {text}" for name, text in shown.items()])


def _strongest(settings: Settings, weights: Array) -> dict[str, list[str]]:
    """Return the words that speak most for each class, of a model of texts."""
    if not isinstance(settings.columns, Words):
        return {}
    return strongest(to_numpy(weights), settings.columns.words, settings.classes)


def _objective(settings: Settings) -> Curves:
    """Return the curve of a training without epochs."""
    losses = (settings.estimator or {}).get("losses")
    return {"objective": {"training": losses}} if losses else {}


def readable(settings: Settings) -> dict[str, str]:
    """Return settings as a page shows them."""
    texts = vars(settings) | {"input_shape": " × ".join(map(str, settings.input_shape))}
    if settings.estimator is None:
        texts["validation"] = "the test samples, after each epoch"
    return {
        name.replace("_", " "): printable(str(value))
        for name, value in texts.items()
        if name not in ("classes", "estimator", "network_layers") and value != ""
    }
