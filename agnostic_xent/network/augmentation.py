"""Layers that change images at random in training alone: flips, shifts, crops and cut-outs.

Each sample has draws of its own. They are made on the host, a few numbers a sample, so that one
seed gives the same images, to the bit, on every library; pixels are moved where the images are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..core.arrays import Array, array_namespace, constant, device
from ..core.checks import check_choice, check_ndim, generator, namespace
from ..core.geometry import Pair, PairLike, as_sizes
from ..operations.pixels import Places, Way, moved
from .layers import Layer, Pass, WithPullback
from .onnx_graph import OnnxGraph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Cutout", "RandomCrop", "RandomFlip", "RandomShift"]


def _drawn(rng: Any, samples: int, count: Places) -> Places:
    """Return for each sample an integer below each of ``count``, (N, len(count))."""
    import numpy as np

    drawn: Places = np.floor(rng.random((samples, len(count))) * count).astype("int64")
    return drawn


class _Moving(Layer):
    """A layer that moves pixels: it has to define `way`.

    Several in a row of a `Sequential` move them once.
    """

    def way(self, rng: np.random.Generator | None, samples: int, size: Pair) -> Way | None:
        """Return where pixels come from, of images of a size; None where none moves.

        Without ``rng`` it is that of inference.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define way")

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        check_images(x)
        size = int(x.shape[2]), int(x.shape[3])
        way = self.way(generator(how.rng) if how.train else None, int(x.shape[0]), size)
        if way is None:
            return x, lambda dy: (dy if how.input_grad else None, {})
        return moved(x, way), lambda dy: (
            moved(dy, way.back(size)) if how.input_grad else None,
            {},
        )

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return x


def _pair(name: str, value: Any, minimum: int = 1) -> Pair:
    height, width = as_sizes(name, value, 2, minimum)
    return height, width


def check_images(x: Array) -> None:
    """Raise an error unless x is an array of images."""
    namespace(x=x)
    check_ndim("x", x, 4, "(N, C, H, W)")


@dataclass(frozen=True)
class _Both(_Moving):
    """Two layers that move pixels, one after the other."""

    first: _Moving
    second: _Moving

    def way(self, rng: np.random.Generator | None, samples: int, size: Pair) -> Way | None:
        first = self.first.way(rng, samples, size)
        if first is None:
            return self.second.way(rng, samples, size)
        second = self.second.way(rng, samples, first.size)
        return first if second is None else second.after(first)


@dataclass(frozen=True)
class RandomFlip(_Moving):
    """Mirror half of the images, in training alone.

    For what is the same in a mirror: photos and clothes are, digits and letters are not.

    Parameters
    ----------
    horizontal, vertical : bool
        Whether left and right change places, and whether top and bottom do. Each does so with a
        probability of 1/2.

    Examples
    --------
    >>> x = xp.reshape(xp.asarray([1.0, 2.0] * 4), (4, 1, 1, 2))
    >>> y, _ = RandomFlip().vjp({}, x, rng=0)
    >>> [int(row[0, 0, 0]) for row in to_numpy(y)]
    [2, 2, 1, 1]
    """

    horizontal: bool = True
    vertical: bool = False

    def __post_init__(self) -> None:
        for name in ("horizontal", "vertical"):
            check_choice(name, getattr(self, name), (True, False))
        if not (self.horizontal or self.vertical):
            raise ValueError("horizontal or vertical must be True, got False for both")

    def way(self, rng: np.random.Generator | None, samples: int, size: Pair) -> Way | None:
        """Return where pixels come from: each axis as it is, or from its end."""
        if rng is None:
            return None
        import numpy as np

        turned = rng.random((samples, 2)) < 0.5
        turned &= [self.vertical, self.horizontal]
        start = turned * (np.asarray(size) - 1)
        return Way(start, 1 - 2 * turned, np.zeros_like(start), np.full_like(start, size), size)


