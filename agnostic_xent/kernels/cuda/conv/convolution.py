"""The kernels of conv2d: which of them runs, forward and backward."""

from __future__ import annotations

from typing import Any, NamedTuple

from ....core.operation import OPERATIONS, Pullback, current_mode
from ..toolchain.device import contiguous, register, xp
from ..toolchain.dtypes import WIDE, code_of, given, stored, takes
from ..toolchain.launching import Kernel
from .arithmetic import DEPTH, WAYS_OF, simt, tensor
from .cotangents import sums_of_channels
from .few import FEW, few_kernel
from .gather import Geometry, Product, forward, geometry_of, in_range, input_gradient
from .pixels import BIAS, RELU, VECTOR, Sizes, matrix_of
from .tensor import ROWS, staged_kernel
from .tiled import PIXELS, tiled_kernel
from .weight import BLOCKS, weight_gradient


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
    chosen = plan(code, way, summed, made, g.groups * g.images * height * width)
    p = (input_gradient if backward else forward)(g, chosen.rows, chosen.by_tap)
    tiles, y = -(-made // chosen.columns), result(p, (height, width), x.dtype)
    ld, vector = chosen.columns * tiles, p.contiguous and height * width % 4 == 0
    matrix = matrix_of(contiguous(w), p, ld, chosen.rounds)
    flags = RELU * relu | BIAS * (b is not None) | VECTOR * vector
    sizes = Sizes(p.rows, ld, len(p.phases), p.images, p.filters, flags)
    chosen.kernel(
        (-(-p.pixels // PIXELS), tiles, p.groups * len(p.phases)),
        stored(x), matrix, p.table, p.phases, given(b), stored(y), *sizes, *p.places,
    )  # fmt: skip
    return y


class Plan(NamedTuple):
    """A kernel of gathered products, and what it takes its matrices by."""

    kernel: Kernel
    columns: int
    rows: int
    by_tap: bool
    rounds: bool = False
    """Whether weights are rounded to TF32."""


def plan(code: str, way: str, summed: int, made: int, pixels: int) -> Plan:
    """Return what makes so many channels of so many pixels out of ``summed`` channels.

    Up to 8 channels, a thread makes all of a pixel. Else tiles of 64 multiply most for what they
    read; of 32 where there are no more, where 64 would leave a GPU idle, and in float64.
    """
    if made <= FEW:
        columns = 1 << (made - 1).bit_length()
        return Plan(few_kernel(code, columns), columns, 1, False)
    by_tap = summed % DEPTH == 0
    if made > 32 and way == "rounded":
        return Plan(tiled_kernel(code, tensor(way), by_tap), 64, DEPTH, by_tap)
    if made > 32 and way != "simt":
        by_tap = summed % ROWS == 0
        return Plan(staged_kernel(tensor(way), by_tap), 64, ROWS, by_tap, way == "tf32")
    blocks = -(-pixels // PIXELS) * -(-made // 64)
    columns = 32 if made <= 32 or code == "f8" or blocks < BLOCKS // 4 else 64
    a = simt(WIDE[code], 8, columns // 8)
    return Plan(tiled_kernel(code, a, by_tap), columns, DEPTH, by_tap)


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
