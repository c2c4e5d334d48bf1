"""What a trained model is to predict: the samples in a file or a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pictures import as_images, read_pictures
from .reading import arrays_of, naming, reading, rows_of
from .saved import Settings


def read_samples(path: Path, settings: Settings) -> tuple[list[str], NDArray[np.float32]]:
    """Return names and values (N, *shape) of samples, as the model takes them.

    Raises
    ------
    ValueError
        If they are of another shape or on another scale, or there is none.
    """
    shape = settings.input_shape
    if path.is_dir():
        names, pixels = read_pictures("SAMPLES", path, shape, settings.white_of_16_bits)
        with naming("SAMPLES", path):
            return names, settings.pictures(pixels)
    with reading("SAMPLES", path):
        x = _array(path)
    with naming("SAMPLES", path):
        given = x.shape
        if len(shape) == 3:
            x = as_images("it", x)
        if x.shape[1:] != shape or not len(x):
            wanted = ", ".join(map(str, shape))
            one = ": of one sample, save x[None]" if given == shape else ""
            raise ValueError(f"it must have shape (N, {wanted}), got {given}{one}")
        return [str(i) for i in range(len(x))], settings.numbers("it", x)


def _array(path: Path) -> NDArray[Any]:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.lib.format.open_memmap(path, mode="r")
    if suffix == ".npz":
        return arrays_of(path, _one)[0]
    if suffix == ".csv":
        return rows_of(path)
    raise ValueError("it must be a .npy, .npz or .csv file or a folder of pictures")


def _one(names: list[str]) -> list[str]:
    if len(names) != 1 and "x" not in names:
        raise ValueError(f"it must hold an array called x, but has {', '.join(names)}")
    return ["x"] if "x" in names else names
