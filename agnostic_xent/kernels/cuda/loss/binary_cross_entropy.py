"""The kernels of the binary losses: from normalised arguments to launches and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....core.operation import OPERATIONS, Pullback
from ..toolchain.device import contiguous, register, xp
from ..toolchain.dtypes import WIDE, code_of, stored, takes
from . import sums as loss_sums
from .binary_kernels import (
    BLOCK,
    DIVIDED,
    EACH,
    ONE,
    POSITIVE,
    SAMPLED,
    SCORES,
    SKIPS,
    SUMS,
    TARGETS,
    TERMS,
    WEIGHTED,
    binary_kernel,
    weights_kernel,
)


def given(x: Any) -> Any:
    """Return an array as the kernels read it; None stays None."""
    return None if x is None else stored(contiguous(x))


def placed(x: Any, shape: tuple[int, ...]) -> tuple[Any, int, int]:
    """Return an array that broadcasts to a shape: element i is found at i // inner % period."""
    if x is None:
        return None, 1, 1
    lengths = (1,) * (len(shape) - x.ndim) + x.shape
    own = [axis for axis, length in enumerate(lengths) if length > 1]
    if not own:
        return given(x), 1, 1
    along = slice(own[0], own[-1] + 1)
    x = xp.broadcast_to(x.reshape(lengths[along]), shape[along])  # axes in between are copied
    return given(x), math.prod(shape[along.stop :]), x.size


class Problem:
    """A call: its arrays as the kernels read them, and what the options are to them."""

    def __init__(
        self, name: str, scores: Any, target: Any, *, weight: Any, sample_weight: Any,
        label_smoothing: float, reduction: str, normalize: Any, on_empty: str,
        pos_weight: Any = None,
    ):  # fmt: skip
        self.shape, self.dtype, self.code = scores.shape, scores.dtype, code_of(scores)
        self.kernel, self.reduction = binary_kernel(name, self.code), reduction
        self.arrays = given(scores), given(target)
        self.weight, *self.place = placed(weight, self.shape)
        self.pos_weight, *self.pos_place = placed(pos_weight, self.shape)
        self.sample_weight, self.of_sample = given(sample_weight), math.prod(self.shape[1:])
        self.count, self.blocks = scores.size, -(-scores.size // BLOCK)
        self.flags = WEIGHTED * (weight is not None) | SAMPLED * (sample_weight is not None)
        self.unit, self.divisor = self.unit_and_divisor(normalize, on_empty)
        self.flags |= POSITIVE * (pos_weight is not None) | DIVIDED * (self.divisor is not None)
        self.numbers = 1 - label_smoothing, label_smoothing / 2, self.unit

    def unit_and_divisor(self, normalize: Any, on_empty: str) -> tuple[float, Any]:
        """Return the gradient of the loss with respect to a term.

        If the device has to find out what the mean divides by, that is 1, with the sum and its
        reciprocal on the device, else None.
        """
        if self.reduction != "mean":
            return 1.0, None
        if isinstance(normalize, float):
            return 1 / normalize, None
        if normalize != "weight" or not self.flags:
            return 1 / self.count, None
        sums = xp.empty(self.blocks, np.float64)
        weights_kernel(self.code)(
            self.blocks, self.weight, self.sample_weight, sums, self.count, *self.place,
            self.of_sample, self.flags,
        )  # fmt: skip
        return 1.0, loss_sums.divisor(sums, 0.0 if on_empty == "zero" else math.nan)

    def launch(
        self, flags: int, dy: Any = None, sums: Any = None, terms: Any = None, dx: Any = None,
        dt: Any = None,
    ) -> None:  # fmt: skip
        """Let the kernel write what is there to be written."""
        wanted = {SUMS: sums, TERMS: terms, SCORES: dx, TARGETS: dt}
        flags |= self.flags + sum(flag for flag, x in wanted.items() if x is not None)
        written = (x if x is None else stored(x) for x in (terms, dx, dt))
        self.kernel(
            self.blocks, *self.arrays, self.weight, self.pos_weight, self.sample_weight,
            self.divisor, given(dy), sums, *written, self.count, *self.place, *self.pos_place,
            self.of_sample, flags, *map(WIDE[self.code], self.numbers),
        )  # fmt: skip

    def value(self, dx: Any = None) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to dx, if there is one."""
        if self.reduction == "none":
            terms = self.new()
            self.launch(0, terms=terms)
            return terms
        sums = xp.empty(self.blocks, np.float64)
        self.launch(0, sums=sums, dx=dx)
        return loss_sums.total(sums, self.dtype, self.unit, self.divisor)

    def new(self) -> Any:
        """Return an array for terms or a gradient."""
        return xp.empty(self.shape, self.dtype)


def add(name: str, *options: str) -> None:
    """Register the kernels of a loss that know some options."""
    portable = OPERATIONS[name].portable

    def value(scores: Any, target: Any, **options: Any) -> Any:
        if scores.size >= BLOCK << 31:  # more blocks than a grid has
            return portable.value(scores, target, **options)
        return Problem(name, scores, target, **options).value()

    def vjp(
        scores: Any, target: Any, *, wrt: frozenset[int], **options: Any
    ) -> tuple[Any, Pullback]:
        if scores.size >= BLOCK << 31:
            return portable.vjp(scores, target, **options)
        problem = Problem(name, scores, target, **options)
        each = problem.reduction == "none"
        ahead = [problem.new()] if wrt == {0} and not each else []
        loss = problem.value(*ahead)

        def pullback(dy: Any) -> tuple[Any, Any]:
            flags = EACH if each else ONE | SKIPS * len(ahead)
            # The array goes out once, since its new owner may write to it.
            dx = ahead.pop() if ahead else problem.new() if 0 in wrt else None
            dt = problem.new() if 1 in wrt else None
            problem.launch(flags, dy, dx=dx, dt=dt)
            return dx, dt

        return loss, pullback

    register(name, value, vjp, takes, *options)


OPTIONS = "weight", "sample_weight", "label_smoothing", "reduction", "normalize", "on_empty"
add("binary_cross_entropy", *OPTIONS)
add("binary_cross_entropy_with_logits", *OPTIONS, "pos_weight")
