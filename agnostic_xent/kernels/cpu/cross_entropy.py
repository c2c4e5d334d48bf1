"""The kernel of cross entropy for labels: from normalised arguments to compiled loops and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...operation import OPERATIONS, Implementation, Pullback
from . import entries
from .compiling import array_in, array_out, compiled, types
from .vector_math import BIAS

SMALL = 16384
"""Elements below which one thread is faster than waking the others."""

FEW_PIXELS = 32
"""Pixels behind the classes' axis below which a copy with the classes last is faster."""

REDUCTIONS = {"mean": entries.MEAN, "sum": entries.TOTAL, "none": entries.NONE}
OPTIONS = types.Tuple(
    [types.int64, types.boolean, types.float64, types.float64, types.float64, types.int64,
     types.float64, types.boolean, types.float64]
)  # fmt: skip

operation = OPERATIONS["cross_entropy"]


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Say why these arguments are not taken, if they are not."""
    arrays = (logits, target, options["weight"], options["sample_weight"])
    for x in arrays:
        if x is not None and type(x) not in (np.ndarray, np.memmap):
            return f"it takes numpy.ndarray, not {type(x).__name__}"
    if logits.dtype not in BIAS:
        return f"it takes float32 and float64 in native byte order, not {logits.dtype.str}"
    if target.dtype.kind not in "iu":
        return "it takes labels, not probabilities"
    return None


def value(logits: Any, target: Any, **options: Any) -> Any:
    """Return the loss."""
    if logits.size == 0:
        return operation._portable.value(logits, target, **options)
    return Call(logits, target, options).run(gradient=False)[0]


def vjp(logits: Any, target: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the loss and its pullback; the gradient for a cotangent of 1 is there already."""
    if logits.size == 0:
        return operation._portable.vjp(logits, target, **options)
    call = Call(logits, target, options)
    loss, gradient = call.run(gradient=0 in wrt)
    if gradient is None:
        return loss, lambda dy: (None, None)
    ready = [gradient]

    def pullback(dy: Any) -> tuple[Any, None]:
        # The array goes out once, since its new owner may write to it. Who asks again waits for
        # it to be computed again.
        g = ready.pop() if ready else call.run(gradient=True)[1]
        return call.scaled(g, dy), None

    return loss, pullback


class Call:
    """The arguments of one call, as the loops take them."""

    def __init__(self, logits: Any, target: Any, options: dict[str, Any]):
        axis, shape, dtype = options["axis"], logits.shape, logits.dtype
        self.shape, self.dtype = shape, dtype
        self.samples = shape[:axis] + shape[axis + 1 :]
        inner = math.prod(shape[axis + 1 :])
        self.axis = axis
        if 1 < inner < FEW_PIXELS:
            logits = np.moveaxis(logits, axis, -1)
            inner = 1
        flat = (-1, shape[axis]) if inner == 1 else (-1, shape[axis], inner)
        self.x = np.ascontiguousarray(logits).reshape(flat)
        self.layout = "planes" if inner > 1 else "short" if shape[axis] <= entries.FEW else "long"
        self.labels = np.ascontiguousarray(target, dtype=np.int64).reshape(-1)
        self.reduction = options["reduction"]
        self.sample_weight = _flat(options["sample_weight"], dtype)
        self.weight = _flat(options["weight"], dtype)
        if options["label_smoothing"] and options["weight"] is None:
            self.weight = np.ones(shape[axis], dtype)
        ignore = _ignored(options["ignore_index"], target.dtype)
        normalize = options["normalize"]
        by_count = normalize == "count" or (
            options["weight"] is None and options["sample_weight"] is None
        )
        self.numbers = (
            ignore or 0,
            ignore is not None,
            options["label_smoothing"],
            options["temperature"],
            1 / BIAS[dtype],
            REDUCTIONS[self.reduction],
            0.0 if normalize is None or isinstance(normalize, str) else float(normalize),
            by_count,
            0.0 if options["on_empty"] == "zero" else math.nan,
        )

    def run(self, gradient: bool) -> tuple[Any, Any]:
        """Return the loss; its gradient for a cotangent of 1 as the loops lay it out, or None."""
        terms = np.empty(self.labels.size)
        g = np.empty(self.x.shape if gradient else (0,) * self.x.ndim, self.dtype)
        loop = loops(self.dtype, self.layout, self.x.size >= SMALL)
        loss: Any = loop(
            self.x, self.labels, self.weight, self.sample_weight, self.numbers, g, terms
        )
        if self.reduction == "none":
            loss = terms.reshape(self.samples).astype(self.dtype)
        else:
            loss = self.dtype.type(loss)
        return loss, g if gradient else None

    def scaled(self, g: Any, dy: Any) -> Any:
        """Multiply a gradient by the cotangent, in place, and lay it out as the logits."""
        if dy.ndim or dy != 1:
            scale = scaling(self.dtype, g.ndim)
            dy = np.ascontiguousarray(dy).reshape(-1)
            scale(g, self.labels, self.sample_weight, self.numbers, dy)
        if g.ndim == 2 and self.axis < len(self.shape) - 1:
            rows = g.reshape(*self.samples, g.shape[1])
            return np.ascontiguousarray(np.moveaxis(rows, -1, self.axis))
        return g.reshape(self.shape)


def _flat(x: Any, dtype: Any) -> Any:
    return _NOTHING[dtype] if x is None else np.ascontiguousarray(x).reshape(-1)


_NOTHING = {dtype: np.empty(0, dtype) for dtype in BIAS}


def _ignored(index: int | None, dtype: Any) -> int | None:
    """Return the label to ignore as int64 holds it; None if there is none that dtype can hold."""
    if index is None:
        return None
    limits = np.iinfo(dtype)
    if not limits.min <= index <= limits.max:
        return None
    return int(np.asarray(index, dtype=dtype).astype(np.int64))


LOOPS = {
    "long": (2, entries.long, entries.long_in_parallel),
    "short": (2, entries.short, entries.short_in_parallel),
    "planes": (3, entries.planes, entries.planes_in_parallel),
}


@functools.cache
def loops(dtype: Any, layout: str, parallel: bool) -> Callable[..., float]:
    """Return the compiled loops for a dtype and a layout of the classes."""
    ndim, *functions = LOOPS[layout]
    kind = types.float32 if dtype == np.float32 else types.float64
    read = array_in(kind, ndim), array_in(types.int64, 1), array_in(kind, 1), array_in(kind, 1)
    write = array_out(kind, ndim), array_out(types.float64, 1)
    signature = types.float64(*read, OPTIONS, *write)
    made: Callable[..., float] = compiled(functions[parallel], signature, parallel=parallel)
    return made


@functools.cache
def scaling(dtype: Any, ndim: int) -> Callable[..., None]:
    """Return the compiled multiplication of a gradient by a cotangent."""
    kind = types.float32 if dtype == np.float32 else types.float64
    function = entries.scale_rows if ndim == 2 else entries.scale_planes
    read = array_in(types.int64, 1), array_in(kind, 1)
    signature = types.void(array_out(kind, ndim), *read, OPTIONS, array_in(kind, 1))
    made: Callable[..., None] = compiled(function, signature)
    return made


operation.add_kernel("numpy", Implementation("Numba loops", value, vjp, takes))
