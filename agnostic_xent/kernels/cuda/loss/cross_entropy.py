"""The kernels of cross entropy over labels: from normalised arguments to launches and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....core.operation import OPERATIONS, Pullback
from ..toolchain import dtypes
from ..toolchain.device import contiguous, register, xp
from ..toolchain.dtypes import WIDE, code_of, elements, stored, wide
from ..toolchain.launching import Kernel
from . import sums as loss_sums
from .formulas import DIVIDED, IGNORES, SAMPLED, SMOOTHED, WEIGHTED, WRITES
from .rows import rows_kernel, rows_of, team_for
from .streams import (
    PER_THREAD,
    THREADS,
    masses_kernel,
    multiply_kernel,
    streams_kernel,
    team_of_row,
)

FEW_PIXELS = 32
"""Pixels behind the classes' axis below which a copy with the classes last is faster."""

ROWS = 32
"""Rows of a block where classes are fewest."""

portable = OPERATIONS["cross_entropy"].portable
OPTIONS = (
    "axis",
    "weight",
    "sample_weight",
    "ignore_index",
    "label_smoothing",
    "temperature",
    "reduction",
    "normalize",
    "on_empty",
    "overwrite_logits",
)


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Say why these arguments are not taken, if they are not."""
    if target.dtype.kind not in "iu":
        return "it takes labels"
    return dtypes.takes(logits, target, **options)


class Problem:
    """A call: its arrays as the kernels read them, and what the options are to them."""

    by_default = "weight"
    """What a mean divides by if nothing is said."""

    def __init__(self, logits: Any, target: Any, weight: Any, sample_weight: Any, options: Any):
        axis, self.shape, self.dtype = options["axis"], logits.shape, logits.dtype
        self.options, self.code = options, code_of(logits)
        inner = math.prod(self.shape[axis + 1 :])
        self.moves = 1 < inner < FEW_PIXELS
        self.inner = 1 if self.moves else inner
        self.samples = self.shape[:axis] + self.shape[axis + 1 :]
        self.count, self.classes = math.prod(self.samples), self.shape[axis]
        self.x, self.target = self.read(logits), self.read_target(target)
        self.weight, self.sample_weight = wide(weight), wide(sample_weight)
        self.ignore = ignored(options["ignore_index"], target.dtype)
        self.flags = WEIGHTED * (weight is not None) | SAMPLED * (sample_weight is not None)
        self.flags |= IGNORES * (self.ignore is not None)
        self.unit, self.divisor = self.unit_and_divisor()
        self.flags |= DIVIDED * (self.divisor is not None)
        self.flags |= SMOOTHED * (options["label_smoothing"] > 0)

    def read(self, x: Any) -> Any:
        """Return the elements of an array of the logits' shape."""
        return elements(xp.moveaxis(x, self.options["axis"], -1) if self.moves else x)

    def read_target(self, target: Any) -> Any:
        """Return the labels."""
        return elements(target.astype(np.int64, copy=False))

    def unit_and_divisor(self) -> tuple[float, Any]:
        """Return the gradient of the loss with respect to a term.

        If the device has to find out what the mean divides by, that is 1, with the sum and its
        reciprocal on the device, else None.
        """
        by = self.options["normalize"] or self.by_default
        if self.options["reduction"] != "mean":
            return 1.0, None
        if isinstance(by, float):
            return 1 / by, None
        weights = 0 if by == "count" else self.flags & (WEIGHTED | SAMPLED)
        if not weights and self.ignore is None:
            return 1 / self.count, None
        empty = 0.0 if self.options["on_empty"] == "zero" else math.nan
        return 1.0, loss_sums.divisor(self.masses(weights), empty)

    def masses(self, weights: int) -> Any:
        """Return numbers whose sum the mean divides by, with these weights."""
        sums = xp.empty(-(-self.count // (THREADS * PER_THREAD)), np.float64)
        masses_kernel(np.dtype(WIDE[self.code]).str[1:])(
            sums.size, self.target, self.weight, self.sample_weight, sums,
            self.count, self.classes, self.ignore or 0, weights | self.flags & IGNORES,
        )  # fmt: skip
        return sums

    def run(self, g: Any = None) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if there is one."""
        kind, terms, weight_sum = WIDE[self.code], xp.empty(self.count, np.float64), None
        smoothing = self.options["label_smoothing"]
        if smoothing and self.weight is not None:
            weight_sum = xp.sum(self.weight, dtype=np.float64, keepdims=True)
        sharpness = 1 / self.options["temperature"]
        numbers = 1 - smoothing, smoothing / self.classes, sharpness, self.unit * sharpness
        kernel, blocks = self.kernel()
        kernel(
            blocks, self.x, self.target, self.weight, self.sample_weight, weight_sum, self.divisor,
            g, terms, self.count, self.classes, self.inner, self.ignore or 0,
            self.flags | WRITES * (g is not None), *map(kind, numbers),
        )  # fmt: skip
        return self.reduced(terms)

    def reduced(self, terms: Any) -> Any:
        """Return the loss of terms."""
        if self.options["reduction"] == "none":
            return terms.astype(self.dtype).reshape(self.samples)
        return loss_sums.total(terms, self.dtype, self.unit, self.divisor)

    def kernel(self) -> tuple[Kernel, int]:
        """Return the kernel of these rows, and its blocks."""
        team = team_for(self.code, self.classes)
        if self.inner > 1:
            return streams_kernel(self.code, 1), -(-self.count // THREADS)
        if team is None:
            of_row = team_of_row(self.code, self.classes * self.dtype.itemsize)
            return streams_kernel(self.code, of_row), self.count
        return rows_kernel(self.code, *team), -(-self.count // rows_of(team[0]))

    def multiply(self, g: Any, dy: Any) -> Any:
        """Multiply a gradient by the cotangent, in place."""
        blocks = -(-g.size // (THREADS * PER_THREAD))
        multiply_kernel(self.code)(
            blocks, g, self.target, self.sample_weight, elements(dy), self.count, self.classes,
            self.inner, self.ignore or 0, self.flags, self.options["reduction"] == "none",
        )  # fmt: skip
        return self.laid_out(g)

    def laid_out(self, g: Any) -> Any:
        """Return a gradient as an array like the logits; None stays None."""
        if g is None:
            return None
        g = g.view(self.dtype)
        axis = self.options["axis"]
        if self.moves:
            return contiguous(xp.moveaxis(g.reshape(*self.samples, self.classes), -1, axis))
        return g.reshape(self.shape)

    def new(self) -> Any:
        """Return an array for a gradient."""
        return stored(xp.empty(self.x.size, self.dtype))


def ignored(index: int | None, dtype: Any) -> int | None:
    """Return the label to ignore as int64 holds it; None if there is none that dtype can hold."""
    if index is None or not np.iinfo(dtype).min <= index <= np.iinfo(dtype).max:
        return None
    return int(np.asarray(index, dtype).astype(np.int64))


def fits(logits: Any) -> bool:
    """Tell whether a grid holds the blocks of this shape."""
    return bool(logits.size < (1 << 31) * ROWS)


def value(logits: Any, target: Any, *, weight: Any, sample_weight: Any, **options: Any) -> Any:
    """Return the loss."""
    if not fits(logits):
        options |= {"weight": weight, "sample_weight": sample_weight}
        return portable.value(logits, target, **options)
    return Problem(logits, target, weight, sample_weight, options).run()


def vjp(
    logits: Any,
    target: Any,
    *,
    wrt: frozenset[int],
    weight: Any,
    sample_weight: Any,
    **options: Any,
) -> tuple[Any, Pullback]:
    """Return the loss and its pullback; the gradient for a cotangent of 1 is there already."""
    if not fits(logits):
        options |= {"weight": weight, "sample_weight": sample_weight}
        return portable.vjp(logits, target, **options)
    problem = Problem(logits, target, weight, sample_weight, options)
    if 0 not in wrt:
        return problem.run(), lambda dy: (None, None)
    over = options["overwrite_logits"] and getattr(problem.x.flags, "writeable", True)
    ready = [problem.x if over else problem.new()]
    loss = problem.run(ready[0])

    def pullback(dy: Any) -> tuple[Any, None]:
        # The array goes out once, since its new owner may write to it.
        if ready:
            g = ready.pop()
        elif over:
            raise RuntimeError(
                "overwrite_logits=True: the logits are gone, so the pullback can be called but once"
            )
        else:
            g = problem.new()
            problem.run(g)
        return problem.multiply(g, dy), None

    return loss, pullback


register("cross_entropy", value, vjp, takes, *OPTIONS)

# Of a linear layer: the products are cuBLAS's, and the kernels run on each block of logits.
linear = OPERATIONS["linear_cross_entropy"]
options = *linear.options, "slices"
register(linear.name, linear.portable.value, linear.portable.vjp, dtypes.takes, *options)
