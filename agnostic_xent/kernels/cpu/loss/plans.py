"""Cross entropy of NumPy arrays: what is found out once for all calls that are alike."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ....core.arrays import quiet
from ....core.operation import OPERATIONS, Pullback
from ..simd.elementary import BIAS
from ..toolchain.compiling import array_in, array_out, compiled, types
from ..toolchain.memory import SMALLEST, empty
from . import loops as entries
from . import soft_targets

SMALL = 16384
"""Elements below which one thread is faster than waking the others."""

FEW_PIXELS = 32
"""Pixels behind the classes' axis below which a copy with the classes last is faster."""

REDUCTIONS = {"mean": entries.MEAN, "sum": entries.TOTAL, "none": entries.NONE}
OPTIONS = types.Tuple(
    [types.int64, types.boolean, types.float64, types.float64, types.float64, types.int64,
     types.float64, types.boolean, types.float64, types.boolean]
)  # fmt: skip

NOTHING = np.empty(0)

portable = OPERATIONS["cross_entropy"].portable


class Plan:
    """What calls have in common: the shapes and dtypes of their arrays, and the other options."""

    few_pixels: float = FEW_PIXELS

    def __init__(self, logits: Any, options: dict[str, Any]):
        axis, shape = options["axis"], logits.shape
        self.axis, self.shape = axis, shape
        self.dtype, self.kind = logits.dtype, logits.dtype.type
        self.options, self.reduction = options, options["reduction"]
        self.samples = shape[:axis] + shape[axis + 1 :]
        self.count, self.classes = math.prod(self.samples), shape[axis]
        inner = math.prod(shape[axis + 1 :])
        self.moves = 1 < inner < self.few_pixels
        in_rows = self.moves or inner == 1
        self.form: Any = (self.count, self.classes)
        if not in_rows:
            self.form = (self.count // inner, self.classes, inner)
        self.overwrites = options["overwrite_logits"] and not self.moves
        self.large = logits.size >= SMALL
        self.new = empty if logits.nbytes >= SMALLEST else np.empty
        self.nothing = np.empty((0,) * len(self.form), self.dtype)

    def set_up(self, target: Any, weighted: bool, check_values: Any) -> None:
        """Choose the loops, and the numbers that they read."""
        options, self.check_values = self.options, check_values
        self.numbers = _numbers(
            self.dtype, target, options["ignore_index"], options["label_smoothing"],
            options["temperature"], self.reduction, options["normalize"], options["on_empty"],
            weighted, check_values is not None,
        )  # fmt: skip
        short = self.classes <= entries.FEW
        layout = "planes" if len(self.form) == 3 else "short" if short else "long"
        self.loop: Callable[..., Any] = loops(self.dtype, layout, self.large)
        smooth = options["label_smoothing"] > 0
        self.no_weight = np.ones(self.classes if smooth else 0, self.dtype)
        self.no_sample_weight = np.empty(0, self.dtype)

    def value(self, logits: Any, target: Any, weight: Any = None, sample_weight: Any = None) -> Any:
        """Return the loss."""
        return self.run(target, self.read(logits, target, weight, sample_weight), self.nothing)

    def vjp(
        self,
        logits: Any,
        target: Any,
        weight: Any = None,
        sample_weight: Any = None,
        *,
        wrt: frozenset[int],
    ) -> tuple[Any, Pullback]:
        """Return the loss and its pullback."""
        given, wanted = self.read(logits, target, weight, sample_weight), 0 in wrt
        over = wanted and self.overwrites and logits.flags.c_contiguous and logits.flags.writeable
        ready = [given[0] if over else self.new(self.form, self.dtype) if wanted else self.nothing]
        loss = self.run(target, given, ready[0])

        def pullback(dy: Any) -> tuple[Any, Any]:
            if not wanted:
                return None, None
            # The array goes out once, since its new owner may write to it. Who asks again waits
            # for it to be computed again.
            if ready:
                g = ready.pop()
            elif over:
                raise RuntimeError(
                    "overwrite_logits=True: the logits are gone, so the pullback can be called but "
                    "once"
                )
            else:
                g = self.new(self.form, self.dtype)
                self.run(target, given, g)
            return self.scaled(g, given, dy), None

        return loss, pullback

    def read(self, logits: Any, target: Any, weight: Any, sample_weight: Any) -> tuple[Any, ...]:
        """Return the arrays as the loops read them."""
        x = np.ascontiguousarray(np.moveaxis(logits, self.axis, -1) if self.moves else logits)
        labels = np.ascontiguousarray(target, np.int64)
        return (
            x if x.shape == self.form else x.reshape(self.form),
            labels if labels.ndim == 1 else labels.reshape(-1),
            self.no_weight if weight is None else np.ascontiguousarray(weight),
            self.no_sample_weight if sample_weight is None else flat(sample_weight),
        )

    def run(self, target: Any, given: tuple[Any, ...], g: Any) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if that has elements."""
        terms = NOTHING if self.reduction != "none" else np.empty(self.count)
        try:
            loss = self.loop(*given, self.numbers, g, terms)
        except IndexError:
            self.check_values(given[0], target)
            raise
        return self.kind(loss) if terms is NOTHING else self.as_loss(terms)

    def as_loss(self, terms: Any) -> Any:
        """Return the terms in the dtype and shape that they should have."""
        with quiet():
            return terms.astype(self.dtype).reshape(self.samples)

    def scaled(self, g: Any, given: tuple[Any, ...], dy: Any) -> Any:
        """Multiply a gradient by the cotangent, in place, and lay it out as the logits."""
        if dy.ndim or float(dy) != 1:
            scale = scaling(self.dtype, len(self.form), self.large)
            scale(g, given[1], given[3], self.numbers, flat(dy))
        if self.moves:
            rows = g.reshape(*self.samples, self.classes)
            return np.ascontiguousarray(np.moveaxis(rows, -1, self.axis))
        return g if self.form == self.shape else g.reshape(self.shape)


class SoftPlan(Plan):
    """The same with probabilities, which are always taken in rows."""

    few_pixels: float = math.inf

    def set_up(self, target: Any, weighted: bool, check_values: Any) -> None:
        """Choose the loops; what `scaled` reads is that nothing is ignored."""
        options, self.overwrites = self.options, False  # the gradient of the target needs them
        self.numbers = _numbers(
            self.dtype, np.dtype(np.int64), None, options["label_smoothing"],
            options["temperature"], self.reduction, None, options["on_empty"], False, False,
        )  # fmt: skip
        self.loop = soft_loops(self.dtype, self.large)
        self.weighted = weighted
        self.no_weight = np.ones(self.classes, self.dtype)
        self.no_sample_weight = np.empty(0, self.dtype)

    def vjp(
        self,
        logits: Any,
        target: Any,
        weight: Any = None,
        sample_weight: Any = None,
        *,
        wrt: frozenset[int],
    ) -> tuple[Any, Pullback]:
        """Return the loss and its pullback, which knows the gradient of the target, too."""
        loss, of_logits = super().vjp(logits, target, weight, sample_weight, wrt=wrt)

        def pullback(dy: Any) -> tuple[Any, Any]:
            dt = None
            if 1 in wrt:
                options = self.options | {"weight": weight, "sample_weight": sample_weight}
                dt = portable.vjp(logits, target, **options)[1](dy)[1]
            return of_logits(dy)[0], dt

        return loss, pullback

    def read(self, logits: Any, target: Any, weight: Any, sample_weight: Any) -> tuple[Any, ...]:
        """Return the arrays as the loops read them, after labels that `scaled` can read."""
        labels = np.zeros(self.count, np.int64)
        t = flat(np.moveaxis(target, self.axis, -1)).reshape(self.form)
        return *super().read(logits, labels, weight, sample_weight), t

    def run(self, target: Any, given: tuple[Any, ...], g: Any) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if that has elements."""
        x, _, weight, sample_weight, t = given
        terms, divisor, unit = np.empty(self.count), self.divisor(t, weight, sample_weight), 1.0
        options = self.options
        empty_mean = 0.0 if options["on_empty"] == "zero" else math.nan
        if self.reduction == "mean":
            unit = 1 / divisor if divisor else empty_mean
        smoothing, temperature = options["label_smoothing"], options["temperature"]
        numbers = np.array(
            [1 - smoothing, smoothing / self.classes, 1 / temperature, 1 / BIAS[self.dtype],
             float(np.sum(weight, dtype=float)), unit / temperature]
        )  # fmt: skip
        self.loop(x, t, weight, sample_weight, numbers, g, terms)
        if self.reduction == "none":
            return self.as_loss(terms)
        total = float(np.sum(terms))
        if self.reduction == "mean":
            total = total / divisor if divisor else empty_mean
        return self.kind(total)

    def divisor(self, t: Any, weight: Any, sample_weight: Any) -> float:
        """Return what a mean divides by."""
        normalize = self.options["normalize"]
        if isinstance(normalize, float):
            return normalize
        if normalize != "weight" or not self.weighted:
            return float(self.count)
        masses = np.ones(self.count) if weight is self.no_weight else t @ weight
        if sample_weight.size:
            dead = sample_weight == 0
            masses = np.where(dead, 0, masses * sample_weight)
        return float(np.sum(masses, dtype=float))


def flat(x: Any) -> Any:
    """Return an array's elements in their order."""
    return np.ascontiguousarray(x).reshape(-1)


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
    checks: bool,
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
        checks,
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
