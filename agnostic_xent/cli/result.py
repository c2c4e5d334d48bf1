"""What a trained model does on test data: one line, and the report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .. import SGD, History, predict, to_backend, to_numpy
from ..arrays import Array, backend
from ..batches import as_source
from ..datasets import Dataset
from ..info import backend_line, threads, versions
from ..layer_times import layer_times
from ..linear_sgd import linear_steps
from ..pictures import save_picture
from ..report import save_report
from .recipes import RECIPES, probabilities
from .saved import Settings


def write_report(
    folder: Path, settings: Settings, params: dict[str, Array], history: History, data: Dataset
) -> None:
    """Write report.html and report.png; without their packages, say how to get them."""
    xp, model, recipe = backend(settings.backend), settings.network(), RECIPES[settings.model]
    shown: dict[str, Any] = {
        "title": f"{settings.model} on {data.name}, {settings.backend}",
        "history": history,
        "labels": data.test_y,
        "probabilities": probabilities(predict(model, params, to_backend(data.test_x, xp))),
        "images": data.test_x if data.test_x.ndim == 4 else None,
        "classes": data.classes,
    }
    size = min(settings.batch_size, len(data.test_x))
    x, y = (to_backend(part[:size], xp) for part in (data.test_x, recipe.targets(data.test_y)))
    first = params["0.weight"]
    optimizer = SGD(settings.learning_rate, momentum=settings.momentum)
    source = as_source("data", (x, y), first)
    note = (
        f"A training step of {size} {'sample' if size == 1 else 'samples'} on {settings.backend} "
        "arrays, medians of 10; what runs as one is one row."
    )
    if linear_steps(model, params, source, recipe.loss, optimizer, size) is not None:
        note += " In training, whole epochs of this model run in one kernel, faster than this."
    machine = versions() | {settings.backend: backend_line(settings.backend)}
    machine |= {f"threads: {name}": str(value) for name, value in threads().items()}
    try:
        save_picture(folder / "report.png", **shown)
        save_report(
            folder / "report.html",
            **shown,
            filters=to_numpy(first) if first.ndim == 4 else None,
            layers=layer_times(model, params, x, y, recipe.loss),
            layers_note=note,
            settings=_readable(settings),
            versions=machine,
        )
    except ImportError:
        hint = 'no report: pip install "agnostic-xent[plot]" brings what draws it'
        print(hint, file=sys.stderr)


def _readable(settings: Settings) -> dict[str, str]:
    return {
        name.replace("_", " "): " × ".join(map(str, value)) if name == "input_shape" else str(value)
        for name, value in vars(settings).items()
        if name != "classes"
    }
