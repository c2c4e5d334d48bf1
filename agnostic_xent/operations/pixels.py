"""Images made of the pixels of others: moved along rows and columns, and turned round."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..core.arrays import Array, array_namespace, device
from ..core.geometry import Pair
from ..core.operation import Routine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Places: TypeAlias = "NDArray[np.int64]"
"""Of each sample, one for the rows and one for the columns: shape (N, 2)."""


class Way(NamedTuple):
    """Where the pixels of a batch come from: row or column i from ``start + step * i``."""

    start: Places
    step: Places
    """1 or -1."""
    first: Places
    stop: Places
    """Those from ``first`` to before ``stop`` come from there; the others are zeros."""
    size: Pair
    """Of the images that are made."""

    @classmethod
    def within(cls, start: Places, step: Places, before: Pair, size: Pair) -> Way:
        """Return the way from images of the size ``before``, around which zeros are."""
        import numpy as np

        bounds = _bounds(start, step, np.zeros_like(start), np.asarray(before))
        return cls(start, step, *_both(bounds, (np.zeros_like(start), np.asarray(size))), size)

    def after(self, way: Way) -> Way:
        """Return in one what another way does, and this one after it."""
        bounds = _both(_bounds(self.start, self.step, way.first, way.stop), self[2:4])
        start = way.start + way.step * self.start
        return Way(start, way.step * self.step, *bounds, self.size)

    def back(self, before: Pair) -> Way:
        """Return the way back to images of the size ``before``."""
        start = -self.step * self.start
        return Way(start, self.step, *_bounds(start, self.step, self.first, self.stop), before)


Bounds: TypeAlias = tuple[Places, Places]


def _bounds(start: Places, step: Places, low: Places, high: Places) -> Bounds:
    """Return for which i ``start + step * i`` is from low to before high."""
    import numpy as np

    one, other = step * (low - start), step * (high - start)
    back = step < 0
    return np.where(back, other + 1, one), np.where(back, one + 1, other)


def _both(some: Bounds, others: Bounds) -> Bounds:
    """Return the bounds of what lies in both; the second is not below the first."""
    import numpy as np

    first = np.maximum(some[0], others[0])
    return first, np.maximum(first, np.minimum(some[1], others[1]))


def moved(x: Array, way: Way) -> Array:
    """Return images (N, C, OH, OW) of the pixels of x (N, C, H, W)."""
    return moved_pixels([x], way[:4], size=way.size)


@Routine
def moved_pixels(images: list[Array], ways: tuple[Places, ...], *, size: Pair) -> Array:
    """Return images of a size, made of the pixels of others.

    Parameters
    ----------
    images : list of one array, shape (N, C, H, W)
        Of any dtype.
    ways : four NumPy arrays
        Of a `Way`, which stays within the images.
    size : pair of int
        (OH, OW).
    """
    import numpy as np

    (x,), (oh, ow) = images, size
    xp, on = array_namespace(x), device(x)
    n, c, h, w = x.shape
    x = xp.concat([x, xp.zeros((n, c, h, 1), dtype=x.dtype, device=on)], axis=3)
    x = xp.concat([x, xp.zeros((n, c, 1, w + 1), dtype=x.dtype, device=on)], axis=2)
    rows, columns = (_places(ways, i, out, (h, w)[i]) for i, out in enumerate(size))
    image = np.arange(n * c).reshape(n, c, 1) * (h + 1)
    starts = (image + rows[:, None]) * (w + 1)  # (N, C, OH)
    starts = xp.asarray(starts[..., None], device=on)
    pixels = starts + xp.asarray(columns[:, None, None], device=on)  # (N, C, OH, OW)
    y = xp.take(xp.reshape(x, (-1,)), xp.reshape(pixels, (-1,)), axis=0)
    return xp.reshape(y, (n, c, oh, ow))


def _places(ways: tuple[Places, ...], axis: int, out: int, outside: int) -> Places:
    """Return where the rows, or columns, of each sample come from, (N, out)."""
    import numpy as np

    start, step, first, stop = (part[:, axis, None] for part in ways)
    i = np.arange(out)
    return np.where((i >= first) & (i < stop), start + step * i, outside)
