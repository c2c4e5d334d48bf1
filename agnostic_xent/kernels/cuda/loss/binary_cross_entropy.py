"""The kernels of the binary losses: from normalised arguments to launches and back."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ....core.operation import Pullback
from ..toolchain.device import in_blocks_of, register, xp
from ..toolchain.dtypes import WIDE, code_of, given, stored, takes
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
    Factors,
    Places,
    binary_kernel,
    weights_kernel,
)
from .gradients import with_pullback
from .sums import total, unit_and_divisor


class Options(NamedTuple):
    """The options of the binary losses that their kernels know; pos_weight is that of logits."""

    weight: Any
    sample_weight: Any
    label_smoothing: float
    reduction: str
    normalize: Any
    on_empty: str
    pos_weight: Any = None


class Broadcast(NamedTuple):
    """An array that broadcasts: its element of element i is the one at ``i // inner % period``."""

    array: Any = None
    inner: int = 1
    period: int = 1


def broadcast(x: Any, shape: tuple[int, ...]) -> Broadcast:
    """Return how x broadcasts to a shape; of None, a `Broadcast` without array."""
    if x is None:
        return Broadcast()
    lengths = (1,) * (len(shape) - x.ndim) + x.shape
    own = [axis for axis, length in enumerate(lengths) if length > 1]
    if not own:
        return Broadcast(given(x))
    along = slice(own[0], own[-1] + 1)
    x = xp.broadcast_to(x.reshape(lengths[along]), shape[along])  # axes in between are copied
    return Broadcast(given(x), math.prod(shape[along.stop :]), x.size)


class Problem:
    """A call: its arrays as the kernels read them, and what the options are to them."""

    def __init__(self, name: str, scores: Any, target: Any, options: Options):
        self.shape, self.dtype, self.code = scores.shape, scores.dtype, code_of(scores)
        self.kernel, self.options = binary_kernel(name, self.code), options
        self.arrays = given(scores), given(target)
        weight = broadcast(options.weight, self.shape)
        pos_weight = broadcast(options.pos_weight, self.shape)
        self.weight, self.pos_weight = weight.array, pos_weight.array
        self.sample_weight = given(options.sample_weight)
        self.places = Places(
            scores.size, weight.inner, weight.period, pos_weight.inner, pos_weight.period,
            of_sample=math.prod(self.shape[1:]),
        )  # fmt: skip
        self.blocks = -(-scores.size // BLOCK)
        self.flags = WEIGHTED * (self.weight is not None)
        self.flags |= SAMPLED * (self.sample_weight is not None)
        weighted = options.normalize == "weight" and self.flags
        self.unit, self.divisor = unit_and_divisor(
            options, options.normalize, scores.size, self.masses if weighted else None
        )
        self.flags |= POSITIVE * (self.pos_weight is not None)
        self.flags |= DIVIDED * (self.divisor is not None)

    def masses(self) -> Any:
        """Return numbers whose sum is that of all weights."""
        sums, places = xp.empty(self.blocks, np.float64), self.places
        weights_kernel(self.code)(
            self.blocks, self.weight, self.sample_weight, sums, places.n, places.inner,
            places.period, places.of_sample, self.flags,
        )  # fmt: skip
        return sums

    def launch(
        self, dy: Any = None, *, skips: bool = False, sums: Any = None, terms: Any = None,
        dx: Any = None, dt: Any = None,
    ) -> None:  # fmt: skip
        """Write those of sums, terms and gradients that are given; ``skips``: not for a dy of 1."""
        flags = self.flags | SKIPS * skips
        if dy is not None:
            flags |= EACH if self.options.reduction == "none" else ONE
        wanted = {SUMS: sums, TERMS: terms, SCORES: dx, TARGETS: dt}
        flags |= sum(flag for flag, x in wanted.items() if x is not None)
        written = (x if x is None else stored(x) for x in (terms, dx, dt))
        smoothing = self.options.label_smoothing
        factors = Factors(1 - smoothing, smoothing / 2, self.unit)
        self.kernel(
            self.blocks, *self.arrays, self.weight, self.pos_weight, self.sample_weight,
            self.divisor, given(dy), sums, *written, *self.places, flags,
            *map(WIDE[self.code], factors),
        )  # fmt: skip

    def run(self, dx: Any = None) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to dx, if there is one."""
        if self.options.reduction == "none":
            terms = self.new()
            self.launch(terms=terms)
            return terms
        sums = xp.empty(self.blocks, np.float64)
        self.launch(sums=sums, dx=dx)
        return total(sums, self.dtype, self.unit, self.divisor)

    def new(self) -> Any:
        """Return a new array for terms or a gradient, like the scores."""
        return xp.empty(self.shape, self.dtype)


def add(name: str, *options: str) -> None:
    """Register the kernels of the loss ``name``, which know some options."""

    def value(scores: Any, target: Any, **options: Any) -> Any:
        return Problem(name, scores, target, Options(**options)).run()

    def vjp(
        scores: Any, target: Any, *, wrt: frozenset[int], **options: Any
    ) -> tuple[Any, Pullback]:
        return with_pullback(Problem(name, scores, target, Options(**options)), wrt)

    register(name, value, vjp, takes, *options, fits=in_blocks_of(BLOCK))


*SHARED, POS_WEIGHT = Options._fields
add("binary_cross_entropy", *SHARED)
add("binary_cross_entropy_with_logits", *SHARED, POS_WEIGHT)
