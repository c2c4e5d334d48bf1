"""Softmax and log_softmax: from normalised arguments to launches and back."""

from __future__ import annotations

import functools
from typing import Any

from ....core.operation import Pullback
from ..toolchain.device import contiguous, in_blocks_of, register, xp
from ..toolchain.dtypes import code_of, elements, given, stored, takes
from ..toolchain.launching import Kernel
from ..toolchain.rows import FEW_PIXELS, THREADS, Layout, layout_of
from ..toolchain.vectors import held_by, rows_of_block, team_for
from .held import held_kernel, rows_kernel
from .sweeps import gradient_kernel, value_kernel


def with_classes_last(function: Any) -> Any:
    """Let a function see the classes last where few pixels lie behind them (decorator)."""

    @functools.wraps(function)
    def moving(*arrays: Any, log: bool, axis: int) -> Any:
        shape = arrays[0].shape
        if not 1 < layout_of(shape, axis).inner < FEW_PIXELS:
            return function(*arrays, log=log, axis=axis)
        moved = [xp.moveaxis(x, axis, -1) for x in arrays]
        return contiguous(xp.moveaxis(function(*moved, log=log, axis=len(shape) - 1), -1, axis))

    return moving


@with_classes_last
def value_of(x: Any, *, log: bool, axis: int) -> Any:
    """Return softmax, or log_softmax, of an array."""
    layout, code, y = layout_of(x.shape, axis), code_of(x), xp.empty(x.shape, x.dtype)
    made, blocks = holding(code, layout, log)
    if made:
        made(blocks, elements(x), stored(y), *layout)
    else:
        sweeping = value_kernel(code, layout.team)
        sweeping(layout.blocks, given(x), stored(y), *layout, log)
    return y


def holding(code: str, layout: Layout, log: bool) -> tuple[Kernel | None, int]:
    """Return the kernel that holds rows of a layout, and its blocks; None if there is none."""
    if layout.inner > 1:
        return None, 0
    if team := team_for(code, layout.classes):
        return rows_kernel(code, *team, log), -(-layout.rows // rows_of_block(team[0]))
    if threads := held_by(code, layout.classes):
        return held_kernel(code, threads, log), layout.rows
    return None, 0


@with_classes_last
def gradient_of(y: Any, dy: Any, *, log: bool, axis: int) -> Any:
    """Return the pullback of a cotangent, from the values y."""
    layout, dx = layout_of(y.shape, axis), xp.empty(y.shape, y.dtype)
    made = gradient_kernel(code_of(y), layout.team)
    made(layout.blocks, given(y), given(dy), stored(dx), *layout, log)
    return dx


def takes_rows(x: Any, **options: Any) -> str | None:
    """Return why an array is not taken, None if it is."""
    return takes(x) or (None if x.ndim else "it takes arrays of at least one dimension")


def add(name: str, log: bool) -> None:
    """Register the kernels of softmax, or of log_softmax: the operation ``name``."""

    def value(x: Any, *, axis: int) -> Any:
        return value_of(x, log=log, axis=axis)

    def vjp(x: Any, *, axis: int) -> tuple[Any, Pullback]:
        y = value_of(x, log=log, axis=axis)
        return y, lambda dy: (gradient_of(y, dy, log=log, axis=axis),)

    register(name, value, vjp, takes_rows, "axis", fits=in_blocks_of(THREADS))


add("softmax", False)
add("log_softmax", True)
