"""Images made of the pixels of others, moved along rows and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.arrays import Array, array_namespace, device
from ..core.operation import Routine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@Routine
def moved_pixels(images: list[Array], places: list[NDArray[np.int64]]) -> Array:
    """Return images (N, C, OH, OW) of the pixels of others.

    Parameters
    ----------
    images : list of one array, shape (N, C, H, W)
        Of any dtype.
    places : list of two NumPy arrays of int64, shapes (N, OH) and (N, OW)
        The rows and columns that pixels come from, 0 to H and 0 to W: the last stand for outside,
        where zeros are.
    """
    import numpy as np

    (x,), (rows, columns) = images, places
    xp, on = array_namespace(x), device(x)
    n, c, h, w = x.shape
    x = xp.concat([x, xp.zeros((n, c, h, 1), dtype=x.dtype, device=on)], axis=3)
    x = xp.concat([x, xp.zeros((n, c, 1, w + 1), dtype=x.dtype, device=on)], axis=2)
    image = np.arange(n * c).reshape(n, c, 1) * (h + 1)
    starts = (image + rows[:, None]) * (w + 1)  # (N, C, OH)
    starts = xp.asarray(starts[..., None], device=on)
    pixels = starts + xp.asarray(columns[:, None, None], device=on)  # (N, C, OH, OW)
    y = xp.take(xp.reshape(x, (-1,)), xp.reshape(pixels, (-1,)), axis=0)
    return xp.reshape(y, (n, c, rows.shape[1], columns.shape[1]))
