"""Products of matrices, for the dense layers between convolutions.

NumPy's own product leaves its threads waiting busily for the next one, on the cores that the next
kernel needs: measured, every kernel behind one took twice its time. These share the threads of the
other kernels. A panel of the right side is packed, a block of its depth at a time, for the same
micro-kernel as in Winograd convolution; products are summed in order of depth.
"""

from __future__ import annotations

import functools
from typing import Annotated, Any, NamedTuple

import numpy as np

from ..toolchain.arguments import flat
from ..toolchain.compiling import compiled_in_parts, shared
from ..toolchain.memory import empty, scratch
from ..toolchain.signatures import FLOATS, Read1, Unnamed, Write1
from ..toolchain.threads import PIECES, is_recorded, threads
from .dots import inner_products
from .elementary import plain
from .lines import copy_lines
from .tiles import matrix_tile
from .transposes import transpose
from .vectors import VECTOR_BYTES, Vectors, cgutils, emitted, lanes_of

ROWS, VECTORS = 6, 4 if VECTOR_BYTES == 64 else 2
"""Of a micro-kernel's product, whose vectors make a panel."""

NARROW_ROWS = 12
"""Of one where the right side has but a vector's columns, as the classes of a classifier."""

DEPTH = 256
"""Of a packed panel, which stays in the first-level cache or close to it."""

FEW_ROWS = 4
"""Rows up to which nothing is packed where inner products do."""

MOST_ROWS = 192
"""Rows that share a packed panel."""


SMALL = 2**20
"""Multiplications below which one thread is faster than waking the others."""


class Product(NamedTuple):
    """Sizes of a product of matrices, c (rows, columns) = a @ b, and how it is cut."""

    rows: int
    columns: int
    depth: int
    a_turned: bool
    """Whether a lies transposed."""
    b_turned: bool
    panel: int
    """Columns of a packed panel, whole vectors."""
    block: int
    """Rows that share a packed panel."""


ProductIn = Annotated[Any, Unnamed(Product)]


@shared
def scratch_of(t: Product) -> int:
    """Return the numbers of a thread's memory: a packed panel, and rows of its product."""
    return (DEPTH + t.block + 1) * t.panel


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


@plain
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
        source = k0 * all_columns + n0
        copy_lines(b, space, source, all_columns, depth, columns, 0, s0, panel)


@plain
def multiply_rows(
    lanes: Any, a: Any, a0: Any, stride: Any, turned: Any, right: Any, r0: Any, space: Any,
    c0: Any, panel: Any, rows: Any, depth: Any, add: Any,
) -> None:  # fmt: skip
    """Set c (rows, panel) to the product of rows of a with a packed panel, or add that."""
    narrow = panel == lanes
    step = NARROW_ROWS if narrow else ROWS
    whole = rows // step * step
    for i in range(0, rows):
        if i >= whole or i % step == 0:
            target = c0 + i * panel
            if turned:
                if i < whole:
                    _turned_tile(a, right, space, a0 + i, stride, r0, panel, target, panel,
                                 depth, add)  # fmt: skip
                else:
                    _turned_row(a, right, space, a0 + i, stride, r0, panel, target, panel,
                                depth, add)  # fmt: skip
            elif narrow:
                if i < whole:
                    _narrow_tile(a, right, space, a0 + i * stride, stride, r0, panel, target,
                                 panel, depth, add)  # fmt: skip
                else:
                    _narrow_row(a, right, space, a0 + i * stride, stride, r0, panel, target,
                                panel, depth, add)  # fmt: skip
            elif i < whole:
                _tile(a, right, space, a0 + i * stride, stride, r0, panel, target, panel,
                      depth, add)  # fmt: skip
            else:
                _row(a, right, space, a0 + i * stride, stride, r0, panel, target, panel,
                     depth, add)  # fmt: skip


