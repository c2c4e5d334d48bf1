"""The kernel of cross entropy: from normalised arguments to compiled loops and back."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...arrays import quiet, widen
from ...operation import OPERATIONS, Implementation, Pullback
from . import entries, soft_targets
from .compiling import array_in, array_out, compiled, types
from .memory import empty
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
portable = operation._portable


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Say why these arguments are not taken, if they are not."""
    for x in (logits, target, options["weight"], options["sample_weight"]):
        if x is not None and type(x) not in (np.ndarray, np.memmap):
            return f"it takes numpy.ndarray, not {type(x).__name__}"
    if logits.dtype not in BIAS:
        return f"it takes float32 and float64 in native byte order, not {logits.dtype.str}"
    return None


def value(logits: Any, target: Any, **options: Any) -> Any:
    """Return the loss."""
    if logits.size == 0:
        return portable.value(logits, target, **options)
    return _call(logits, target, options).run(gradient=False)[0]


def vjp(logits: Any, target: Any, *, wrt: frozenset[int], **options: Any) -> tuple[Any, Pullback]:
    """Return the loss and its pullback; the gradient for a cotangent of 1 is there already."""
    if logits.size == 0:
        return portable.vjp(logits, target, **options)
    call = _call(logits, target, options)
    loss, gradient = call.run(gradient=0 in wrt)
    ready = [gradient]

    def pullback(dy: Any) -> tuple[Any, Any]:
        g = dt = None
        if 1 in wrt and target.dtype.kind == "f":
            dt = portable.vjp(logits, target, **options)[1](dy)[1]
        if 0 in wrt:
            # The array goes out once, since its new owner may write to it. Who asks again waits
            # for it to be computed again.
            g = call.scaled(ready.pop() if ready else call.run(gradient=True)[1], dy)
        return g, dt

    return loss, pullback


def _call(logits: Any, target: Any, options: dict[str, Any]) -> Call:
    return (SoftCall if target.dtype.kind == "f" else Call)(logits, target, options)


class Call:
    """The arguments of one call, as the loops take them."""

    few_pixels: float = FEW_PIXELS

    def __init__(self, logits: Any, target: Any, options: dict[str, Any]):
        axis, shape, dtype = options["axis"], logits.shape, logits.dtype
        self.shape, self.axis, self.dtype, self.classes = shape, axis, dtype, shape[axis]
        inner, x = math.prod(shape[axis + 1 :]), logits
        if 1 < inner < self.few_pixels:
            x, inner = np.moveaxis(x, axis, -1), 1
        x = np.ascontiguousarray(x)
        self.x = x.reshape((-1, self.classes) if inner == 1 else (-1, self.classes, inner))
        self.overwrites = options["overwrite_logits"] and x is logits and x.flags.writeable
        self.overwritten = False
        self.options, self.reduction = options, options["reduction"]
        self.sample_weight = _flat(options["sample_weight"], dtype)
        self.weight = _flat(options["weight"], dtype)
        self.take(target)

    def take(self, target: Any) -> None:
        """Prepare the labels."""
        options, weighted = self.options, self.weight.size + self.sample_weight.size > 0
        self.labels = np.ascontiguousarray(target, dtype=np.int64).reshape(-1)
        if options["label_smoothing"] and self.weight.size == 0:
            self.weight = np.ones(self.classes, self.dtype)
        self.numbers = _numbers(
            self.dtype, target.dtype, options["ignore_index"], options["label_smoothing"],
            options["temperature"], self.reduction, options["normalize"], options["on_empty"],
            weighted,
        )  # fmt: skip
        if self.x.ndim == 3:
            self.layout = "planes"
        else:
            self.layout = "short" if self.classes <= entries.FEW else "long"

    def run(self, gradient: bool) -> tuple[Any, Any]:
        """Return the loss; its gradient for a cotangent of 1 as the loops lay it out, or None."""
        terms, g = np.empty(self.labels.size), self.gradient_array(gradient)
        loop = loops(self.dtype, self.layout, self.x.size >= SMALL)
        loss: Any = loop(
            self.x, self.labels, self.weight, self.sample_weight, self.numbers, g, terms
        )
        return self.as_loss(terms, loss), g if gradient else None

    def gradient_array(self, wanted: bool) -> Any:
        """Return where the gradient goes: an array without elements if it is not wanted."""
        if not wanted:
            return np.empty((0,) * self.x.ndim, self.dtype)
        if not self.overwrites:
            return empty(self.x.shape, self.dtype)
        if self.overwritten:
            raise RuntimeError(
                "overwrite_logits=True: the logits are gone, so the pullback can be called but once"
            )
        self.overwritten = True
        return self.x

    def as_loss(self, terms: Any, loss: float) -> Any:
        """Return the loss in the dtype of the logits."""
        if self.reduction != "none":
            return self.dtype.type(loss)
        samples = self.shape[: self.axis] + self.shape[self.axis + 1 :]
        with quiet():
            return terms.astype(self.dtype).reshape(samples)

    def scaled(self, g: Any, dy: Any) -> Any:
        """Multiply a gradient by the cotangent, in place, and lay it out as the logits."""
        if dy.ndim or float(dy) != 1:
            scale = scaling(self.dtype, g.ndim, g.size >= SMALL)
            dy = np.ascontiguousarray(dy).reshape(-1)
            scale(g, self.labels, self.sample_weight, self.numbers, dy)
        if g.ndim == 2 and self.axis < len(self.shape) - 1:
            samples = self.shape[: self.axis] + self.shape[self.axis + 1 :]
            rows = g.reshape(*samples, self.classes)
            return np.ascontiguousarray(np.moveaxis(rows, -1, self.axis))
        return g.reshape(self.shape)


