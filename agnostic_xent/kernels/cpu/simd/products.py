"""Products of matrices, for the dense layers between convolutions.

NumPy's own product leaves its threads waiting busily for the next one, on the cores that the next
kernel needs: measured, every kernel behind one took twice its time. These share the threads of the
other kernels. A panel of the right side is packed, a block of its depth at a time, for the same
micro-kernel as in Winograd convolution; products are summed in order of depth.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ..toolchain.compiling import array_in, array_out, compiled_in_parts, threads, types
from ..toolchain.memory import empty
from .elementary import STRICT, njit
from .lines import line_of_all
from .tiles import matrix_tile
from .transposes import transpose
from .vectors import VECTOR_BYTES, Vectors, cgutils, emitted, lanes_of

ROWS, VECTORS = 6, 4 if VECTOR_BYTES == 64 else 2
"""Of a micro-kernel's product, whose vectors make a panel."""

NARROW_ROWS = 12
"""Of one where the right side has but a vector's columns, as the classes of a classifier."""

DEPTH = 256
"""Of a packed panel, which stays in the first-level cache or close to it."""

MOST_ROWS = 192
"""Rows that share a packed panel."""

_tile, _row = matrix_tile(ROWS, VECTORS), matrix_tile(1, VECTORS)
_turned_tile = matrix_tile(ROWS, VECTORS, transposed=True)
_turned_row = matrix_tile(1, VECTORS, transposed=True)
_narrow_tile, _narrow_row = matrix_tile(NARROW_ROWS, 1), matrix_tile(1, 1)


def _add_bias(v: Vectors, x: Any, bias: Any, y: Any, x0: Any, b0: Any, y0: Any, count: Any) -> None:
    """Emit ``y[j] = x[j] + bias[j]`` for j < count."""
    b, x, bias, y = v.builder, v.at(x, x0), v.at(bias, b0), v.at(y, y0)
    lanes = v.index(v.lanes)
    with cgutils.for_range(b, b.sdiv(b.add(count, v.index(v.lanes - 1)), lanes)) as loop:
        done = b.mul(loop.index, lanes)
        there = v.first(b.sub(count, done))
        start = v.load_masked(v.at(bias, done), there)
        v.store_masked(b.fadd(v.load(v.at(x, done)), start), v.at(y, done), there)


add_bias = emitted(3, _add_bias)


@njit(**STRICT)
def pack_panel(
    lanes: Any, b: Any, turned: Any, k0: Any, depth: Any, all_depth: Any, n0: Any, columns: Any,
    all_columns: Any, space: Any, s0: Any, panel: Any,
) -> None:  # fmt: skip
    """Copy b[k0 : k0 + depth, n0 : n0 + columns] to (depth, panel), with zeros behind."""
    if turned:  # b lies as (columns, depth)
        transpose(lanes, b, n0 * all_depth + k0, all_depth, columns, depth,
                  space, s0, panel, panel)  # fmt: skip
        written = -(-columns // lanes) * lanes
        for k in range(depth):
            for j in range(written, panel):
                space[s0 + k * panel + j] = 0
    else:
        for k in range(depth):
            source = (k0 + k) * all_columns + n0
            line_of_all(b, space, source, columns, 0, s0 + k * panel, panel)


@njit(**STRICT)
def multiply_rows(
    lanes: Any, a: Any, a0: Any, stride: Any, turned: Any, space: Any, s0: Any, c0: Any,
    panel: Any, rows: Any, depth: Any, add: Any,
) -> None:  # fmt: skip
    """Set or add to c (rows, panel) the product of rows of a with a packed panel."""
    narrow = panel == lanes
    step = NARROW_ROWS if narrow else ROWS
    whole = rows // step * step
    for i in range(0, rows):
        if i >= whole or i % step == 0:
            target = c0 + i * panel
            if turned:
                if i < whole:
                    _turned_tile(a, space, space, a0 + i, stride, s0, panel, target, panel,
                                 depth, add)  # fmt: skip
                else:
                    _turned_row(a, space, space, a0 + i, stride, s0, panel, target, panel,
                                depth, add)  # fmt: skip
            elif narrow:
                if i < whole:
                    _narrow_tile(a, space, space, a0 + i * stride, stride, s0, panel, target,
                                 panel, depth, add)  # fmt: skip
                else:
                    _narrow_row(a, space, space, a0 + i * stride, stride, s0, panel, target,
                                panel, depth, add)  # fmt: skip
            elif i < whole:
                _tile(a, space, space, a0 + i * stride, stride, s0, panel, target, panel,
                      depth, add)  # fmt: skip
            else:
                _row(a, space, space, a0 + i * stride, stride, s0, panel, target, panel,
                     depth, add)  # fmt: skip


def multiply(
    a: Any,
    b: Any,
    bias: Any,
    c: Any,
    shape: Any,
    turned: Any,
    space: Any,
    panel: Any,
    block: Any,
    lanes: Any,
    parts: Any,
    part: Any,
) -> None:
    """Set c (rows, columns) = a @ b + bias, all flat; ``turned``: a and b lie transposed."""
    rows, columns, depth = shape
    blocks = -(-rows // block)
    tasks = -(-columns // panel) * blocks
    s0 = part * (space.size // parts)
    c0 = s0 + DEPTH * panel
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        n0, i0 = task // blocks * panel, task % blocks * block
        ours, there = min(block, rows - i0), min(panel, columns - n0)
        for k0 in range(0, depth, DEPTH):
            deep = min(DEPTH, depth - k0)
            pack_panel(lanes, b, turned[1], k0, deep, depth, n0, there, columns,
                       space, s0, panel)  # fmt: skip
            a0, stride = (k0 * rows + i0, rows) if turned[0] else (i0 * depth + k0, depth)
            multiply_rows(lanes, a, a0, stride, turned[0], space, s0, c0, panel, ours, deep,
                          k0 > 0)  # fmt: skip
        for i in range(ours):
            add_bias(space, bias, c, c0 + i * panel, n0, (i0 + i) * columns + n0, there)


def product(a: Any, b: Any, *, turned: tuple[bool, bool] = (False, False), bias: Any = None) -> Any:
    """Return a @ b + bias of two matrices, of which those that are turned are transposed first."""
    rows, depth = a.shape[::-1] if turned[0] else a.shape
    columns = b.shape[0] if turned[1] else b.shape[1]
    dtype, lanes, parts = a.dtype, lanes_of(a.dtype), threads()
    narrow = columns <= lanes and not turned[0]
    panel = lanes if narrow else VECTORS * lanes
    c = empty((rows, columns), dtype)
    # every thread has about two tasks; how they are cut makes no difference to any sum
    blocks = -(-2 * parts // -(-columns // panel))
    block = min(MOST_ROWS, -(-rows // blocks))
    space = empty((parts * (DEPTH + block) * panel + panel,), dtype)
    bias = np.zeros(columns, dtype) if bias is None else np.ascontiguousarray(bias)
    a, b = (np.ascontiguousarray(m).reshape(-1) for m in (a, b))
    shape = rows, columns, depth
    loop(dtype)(a, b, bias, c.reshape(-1), shape, turned, space, panel, block, lanes)
    return c


@functools.cache
def loop(dtype: Any) -> Any:
    """Return the compiled loops for a dtype."""
    kind = types.float32 if dtype == np.float32 else types.float64
    read, write, integer = array_in(kind, 1), array_out(kind, 1), types.int64
    signature = (
        read, read, read, write, types.UniTuple(integer, 3), types.UniTuple(types.boolean, 2),
        write, integer, integer, integer,
    )  # fmt: skip
    return compiled_in_parts(multiply, signature)
