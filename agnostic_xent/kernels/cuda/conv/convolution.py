"""The kernels of conv2d: which of them runs, forward and backward."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ....core.operation import OPERATIONS, Pullback, current_mode
from ..toolchain.device import contiguous, register, xp
from ..toolchain.dtypes import code_of, given, stored, takes
from ..toolchain.launching import Kernel
from .arithmetic import DEPTH, WAYS_OF, tensor
from .cotangents import sums_of_channels
from .few import FEW, THREADS, few_kernel
from .gather import Geometry, Product, forward, geometry_of, in_range, input_gradient
from .parts import parts_of, write_sum
from .pixels import BIAS, RELU, VECTOR, Sizes, matrix_of
from .tensor import ROWS, staged_kernel
from .tiled import arithmetic_of, tiled_kernel
from .weight import weight_gradient

LEAST = 8  # tiles of rows in a part, of which the first and the last one cost more


def fits(x: Any, w: Any, b: Any, **options: Any) -> bool:
    """Return whether the numbers of these shapes are in the kernels' range."""
    return in_range(geometry_of(x, w, options))


def value(x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Return the convolution, with its bias and activation, pooled if the options say so."""
    y = convolved(geometry_of(x, w, options), x, w, b, options["activation"] == "relu")
    return OPERATIONS["max_pool2d"](y, window=2) if options["max_pool"] else y


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return what `value` returns, and its pullback."""
    g, relu = geometry_of(x, w, options), options["activation"] == "relu"
    y, way = convolved(g, x, w, b, relu), way_of(code_of(x))
    pooled, of_pool = y, None
    if options["max_pool"]:
        pooled, of_pool = OPERATIONS["max_pool2d"].vjp(y, window=2)

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx = dw = db = None
        dy = contiguous(of_pool(dy)[0] if of_pool else dy)
        if relu or (2 in wrt and b is not None):
            dy, db = sums_of_channels(dy, y if relu else None)
        if 0 in wrt:
            dx = product_of(g, dy, w, True)
        if 1 in wrt:
            dw = weight_gradient(g, contiguous(x), dy, way)
        return dx, dw, db if b is not None else None

    return pooled, pullback


def convolved(g: Geometry, x: Any, w: Any, b: Any, relu: bool) -> Any:
    """Return the convolution of x with its bias, through ReLU if ``relu``."""
    return product_of(g, contiguous(x), w, False, b, relu)


def product_of(
    g: Geometry, x: Any, w: Any, backward: bool, b: Any = None, relu: bool = False
) -> Any:
    """Return the convolution of contiguous x; backward, its input gradient of contiguous dy."""
    code, way = code_of(x), way_of(code_of(x))
    summed, made, (height, width) = g.channels, g.filters, g.output
    if backward:
        summed, made, (height, width) = g.filters, g.channels, g.image
    chosen = plan(code, way, summed, made)
    p = (input_gradient if backward else forward)(g, chosen.rows, chosen.by_tap)
    tiles, y = -(-made // chosen.columns), result(p, (height, width), x.dtype)
    ld, vector = chosen.columns * tiles, p.contiguous and height * width % 4 == 0
    matrix = matrix_of(contiguous(w), p, ld, chosen.rounds)
    grid = -(-p.pixels // chosen.pixels), tiles, p.groups * len(p.phases)
    steps, parts = p.depth // chosen.rows, 1
    if chosen.shared and p.complete:
        parts = parts_of(math.prod(grid), steps, LEAST)
    part_rows = -(-steps // parts) * chosen.rows
    finishing = RELU * relu | BIAS * (b is not None)
    sums, flags = y, finishing
    if parts > 1:
        sums, flags = xp.empty((parts, y.size), y.dtype), 0
    sizes = Sizes(
        p.rows, ld, len(p.phases), p.images, p.filters, flags | VECTOR * vector, parts, part_rows,
        y.size,
    )  # fmt: skip
    chosen.kernel(
        (*grid[:2], grid[2] * parts),
        stored(x), matrix, p.table, p.phases, given(b), stored(sums), *sizes, *p.places,
    )  # fmt: skip
    if parts > 1:
        write_sum(sums, y, b, finishing)
    return y


class Plan(NamedTuple):
    """A kernel of gathered products, and what it takes its matrices by."""

    kernel: Kernel
    pixels: int
    """Of a tile; ``columns`` likewise, and ``rows``, by which it goes on."""
    columns: int
    rows: int
    by_tap: bool
    rounds: bool = False
    """Whether weights are rounded to TF32."""
    shared: bool = True
    """Whether several blocks may share the sums of a tile."""


def plan(code: str, way: str, summed: int, made: int) -> Plan:
    """Return what makes so many channels out of ``summed`` channels.

    Up to 8 channels, a thread makes all of a pixel.
    """
    if made <= FEW:
        columns = 1 << (made - 1).bit_length()
        return Plan(few_kernel(code, columns), THREADS, columns, 1, False, shared=False)
    if made > 32 and way in ("tf32", "tf32x3"):
        by_tap, a = summed % ROWS == 0, tensor(way)
        return Plan(staged_kernel(a, by_tap), a.pixels, a.columns, ROWS, by_tap, way == "tf32")
    by_tap, a = summed % DEPTH == 0, arithmetic_of(code, way, made)
    kernel = tiled_kernel(code, a, by_tap)
    return Plan(kernel, a.pixels, a.columns, DEPTH, by_tap, shared=code in ("f4", "f8"))


def way_of(code: str) -> str:
    """Return how a dtype is multiplied: float32 exactly, unless the mode of kernels is another."""
    if code == "f4":
        return current_mode() if current_mode() in WAYS_OF[code] else "simt"
    return WAYS_OF[code][-1]


def result(p: Product, size: tuple[int, int], dtype: Any) -> Any:
    """Return a new array for what product p makes, zeros if that leaves something out."""
    empty = xp.empty if p.complete else xp.zeros
    return empty((p.images, p.groups * p.filters, *size), dtype)


register(
    "conv2d", value, vjp, takes,
    "stride", "padding", "dilation", "groups", "activation", "max_pool", fits=fits,
)  # fmt: skip
