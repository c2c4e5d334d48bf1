"""Softmax and log softmax of rows of few classes, as many rows at a time as a vector has lanes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ..simd.elementary import BIAS, borrowed, emit_exp, inlined, log1p
from ..simd.few import FEW, Tile, load_tile, store_tile
from ..simd.vectors import VECTOR_BYTES, Vectors, cgutils, emitted
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.signatures import FLOATS, Read2, Write2
from ..toolchain.threads import PIECES
from .loops import LOG_SOFTMAX, SOFTMAX

FEW_FOR_A_PULLBACK = 16
"""Classes up to which the pullback of LOG_SOFTMAX is faster in tiles."""


def exponential(v: Vectors, x: Any) -> Any:
    """Emit the biased exponentials of a vector."""
    return emit_exp(v.builder, types.float32 if v.itemsize == 4 else types.float64, x)


def _softmax(v: Vectors, x: Any, columns: Any) -> None:
    """Emit the softmax of a tile, in place."""
    b, tile = v.builder, Tile(v, x, columns)
    top, total = tile.maximum(), cgutils.alloca_once_value(b, v.zero)
    with tile.each() as (_, place):
        e = exponential(v, b.fsub(v.load(place), top))
        v.store(e, place)
        b.store(b.fadd(b.load(total), e), total)
    scale = v.narrowed(b.fdiv(v.doubles().constant(1), v.widened(b.load(total))))
    with tile.each() as (_, place):
        v.store(b.fmul(v.load(place), scale), place)


def _shift(v: Vectors, x: Any, sums: Any, columns: Any) -> None:
    """Emit ``x - max(x)`` of a tile, in place; sums become those of the exponentials beside 1."""
    b, wide, tile = v.builder, v.doubles(), Tile(v, x, columns)
    bias = BIAS[np.dtype(np.float32 if v.itemsize == 4 else np.float64)]
    top, total = tile.maximum(), cgutils.alloca_once_value(b, v.zero)
    found = cgutils.alloca_once_value(b, v.all_or_none(b.icmp_signed("<", columns, v.index(0))))
    with tile.each() as (_, place):
        d = b.fsub(v.load(place), top)
        e = exponential(v, d)
        v.store(d, place)
        one = b.and_(b.fcmp_ordered("==", e, v.constant(bias)), b.not_(b.load(found)))
        b.store(b.fadd(b.load(total), b.select(one, v.zero, e)), total)
        b.store(b.or_(b.load(found), one), found)
    wide.store(b.fmul(v.widened(b.load(total)), wide.constant(1 / bias)), sums)


def _subtract(v: Vectors, x: Any, logs: Any, columns: Any) -> None:
    """Emit a tile less a float64 a lane, rounded, in place."""
    b, tile = v.builder, Tile(v, x, columns)
    rest = v.narrowed(v.doubles().load(logs))
    with tile.each() as (_, place):
        v.store(b.fsub(v.load(place), rest), place)


def _log_softmax_pullback(v: Vectors, y: Any, dy: Any, columns: Any) -> None:
    """Emit ``dy - exp(y) * sum(dy)`` of two tiles, in place of y."""
    b, tile, others = v.builder, Tile(v, y, columns), Tile(v, dy, columns)
    unbias = 1 / BIAS[np.dtype(np.float32 if v.itemsize == 4 else np.float64)]
    total = cgutils.alloca_once_value(b, v.zero)
    with others.each() as (_, place):
        b.store(b.fadd(b.load(total), v.load(place)), total)
    with tile.each() as (c, place):
        p = b.fmul(exponential(v, v.load(place)), v.constant(unbias))
        v.store(b.fsub(v.load(others.place(c)), b.fmul(p, b.load(total))), place)


softmax, shift, subtract = emitted(1, _softmax), emitted(2, _shift), emitted(2, _subtract)
log_softmax_pullback = emitted(2, _log_softmax_pullback)


@inlined
def do_tile(what: Any, value: Any, x: Any, dy: Any, logs: Any, columns: Any) -> None:
    """Do an activation of a tile, or the pullback of LOG_SOFTMAX, in place."""
    if what == SOFTMAX:
        softmax(x, columns)
    elif value:
        shift(x, logs, columns)
        for k in range(logs.size):
            logs[k] = log1p(logs[k])
        subtract(x, logs, columns)
    else:
        log_softmax_pullback(x, dy, columns)


def is_tiled(what: int, columns: int, value: bool) -> bool:
    """Return whether `few` is the faster loop for an activation of rows, or for its pullback."""
    if what == LOG_SOFTMAX:
        return columns <= (FEW if value else FEW_FOR_A_PULLBACK)
    return what == SOFTMAX and value and columns <= FEW


@compiled_in_parts(PIECES, kind=FLOATS)
def few(what: int, x: Read2, dy: Read2, unbias: float, y: Write2, parts: int, part: int) -> None:
    """Do as ``rows`` of ``loops.py``, for what `is_tiled`."""
    count, columns = x.shape
    lanes, value = VECTOR_BYTES // x.itemsize, dy.size == 0
    tiles, size = -(-count // lanes), lanes * max(lanes, columns)  # narrow tiles are written square
    x, dy, y = borrowed(x).reshape(-1), borrowed(dy).reshape(-1), borrowed(y).reshape(-1)
    memory = np.empty((2, size), x.dtype)
    tile, other, logs = memory[0], memory[1], np.empty(lanes)
    for i in range(tiles * part // parts, tiles * (part + 1) // parts):
        start, rows = i * lanes * columns, min(lanes, count - i * lanes)
        load_tile(x, start, rows, columns, lanes, tile, 0)
        if not value:
            load_tile(dy, start, rows, columns, lanes, other, 0)
        do_tile(what, value, tile, other, logs, columns)
        store_tile(tile, 0, rows, columns, lanes, y, start)
