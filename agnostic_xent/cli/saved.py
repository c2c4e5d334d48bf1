"""The folder of a trained model: parameters, history and what has to be known to use them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import History, Sequential, load_params, match_params, save_params
from ..core.arrays import Array
from ..core.files import write_atomically
from ..training.history import Callback, Epoch
from .recipes import RECIPES

RUN, MODEL, HISTORY = "run.json", "model.safetensors", "history.json"


@dataclass(frozen=True)
class Settings:
    """What was trained, and how."""

    model: str
    data: str
    backend: str
    epochs: int
    batch_size: int
    learning_rate: float
    momentum: float
    seed: int
    classes: tuple[str, ...]
    input_shape: tuple[int, ...]

    def network(self) -> Sequential:
        """Return the model."""
        return RECIPES[self.model].network(len(self.classes))


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
        text = json.dumps(asdict(self._settings), indent=2) + "\n"
        write_atomically(self._folder / RUN, text.encode())
        save_params(self._folder / MODEL, params)
        write_atomically(self._folder / HISTORY, self._history.to_json().encode())


def read(folder: Path) -> tuple[Settings, dict[str, Array], History]:
    """Return what `Save` has kept.

    Raises
    ------
    ValueError
        If the folder lacks a file, or one is damaged.
    """
    try:
        values = json.loads((folder / RUN).read_text())
        values |= {name: tuple(values[name]) for name in ("classes", "input_shape")}
        settings = Settings(**values)
        params = match_params(settings.network(), load_params(folder / MODEL), settings.input_shape)
        history = History.from_json((folder / HISTORY).read_text())
        if not history:
            raise ValueError("its history has no epoch")
        return settings, params, history
    except FileNotFoundError as error:
        raise ValueError(
            f"argument DIR: {folder} must be a folder that train --out has written, "
            f"but has no {Path(error.filename).name}"
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"argument DIR: {folder} is damaged: {error}") from error
