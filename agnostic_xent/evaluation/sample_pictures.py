"""Samples as pictures: images, signals as curves, volumes as rows of slices."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SLICES = 6
"""Of a volume; so many are shown at most."""
POINTS = 300
"""Of a curve; a longer signal shows every second number, or fewer."""
WIDTH, HEIGHT = 300, 120
"""Of a picture of curves."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#222222")
"""Of channels, apart for colour-blind eyes too."""


def address(kind: str, content: bytes) -> str:
    """Return the content of a picture as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def picture(sample: NDArray[Any]) -> str:
    """Return an image (C, H, W), a signal (C, L) or a volume (C, D, H, W) as an address.

    Three channels of pixels are colours, else the first one is shown in gray, from its least to its
    greatest number. A signal has a curve for each channel.
    """
    if sample.ndim == 2:
        return _svg(sample)
    pixels = _pixels(sample)
    return _png(pixels, "gray" if pixels.ndim == 2 else None)


def reason(found: NDArray[np.floating]) -> str:
    """Return what in a sample spoke for a class, of its shape: red for it, blue against it."""
    if found.ndim == 2:  # a row for each channel, as high as the curves
        rows = np.repeat(found, max(1, round(found.shape[1] * HEIGHT / WIDTH / len(found))), axis=0)
        return signed(rows)
    together = _slices(found).sum(axis=0)
    return signed(together if together.ndim == 2 else _in_a_row(together, 0.0))


def signed(numbers: NDArray[np.floating], limit: float | None = None) -> str:
    """Return numbers in blue below 0 and in red above, by default as far as they go."""
    limit = float(np.abs(numbers).max()) or 1.0 if limit is None else limit
    return _png(numbers, "RdBu_r", (-limit, limit))


def weights(w: NDArray[np.floating], limit: float) -> str:
    """Return a filter (C, ...), of numbers from -limit to limit: in colours where it is of colours.

    Else its channels are below each other, in blue below 0 and in red above.
    """
    if of_colors(w):
        return _png(0.5 + w.transpose(1, 2, 0) / (2 * limit), None)  # (KH, KW, C)
    return signed(w.reshape(-1, w.shape[-1]), limit)  # (C * KH, KW), (C, KL) or (C * KD * KH, KW)


def of_colors(w: NDArray[np.floating]) -> bool:
    """Return whether a filter (C, KH, KW) is of red, green and blue."""
    return w.ndim == 3 and len(w) == 3


def draw(axes: Axes, sample: NDArray[Any]) -> None:
    """Draw a sample, as `picture` shows it."""
    if sample.ndim == 2:
        for color, (x, y) in zip(_colours(), _curves(sample), strict=False):
            axes.plot(x, y, color=color, lw=1)
    else:
        axes.imshow(_pixels(sample), cmap="gray")


def _pixels(sample: NDArray[Any]) -> NDArray[Any]:
    """Return pixels (H, W), or (H, W, 3) from 0 to 1."""
    sample = _slices(sample)
    shown = sample[0]
    if len(sample) == 3:
        low, high = float(np.min(sample)), float(np.max(sample))
        shown = (np.moveaxis(sample, 0, -1) - low) / ((high - low) or 1.0)
    return shown if sample.ndim == 3 else _in_a_row(shown, shown.max())


def _slices(sample: NDArray[Any]) -> NDArray[Any]:
    """Return the slices of a volume (C, D, H, W) that are shown, or an image as it is."""
    if sample.ndim == 3:
        return sample
    chosen = np.linspace(0, sample.shape[1] - 1, SLICES).round().astype(int)
    return sample[:, np.unique(chosen)]


def _in_a_row(volume: NDArray[Any], between: float) -> NDArray[Any]:
    """Return the slices of (D, H, W, ...) side by side, with a line between them."""
    some = np.moveaxis(volume, 0, 1)  # (H, D, W, ...)
    line = np.full((*some.shape[:2], 1, *some.shape[3:]), between, some.dtype)
    lined = np.concatenate([some, line], axis=2)
    return lined.reshape(len(some), -1, *some.shape[3:])[:, :-1]  # (H, D * (W + 1) - 1, ...)


def _curves(signal: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return places and numbers of the curve of each channel, at most `POINTS` of them."""
    step = -(-signal.shape[1] // POINTS)
    return [(np.arange(0, signal.shape[1], step), channel[::step]) for channel in signal]


def _colours() -> Iterator[str]:
    while True:
        yield from COLOURS


def _svg(signal: NDArray[Any]) -> str:
    """Return curves on one scale, from the least to the greatest number."""
    low, high = float(np.min(signal)), float(np.max(signal))
    down, right = (HEIGHT - 4) / ((high - low) or 1.0), WIDTH / max(1, signal.shape[1] - 1)
    lines = []
    for color, (x, y) in zip(_colours(), _curves(signal), strict=False):
        places = zip(x * right, 2 + (high - y.astype(float)) * down, strict=True)
        points = " ".join(f"{a:.4g},{b:.4g}" for a, b in places)
        lines.append(f'<polyline points="{points}" stroke="{color}"/>')
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}"><g fill="none" stroke-width="1">{"".join(lines)}</g></svg>'
    )
    return address("svg+xml", text.encode())


def _png(image: NDArray[np.floating], colors: str | None, limits: Any = (None, None)) -> str:
    from matplotlib.image import imsave

    file = io.BytesIO()
    imsave(file, image, cmap=colors, format="png", vmin=limits[0], vmax=limits[1])
    return address("png", file.getvalue())
