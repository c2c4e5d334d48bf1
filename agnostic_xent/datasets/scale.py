"""The scale of the numbers that a model was trained on, to which it holds all later ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WHITES = (255, 1023, 4095, 16383, 65535)
"""Of pictures of 8, 10, 12, 14 and 16 bits."""
FAR_IMAGES, FAR_ROWS = 10, 100
"""So many times the greatest number of the training is on another scale; rows have outliers."""


@dataclass(frozen=True)
class Scale:
    """What the numbers of a training were, as its file has them; kept with the model."""

    divisor: int
    """What they were divided by for the model. So are all later ones, whatever their dtype."""
    least: float
    greatest: float
    whole: bool
    """Whether all of them were integers."""

    def __post_init__(self) -> None:
        if not (self.divisor in (1, *WHITES) and self.least <= self.greatest):
            raise ValueError(f"there is no scale {self!r}")

    def __str__(self) -> str:
        text = f"{self.least:g} to {self.greatest:g}"
        return text if self.divisor == 1 else f"{text}, divided by {self.divisor}"

    @classmethod
    def of(cls, x: NDArray[Any]) -> Scale:
        """Return the scale of what a model is trained on, images, volumes, signals or rows."""
        least, greatest = float(x.min()), float(x.max())
        return cls(_divisor(x, least, greatest), least, greatest, not _has_fractions(x))

    def numbers(self, name: str, x: NDArray[Any]) -> NDArray[np.float32]:
        """Return the numbers of a file as the model takes them.

        Raises
        ------
        ValueError
            If they are on another scale.
        """
        own_white = self.divisor > 255 or (self._of_shares and not self.whole)
        if own_white and x.dtype == np.uint8 and x.ndim > 3:
            return as_floats(name, x) / np.float32(255)  # as pictures in files are
        x = as_floats(name, x)
        least, greatest = float(x.min()), float(x.max())
        if self._differs(least, greatest, x):
            raise ValueError(
                f"{name} holds numbers from {least:g} to {greatest:g}, but the model was trained "
                f"on numbers from {self.least:g} to {self.greatest:g}: bring them to that scale"
            )
        return x if self.divisor == 1 else x / np.float32(self.divisor)

    def pictures(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return pictures, between black, 0, and white, 1, as the model takes them.

        Raises
        ------
        ValueError
            If it is unknown what white was in the training, or they are of more bits.
        """
        if self.divisor == 1 and not self._of_shares:
            raise ValueError(
                f"pictures are between 0 and 1, but the model was trained on numbers from "
                f"{self.least:g} to {self.greatest:g}: give them as an array on that scale"
            )
        if x.max() > 1.1:
            raise ValueError(f"pictures are brighter than the model's white, {self.divisor}")
        return x

    @property
    def white_of_16_bits(self) -> int:
        """White in pictures of 16 bits; a model of such levels takes theirs as they are."""
        return self.divisor if self.divisor > WHITES[0] else WHITES[-1]

    @property
    def _of_shares(self) -> bool:
        return self.least >= 0 and self.greatest <= 1

    def _differs(self, least: float, greatest: float, x: NDArray[np.float32]) -> bool:
        images, levels, size = x.ndim > 3, self.divisor > 1, max(abs(least), abs(greatest))
        if levels and (greatest > 1.1 * self.divisor or 0 < size <= 255 < self.divisor):
            return True  # of more or of fewer bits
        far = FAR_IMAGES if images else FAR_ROWS
        if not levels and size > far * max(abs(self.least), abs(self.greatest)):
            return True
        negative = least < 0 <= self.least
        if negative and (images or levels) and least < -self.greatest / 10:
            return True
        small = size <= 1 or (negative and size < self.greatest / 10)
        whole = self.greatest > 1 and (self.whole or levels)
        return whole and small and _has_fractions(x)


def as_floats(name: str, x: NDArray[Any]) -> NDArray[np.float32]:
    """Return an array as float32.

    Raises
    ------
    ValueError
        If it is not of numbers, or one is not finite.
    """
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be of numbers, got dtype {x.dtype}")
    with np.errstate(all="ignore"):
        floats = x.astype(np.float32)
    finite = np.isfinite(floats).reshape(len(x), -1).all(axis=1)
    if not finite.all():
        i = int(finite.argmin())
        wrong = x[i][~np.isfinite(floats[i])].flat[0]
        raise ValueError(f"{name} must be of finite numbers, but sample {i} has {wrong}")
    return floats


def _divisor(x: NDArray[Any], least: float, greatest: float) -> int:
    if least >= 0 and greatest <= 1:
        return 1
    if x.dtype == np.uint8:
        return 255
    if x.ndim > 3 and max(-least, greatest) > WHITES[0] // 2:  # levels, in whatever dtype
        for white in WHITES:
            if least >= 0 and greatest <= white:
                return white
        raise ValueError(
            f"train_x holds numbers from {least:g} to {greatest:g}: bring images to the scale of "
            f"-1 to 1, or to levels from 0 to {WHITES[0]} or {WHITES[-1]}"
        )
    return 1


def _has_fractions(x: NDArray[Any]) -> bool:
    return x.dtype.kind == "f" and bool((x != np.trunc(x)).any())
