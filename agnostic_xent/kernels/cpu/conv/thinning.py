"""A 1 x 1 convolution with a stride: one without, of the pixels that it meets."""

from __future__ import annotations

from typing import Any

from ..simd.elementary import borrowed, plain
from ..simd.elements import SMALL
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.memory import empty
from ..toolchain.signatures import FLOATS, Read3, Write3
from ..toolchain.threads import PIECES
from .geometry import Geometry


def is_thin(g: Geometry) -> bool:
    """Return whether a convolution leaves out pixels, and meets each of the others alone."""
    return g.window == (1, 1) and g.padding == ((0, 0), (0, 0)) and g.stride != (1, 1)


def without_stride(g: Geometry) -> Geometry:
    """Return the geometry of the convolution of what is left."""
    height, width = g.output
    return g._replace(height=height, width=width, stride=(1, 1))


def thinned(g: Geometry, x: Any) -> Any:
    """Return the pixels that a convolution meets."""
    y = empty((*x.shape[:2], *g.output), x.dtype)
    rows, columns = g.stride
    y[...] = x[:, :, ::rows, ::columns]
    return y


def spread(g: Geometry, dy: Any) -> Any:
    """Return the pixels' gradient, with 0 for those that were left out."""
    dx = empty((*dy.shape[:2], g.height, g.width), dy.dtype)
    planes = (z.reshape(-1, *z.shape[2:]) for z in (dy, dx))
    put[dy.dtype](*planes, *g.stride, alone=dx.size < SMALL)
    return dx


# --- loops ---------------------------------------------------------------------------------------


@plain
def put_row(thinned: Any, step: Any, row: Any) -> None:
    """Write every ``step``-th pixel of a row, and 0 to the others."""
    zero = row.dtype.type(0)
    if step == 2:
        for j in range(row.size // 2):
            row[2 * j], row[2 * j + 1] = thinned[j], zero
        if row.size % 2:
            row[row.size - 1] = thinned[thinned.size - 1]
    else:
        for j in range(row.size):
            row[j] = zero
        for j in range(thinned.size):
            row[j * step] = thinned[j]


@compiled_in_parts(PIECES, kind=FLOATS)
def put(y: Read3, x: Write3, row_step: int, column_step: int, parts: int, part: int) -> None:
    """Write every so-many-th pixel of every so-many-th row of planes, and 0 to the others."""
    x, y, planes = borrowed(x), borrowed(y), x.shape[0]
    for p in range(planes * part // parts, planes * (part + 1) // parts):
        for r in range(x.shape[1]):
            if r % row_step == 0:
                put_row(y[p, r // row_step], column_step, x[p, r])
            else:
                x[p, r] = 0