class SoftCall(Call):
    """The same with probabilities, which are always taken in rows."""

    few_pixels: float = math.inf

    def take(self, target: Any) -> None:
        """Prepare the probabilities."""
        options, self.overwrites = self.options, False  # the gradient of the target needs them
        self.target = np.ascontiguousarray(np.moveaxis(target, self.axis, -1)).reshape(self.x.shape)
        self.divisor = self._divisor()
        if self.weight.size == 0:
            self.weight = np.ones(self.classes, self.dtype)
        # what `scaled` reads: nothing is ignored
        self.labels = np.zeros(self.x.shape[0], np.int64)
        self.numbers = _numbers(
            self.dtype, self.labels.dtype, None, options["label_smoothing"],
            options["temperature"], self.reduction, None, options["on_empty"], False,
        )  # fmt: skip

    def _divisor(self) -> float:
        """Return what a mean divides by."""
        normalize = self.options["normalize"]
        if isinstance(normalize, float):
            return normalize
        if normalize != "weight" or self.weight.size + self.sample_weight.size == 0:
            return float(len(self.target))
        masses = self.target @ self.weight if self.weight.size else np.ones(len(self.target))
        if self.sample_weight.size:
            dead = self.sample_weight == 0
            masses = np.where(dead, 0, masses * self.sample_weight)
        return float(np.sum(masses, dtype=float))

    def run(self, gradient: bool) -> tuple[Any, Any]:
        """Return the loss; its gradient for a cotangent of 1 as rows, or None."""
        terms, g = np.empty(len(self.x)), self.gradient_array(gradient)
        options, divisor, unit = self.options, self.divisor, 1.0
        empty_mean = 0.0 if options["on_empty"] == "zero" else math.nan
        if self.reduction == "mean":
            unit = 1 / divisor if divisor else empty_mean
        smoothing, temperature = options["label_smoothing"], options["temperature"]
        numbers = np.array(
            [1 - smoothing, smoothing / self.classes, 1 / temperature, 1 / BIAS[self.dtype],
             float(np.sum(self.weight, dtype=float)), unit / temperature]
        )  # fmt: skip
        loop = soft_loops(self.dtype, self.x.size >= SMALL)
        loop(self.x, self.target, self.weight, self.sample_weight, numbers, g, terms)
        total = float(np.sum(terms))
        if self.reduction == "mean":
            total = total / divisor if divisor else empty_mean
        return self.as_loss(terms, total), g if gradient else None


