"""The kernels of conv2d: which of them runs, forward and backward."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

from ....core.operation import OPERATIONS, Pullback, current_mode
from ..toolchain.device import SIMULATED, contiguous, register, xp
from ..toolchain.dtypes import code_of, given, stored, takes
from ..toolchain.launching import Kernel
from .arithmetic import DEPTH, WAYS_OF, tensor
from .cotangents import sums_of_channels
from .few import FEW, THREADS, few_kernel
from .gather import Geometry, Product, forward, geometry_of, in_range, input_gradient
from .parts import parts_of, write_sum
from .pixels import BIAS, RELU, VECTOR, Filling, Sizes, matrices_of
from .tensor import ROWS, staged_kernel
from .tiled import arithmetic_of, tiled_kernel
from .weight import weight_gradient

LEAST = 8  # tiles of rows in a part, of which the first and the last one cost more


def fits(x: Any, w: Any, b: Any, **options: Any) -> bool:
    """Return whether the numbers of these shapes are in the kernels' range."""
    return in_range(geometry_of(x, w, options))


def value(x: Any, w: Any, b: Any, **options: Any) -> Any:
    """Return the convolution, with its bias and activation, pooled if the options say so."""
    forth = ready(geometry_of(x, w, options), code_of(x), False)
    matrix, _ = matrices_of(contiguous(w), forth)
    y = product_of(forth, contiguous(x), matrix, b, options["activation"] == "relu")
    return OPERATIONS["max_pool2d"](y, window=2) if options["max_pool"] else y


def vjp(x: Any, w: Any, b: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return what `value` returns, and its pullback."""
    g, code, relu = geometry_of(x, w, options), code_of(x), options["activation"] == "relu"
    forth, way = ready(g, code, False), way_of(code)
    back = ready(g, code, True) if 0 in wrt else None
    matrix, matrix_back = matrices_of(contiguous(w), forth, back)
    y = product_of(forth, contiguous(x), matrix, b, relu)
    pooled, of_pool = y, None
    if options["max_pool"]:
        pooled, of_pool = OPERATIONS["max_pool2d"].vjp(y, window=2)

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx = dw = db = None
        dy = contiguous(of_pool(dy)[0] if of_pool else dy)
        if relu or (2 in wrt and b is not None):
            dy, db = sums_of_channels(dy, y if relu else None)
        if back is not None:
            dx = product_of(back, dy, matrix_back)
        if 1 in wrt:
            dw = weight_gradient(g, contiguous(x), dy, way)
        return dx, dw, db if b is not None else None

    return pooled, pullback


def product_of(r: Ready, x: Any, matrix: Any, b: Any = None, relu: bool = False) -> Any:
    """Return the product that is ready, of contiguous x, or dy backward, and a matrix."""
    p, y = r.product, result(r.product, r.size, x.dtype)
    flags, written, vector = RELU * relu | BIAS * (b is not None), y, VECTOR * r.vector
    if r.parts > 1:
        written = xp.empty((r.parts, y.size), y.dtype)
    sizes = Sizes(
        p.rows, r.filling.ld, len(p.phases), p.images, p.filters,
        vector if r.parts > 1 else vector | flags, r.parts, r.part_rows, y.size,
    )  # fmt: skip
    r.plan.kernel(
        r.grid, stored(x), matrix, p.table, p.phases, given(b), stored(written), *sizes, *p.places
    )
    if r.parts > 1:
        write_sum(written, y, b, flags)
    return y


class Ready(NamedTuple):
    """All that is known of a product before its arrays are."""

    plan: Plan
    product: Product
    filling: Filling
    weight_group: int
    size: tuple[int, int]
    """Of the images that it makes."""
    grid: tuple[int, int, int]
    parts: int
    part_rows: int
    vector: bool
    """Whether four pixels are written at a time."""


def ready(g: Geometry, code: str, backward: bool) -> Ready:
    """Return the product that is the convolution; or its input gradient, backward."""
    return _ready(g, code, way_of(code), backward, None if SIMULATED else xp.cuda.Device().id)


@functools.lru_cache(maxsize=512)
def _ready(g: Geometry, code: str, way: str, backward: bool, device: Any) -> Ready:
    summed, made, (height, width) = g.channels, g.filters, g.output
    if backward:
        summed, made, (height, width) = g.filters, g.channels, g.image
    chosen = plan(code, way, summed, made)
    p = (input_gradient if backward else forward)(g, chosen.rows, chosen.by_tap)
    tiles = -(-made // chosen.columns)
    grid = -(-p.pixels // chosen.pixels), tiles, p.groups * len(p.phases)
    steps, parts = p.depth // chosen.rows, 1
    if chosen.shared and p.complete:
        parts = parts_of(math.prod(grid), steps, LEAST)
    ld = chosen.columns * tiles
    return Ready(
        chosen, p,
        Filling(p.groups * p.rows * ld, p.rows, ld, p.filters, p.weight_step, chosen.rounds),
        weight_group=g.filters * g.channels * g.taps, size=(height, width),
        grid=(*grid[:2], grid[2] * parts), parts=parts, part_rows=-(-steps // parts) * chosen.rows,
        vector=p.contiguous and height * width % 4 == 0,
    )  # fmt: skip


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
