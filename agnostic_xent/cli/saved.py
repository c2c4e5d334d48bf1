"""The folder of a trained model, as the argument of a command."""

from __future__ import annotations

from pathlib import Path

from .. import History
from ..core.arrays import Array
from ..evaluation import folder
from ..evaluation.folder import Settings
from .options import argument


def read(path: Path) -> tuple[Settings, dict[str, Array], History]:
    """Return what is in a folder, its parameters of the dtype of samples, float32.

    Raises
    ------
    ValueError
        If the folder lacks a file, or one is damaged.
    """
    with argument("DIR"):
        settings, params, history = folder.read(path)
    return settings, {name: w.astype("float32") for name, w in params.items()}, history