def _flat(x: Any, dtype: Any) -> Any:
    return _NOTHING[dtype] if x is None else np.ascontiguousarray(x).reshape(-1)


_NOTHING = {dtype: np.empty(0, dtype) for dtype in BIAS}


@functools.lru_cache(1024)
def _numbers(
    dtype: Any,
    label_dtype: Any,
    ignore_index: int | None,
    label_smoothing: float,
    temperature: float,
    reduction: str,
    normalize: str | float | None,
    on_empty: str,
    weighted: bool,
) -> tuple[Any, ...]:
    """Return the options that are no arrays as the loops read them."""
    ignore = _ignored(ignore_index, label_dtype)
    return (
        ignore or 0,
        ignore is not None,
        label_smoothing,
        temperature,
        1 / BIAS[dtype],
        REDUCTIONS[reduction],
        normalize if isinstance(normalize, float) else 0.0,
        normalize == "count" or not weighted,
        0.0 if on_empty == "zero" else math.nan,
    )


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


def _kind(dtype: Any) -> Any:
    return types.float32 if dtype == np.float32 else types.float64


@functools.cache
def loops(dtype: Any, layout: str, parallel: bool) -> Callable[..., float]:
    """Return the compiled loops for a dtype and a layout of the classes."""
    ndim, *functions = LOOPS[layout]
    kind = _kind(dtype)
    read = array_in(kind, ndim), array_in(types.int64, 1), array_in(kind, 1), array_in(kind, 1)
    write = array_out(kind, ndim), array_out(types.float64, 1)
    signature = types.float64(*read, OPTIONS, *write)
    made: Callable[..., float] = compiled(functions[parallel], signature, parallel=parallel)
    return made


@functools.cache
def soft_loops(dtype: Any, parallel: bool) -> Callable[..., None]:
    """Return the compiled loops for probabilities."""
    kind = _kind(dtype)
    read = array_in(kind, 2), array_in(kind, 2), array_in(kind, 1), array_in(kind, 1)
    numbers, terms = array_in(types.float64, 1), array_out(types.float64, 1)
    signature = types.void(*read, numbers, array_out(kind, 2), terms)
    function = soft_targets.soft_in_parallel if parallel else soft_targets.soft
    made: Callable[..., None] = compiled(function, signature, parallel=parallel)
    return made


SCALING = {
    2: (entries.scale_rows, entries.scale_rows_in_parallel),
    3: (entries.scale_planes, entries.scale_planes_in_parallel),
}


@functools.cache
def scaling(dtype: Any, ndim: int, parallel: bool) -> Callable[..., None]:
    """Return the compiled multiplication of a gradient by a cotangent."""
    kind = _kind(dtype)
    read = array_in(types.int64, 1), array_in(kind, 1)
    signature = types.void(array_out(kind, ndim), *read, OPTIONS, array_in(kind, 1))
    made: Callable[..., None] = compiled(SCALING[ndim][parallel], signature, parallel=parallel)
    return made


operation.add_kernel("numpy", Implementation("Numba loops", value, vjp, takes))


# --- of a linear layer ---------------------------------------------------------------------------

linear = OPERATIONS["linear_cross_entropy"]


def takes_linear(x: Any, weight: Any, target: Any, bias: Any, **options: Any) -> str | None:
    """Say why the blocks of these arguments are not taken, if they are not."""
    arrays = {"weight": options["class_weight"], "sample_weight": options["sample_weight"]}
    return takes(widen(x), target, **arrays)


linear.add_kernel(
    "numpy",
    Implementation(
        "BLAS and Numba loops", linear._portable.value, linear._portable.vjp, takes_linear
    ),
)