@compiled_in_parts(kind=FLOATS)
def multiply(
    a: Read1, b: Read1, bias: Read1, c: Write1, t: ProductIn, space: Write1, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Set c = a @ b + bias, all flat."""
    t = Product(*t)
    blocks = -(-t.rows // t.block)
    tasks = -(-t.columns // t.panel) * blocks
    s0 = part * scratch_of(t)
    c0 = s0 + DEPTH * t.panel
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        n0, i0 = task // blocks * t.panel, task % blocks * t.block
        ours, there = min(t.block, t.rows - i0), min(t.panel, t.columns - n0)
        for k0 in range(0, t.depth, DEPTH):
            deep = min(DEPTH, t.depth - k0)
            pack_panel(lanes, b, t.b_turned, k0, deep, t.depth, n0, there, t.columns,
                       space, s0, t.panel)  # fmt: skip
            a0, stride = i0 * t.depth + k0, t.depth
            if t.a_turned:
                a0, stride = k0 * t.rows + i0, t.rows
            multiply_rows(lanes, a, a0, stride, t.a_turned, space, s0, space, c0, t.panel, ours,
                          deep, k0 > 0)  # fmt: skip
        for i in range(ours):
            add_bias(space, bias, c, c0 + i * t.panel, n0, (i0 + i) * t.columns + n0, there)


@compiled_in_parts(PIECES, kind=FLOATS)
def pack(b: Read1, panels: Write1, t: ProductIn, lanes: int, parts: int, part: int) -> None:
    """Write all packed panels of b, flat: (panels, depth, panel)."""
    t = Product(*t)
    count = -(-t.columns // t.panel)
    for n in range(count * part // parts, count * (part + 1) // parts):
        there = min(t.panel, t.columns - n * t.panel)
        pack_panel(lanes, b, t.b_turned, 0, t.depth, t.depth, n * t.panel, there, t.columns,
                   panels, n * t.depth * t.panel, t.panel)  # fmt: skip


@compiled_in_parts(kind=FLOATS)
def multiply_packed(
    a: Read1, panels: Read1, bias: Read1, c: Write1, t: ProductIn, space: Write1, lanes: int,
    parts: int, part: int,
) -> None:  # fmt: skip
    """Set c = a @ b + bias, all flat, given the packed panels of b: the same sums as `multiply`."""
    t = Product(*t)
    blocks = -(-t.rows // t.block)
    tasks = -(-t.columns // t.panel) * blocks
    c0 = part * scratch_of(t)
    for task in range(tasks * part // parts, tasks * (part + 1) // parts):
        n, i0 = task // blocks, task % blocks * t.block
        n0, ours = n * t.panel, min(t.block, t.rows - i0)
        for k0 in range(0, t.depth, DEPTH):
            multiply_rows(lanes, a, i0 * t.depth + k0, t.depth, False, panels,
                          (n * t.depth + k0) * t.panel, space, c0, t.panel, ours,
                          min(DEPTH, t.depth - k0), k0 > 0)  # fmt: skip
        for i in range(ours):
            add_bias(space, bias, c, c0 + i * t.panel, n0, (i0 + i) * t.columns + n0,
                     min(t.panel, t.columns - n0))  # fmt: skip


@functools.lru_cache(1024)
def cut(
    rows: int, columns: int, depth: int, turned: tuple[bool, bool], lanes: int, threads: int
) -> tuple[Product, bool]:
    """Return the sizes of a product, and whether it is for one thread.

    Every thread has about two tasks; how they are cut makes no difference to any sum.
    """
    alone = rows * columns * depth < SMALL
    panel = lanes if columns <= lanes and not turned[0] else VECTORS * lanes
    blocks = 1 if alone else -(-2 * threads // -(-columns // panel))
    block = min(MOST_ROWS, -(-rows // blocks))
    return Product(rows, columns, depth, *turned, panel, block), alone


def product(a: Any, b: Any, *, turned: tuple[bool, bool] = (False, False), bias: Any = None) -> Any:
    """Return a @ b + bias of two matrices, of which those that are turned are transposed first."""
    rows, depth = a.shape[::-1] if turned[0] else a.shape
    columns = len(b) if turned[1] else b.shape[1]
    dtype, lanes = a.dtype, lanes_of(a.dtype)
    t, alone = cut(rows, columns, depth, turned, lanes, threads())
    c = empty((rows, columns), dtype)
    bias = np.zeros(columns, dtype) if bias is None else np.ascontiguousarray(bias)
    arrays = flat(a), flat(b), bias, c.reshape(-1)
    if rows <= FEW_ROWS and turned == (False, True):
        inner_products[dtype](*arrays, rows, columns, depth, lanes, alone=alone)
        return c
    space = scratch(scratch_of(t), dtype, alone)
    if is_recorded() and turned == (False, True):
        panels = empty((-(-columns // t.panel) * t.panel * depth,), dtype)
        pack[dtype](arrays[1], panels, tuple(t), lanes, alone=True)
        multiply_packed[dtype](arrays[0], panels, *arrays[2:], tuple(t), space, lanes, alone=alone)
    else:
        multiply[dtype](*arrays, tuple(t), space, lanes, alone=alone)
    return c
