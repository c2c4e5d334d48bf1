"""The folder of a trained model: parameters, history and what has to be known to use them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.arrays import Array
from ..core.conversion import BACKENDS
from ..core.files import write_atomically
from ..core.texts import printable
from ..datasets.columns import Columns
from ..datasets.reading import reading
from ..datasets.scale import WHITES, Scale, as_floats
from ..datasets.words import Words
from ..network.checkpoints import load_params, save_params
from ..network.containers import Sequential
from ..network.description import layer_of
from ..network.exchange import match_params
from ..network.layers import Layer
from ..network.models import default_cnn, logistic
from ..training.history import Callback, Epoch, History
from ..training.sparse_epochs import _SparseDense

RUN, MODEL, HISTORY = "run.json", "model.safetensors", "history.json"
WORDS = "words.json"
"""Of a model of texts: its words, each with its rarity."""

NETWORKS: dict[str, Callable[[int, tuple[int, ...]], Layer]] = {
    "cnn": default_cnn,
    "signals": default_cnn,
    "logistic": lambda classes, shape: logistic(classes),
}
"""The models by name, of so many classes and of samples of a shape."""
RANKS = {"cnn": (3, 4), "signals": (2,), "logistic": (1,)}
"""Axes of a sample: of images and volumes, of signals, of rows."""
CHANGED = {"cnn": "images", "signals": "sensors"}
"""What augmentation changes, by model."""


def of_texts(classes: int, shape: tuple[int, ...]) -> Layer:
    """Return what "logistic" is for texts, whose rows are sparse."""
    return Sequential(_SparseDense(1 if classes == 2 else classes))


@dataclass(frozen=True)
class Settings:
    """What was trained, and how; and what its training decided about data."""

    model: str
    data: str
    backend: str
    epochs: int
    batch_size: int
    learning_rate: float | None
    """None of a training without steps, such as by L-BFGS."""
    seed: int | None
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]
    scale: Scale | None = None
    """None in files of before it was kept: then the dtype of each file decides."""
    resized: bool = False
    """Whether pictures are resized and cropped to the shape, as those of the training were."""
    columns: Columns | Words | None = None
    """Of a table: what its columns became; of texts their words."""
    augment: bool = False
    """Whether images were changed at random."""
    loss: str = "cross_entropy"
    """The name of what was minimised."""
    label_smoothing: float = 0.0
    class_prior: bool = False
    """Whether the scores are free of how often each class occurred in the training."""
    command: str = ""
    """Of the command line."""
    date: str = ""
    """When it was trained, or kept."""
    network_layers: dict[str, Any] | None = None
    """Another network than that of the model's name, as `described`."""
    estimator: dict[str, Any] | None = None
    """What a classifier keeps beside that."""

    def network(self) -> Layer:
        """Return the model."""
        if self.network_layers is not None:
            return layer_of(self.network_layers)
        if isinstance(self.columns, Words):
            return of_texts(len(self.classes), self.input_shape)
        return NETWORKS[self.model](len(self.classes), self.input_shape)

    def numbers(self, name: str, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the numbers of a file as the model takes them, or raise a ValueError."""
        if self.scale is not None:
            return self.scale.numbers(name, x)
        floats = as_floats(name, x)
        return floats / np.float32(255) if x.dtype == np.uint8 else floats

    def pictures(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pictures, black 0 and white 1, as the model takes them, or raise a ValueError."""
        return x if self.scale is None else self.scale.pictures(x)

    @property
    def white_of_16_bits(self) -> int:
        """White in pictures of 16 bits."""
        return WHITES[-1] if self.scale is None else self.scale.white_of_16_bits


def now() -> str:
    """Return date and time, as settings have them."""
    return datetime.now().astimezone().isoformat(" ", "minutes")


class Save(Callback):
    """Keep the files in a folder those of the last finished epoch."""

    def __init__(self, folder: Path, settings: Settings):
        self._folder, self._settings, self._history = folder, settings, History()

    def on_resume(self, history: History, params: dict[str, Array]) -> None:
        """Write the files of a run that went on."""
        self._history.extend(history)
        self._write(params)

    def on_epoch(self, epoch: Epoch, params: dict[str, Array]) -> None:
        """Write the files of a finished epoch."""
        self._history.append(epoch)
        self._write(params)

    def _write(self, params: dict[str, Array]) -> None:
        write(self._folder, self._settings, params, self._history)


def write(folder: Path, settings: Settings, params: dict[str, Array], history: History) -> None:
    """Write the files of a trained model."""
    values = asdict(settings)
    if isinstance(settings.columns, Words):
        columns = values["columns"]
        words = dict(zip(columns.pop("words"), columns.pop("rarity"), strict=True))
        write_atomically(folder / WORDS, json.dumps(words, indent=0).encode())
    write_atomically(folder / RUN, (json.dumps(values, indent=2) + "\n").encode())
    save_params(folder / MODEL, params)
    write_atomically(folder / HISTORY, history.to_json().encode())


def read(folder: Path) -> tuple[Settings, dict[str, Array], History]:
    """Return what `write` has written.

    Raises
    ------
    ValueError
        If the folder lacks a file, or one is damaged.
    """
    if missing := [name for name in (RUN, MODEL, HISTORY) if not (folder / name).exists()]:
        raise ValueError(
            f"{printable(str(folder))} must be a folder that train --out or save_classifier has "
            f"written, but has no {', '.join(missing)}"
        )
    with reading(folder / RUN):
        values = json.loads((folder / RUN).read_text("utf-8"))
    if _is_of_texts(values):
        with reading(folder / WORDS):
            words = json.loads((folder / WORDS).read_text("utf-8"))
            values["columns"] = Words(tuple(words), tuple(words.values()), **values["columns"])
    with reading(folder / RUN):
        settings = _settings(values)
    with reading(folder / MODEL):
        params = _params(settings, load_params(folder / MODEL))
    with reading(folder / HISTORY):
        history = History.from_json((folder / HISTORY).read_text("utf-8"))
        if not history and settings.estimator is None:
            raise ValueError("it has no epoch")
    return settings, params, history


def _is_of_texts(values: Any) -> bool:
    """Return whether run.json tells of a model of texts."""
    columns = values.get("columns") if isinstance(values, dict) else None
    return isinstance(columns, dict) and "text" in columns


FITS: dict[str, Callable[[Any], bool]] = {
    "model": lambda value: value in NETWORKS,
    "data": lambda value: isinstance(value, str),
    "backend": lambda value: value in BACKENDS,
    "epochs": lambda value: _is_count(value),
    "batch_size": lambda value: _is_count(value),
    "learning_rate": lambda value: value is None or 0 < value < math.inf,
    "seed": lambda value: value in (None, 0) or _is_count(value),
    "classes": lambda value: len(value) > 1 and all(isinstance(name, str) for name in value),
    "input_shape": lambda value: len(value) > 0 and all(map(_is_count, value)),
}
"""Whether a value of run.json can be one of a training."""


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _settings(values: Any) -> Settings:
    """Return the settings that run.json holds, after a look at each."""
    if not isinstance(values, dict):
        raise ValueError("it is no JSON object")
    if missing := FITS.keys() - values:
        raise ValueError(f"it has no {', '.join(sorted(missing))}")
    for name, fits in FITS.items():
        if not fits(values[name]):
            raise ValueError(f"its {name} cannot be {values[name]!r}")
    values |= {name: tuple(values[name]) for name in ("classes", "input_shape")}
    if len(values["input_shape"]) not in RANKS[values["model"]]:
        raise ValueError(f"a {values['model']} has no input_shape {values['input_shape']!r}")
    if values.get("scale") is not None:
        values["scale"] = Scale(**values["scale"])
    if values.get("columns") is not None:
        if not isinstance(values["columns"], Words):
            values["columns"] = Columns(**values["columns"])
        if (values["columns"].features,) != values["input_shape"]:
            raise ValueError("its columns and its input_shape do not fit")
    if values.get("network_layers") is not None:
        layer_of(values["network_layers"])
    return Settings(**values)


def _params(settings: Settings, found: dict[str, NDArray[Any]]) -> dict[str, Array]:
    """Return parameters after a check that they are those of a model, and finite numbers."""
    for name, w in found.items():
        if w.dtype.kind != "f" or not np.isfinite(w).all():
            raise ValueError(f"its {name} is not of finite floats")
    size, (channels, *sides) = sum(w.size for w in found.values()), settings.input_shape
    if max(channels, math.prod(sides)) > size:  # before a model of that size is made
        raise ValueError(f"it does not fit {RUN}: input_shape {settings.input_shape} is too large")
    try:
        return match_params(settings.network(), found, settings.input_shape)
    except ValueError as error:
        raise ValueError(f"it does not fit {RUN}: {error}") from error