@dataclass(frozen=True)
class RandomShift(_Moving):
    """Shift images by some pixels, in training alone; zeros come in.

    Behind `Standardize` these are the mean of the images.

    Parameters
    ----------
    pixels : int or pair of int
        The most, of both axes or as (vertical, horizontal). Each is drawn from ``-pixels`` to
        ``pixels``, all of them as likely.

    Examples
    --------
    >>> x = xp.reshape(xp.asarray([1.0, 2.0, 3.0] * 3), (3, 1, 1, 3))
    >>> y, _ = RandomShift((0, 1)).vjp({}, x, rng=0)
    >>> to_numpy(y)[:, 0, 0, :].tolist()
    [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0], [2.0, 3.0, 0.0]]
    """

    pixels: PairLike

    def __post_init__(self) -> None:
        _pair("pixels", self.pixels, minimum=0)

    def way(self, rng: np.random.Generator | None, samples: int, size: Pair) -> Way | None:
        """Return where pixels come from: so many rows and columns away."""
        if rng is None:
            return None
        import numpy as np

        most = np.asarray(_pair("pixels", self.pixels, minimum=0))
        away = _drawn(rng, samples, 2 * most + 1) - most
        first, stop = np.maximum(-away, 0), np.minimum(size - away, size)
        return Way(away, np.ones_like(away), first, np.maximum(first, stop), size)


@dataclass(frozen=True)
class RandomCrop(_Moving):
    """Cut a part out of images: at a random place in training, the middle in inference.

    Parameters
    ----------
    window : int or pair of int
        Height and width of the part.

    Examples
    --------
    >>> x = xp.reshape(xp.arange(6.0), (1, 1, 1, 6))
    >>> RandomCrop((1, 4))({}, x)[0, 0, 0, :].tolist()
    [1.0, 2.0, 3.0, 4.0]
    """

    window: PairLike

    def __post_init__(self) -> None:
        _pair("window", self.window)

    def way(self, rng: np.random.Generator | None, samples: int, size: Pair) -> Way:
        """Return where pixels come from: a window within the image."""
        import numpy as np

        window, spare = _pair("window", self.window), self._spare(size)
        if rng is None:
            start = np.broadcast_to(spare // 2, (samples, 2))
        else:
            start = _drawn(rng, samples, spare + 1)
        return Way.within(start, np.ones_like(start), size, window)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        start = self._spare(graph.shapes[x][1:]) // 2
        end = start + _pair("window", self.window)
        bounds = {"starts": start.tolist(), "ends": end.tolist(), "axes": [2, 3]}
        return graph.node("Slice", x, *(graph.constant(*bound) for bound in bounds.items()))

    def _spare(self, size: Any) -> Places:
        """Return how many rows and columns are cut away."""
        import numpy as np

        window = _pair("window", self.window)
        spare = [n - k for n, k in zip(size, window, strict=True)]
        if min(spare) < 0:
            raise ValueError(f"window must fit into images of {tuple(size)} pixels, got {window}")
        return np.asarray(spare)


def moved_at_once(before: Layer, layer: Layer) -> Layer | None:
    """Return a layer that does what two do, one after the other, if both move pixels."""
    if type(before) in MOVING and type(layer) in MOVING:
        return _Both(before, layer)  # type: ignore[arg-type]
    return None


MOVING = (RandomFlip, RandomShift, RandomCrop, _Both)


@dataclass(frozen=True)
class Cutout(Layer):
    """Set a rectangle of each image to 0, in training alone.

    Its middle is any pixel, so that a part of it may lie outside. Behind `Standardize` 0 is the
    mean of the images.

    Parameters
    ----------
    window : int or pair of int
        Height and width of the rectangle.

    Examples
    --------
    >>> y, _ = Cutout(2).vjp({}, xp.ones((1, 1, 4, 4)), rng=0)
    >>> int(xp.count_nonzero(y))
    12

    References
    ----------
    DeVries and Taylor, Improved regularization of convolutional neural networks with cutout,
    arXiv:1708.04552.
    """

    window: PairLike

    def __post_init__(self) -> None:
        _pair("window", self.window)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        check_images(x)
        if not how.train:
            return x, lambda dy: (dy if how.input_grad else None, {})
        xp = array_namespace(x)
        cut = xp.asarray(self._cut(generator(how.rng), *x.shape), device=device(x))
        return _without(x, cut), lambda dy: (_without(dy, cut) if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return x

    def _cut(self, rng: np.random.Generator, samples: int, _: int, *size: int) -> NDArray[np.bool_]:
        """Return which pixels are cut out, (N, 1, H, W)."""
        import numpy as np

        window = np.asarray(_pair("window", self.window))
        start = _drawn(rng, samples, np.asarray(size)) - window // 2
        rows, columns = (np.arange(n) - start[:, i, None] for i, n in enumerate(size))
        rows, columns = (rows >= 0) & (rows < window[0]), (columns >= 0) & (columns < window[1])
        cut: NDArray[np.bool_] = (rows[:, :, None] & columns[:, None, :])[:, None]
        return cut


def _without(x: Array, cut: Array) -> Array:
    return array_namespace(x).where(cut, constant(0, x), x)
