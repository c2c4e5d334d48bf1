"""The kernels of cross entropy over labels: from normalised arguments to launches and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ....core.operation import OPERATIONS, Pullback
from ....operations.labels import ignored_label, is_labels
from ..toolchain import dtypes
from ..toolchain.device import contiguous, in_blocks_of, register, xp
from ..toolchain.dtypes import WIDE, code_of, elements, of_wide, stored, wide
from ..toolchain.launching import Kernel, load
from ..toolchain.rows import FEW_PIXELS, layout_of
from ..toolchain.vectors import MOST, held_by, rows_of_block, team_for
from .apart import THREADS as APART
from .apart import apart_kernel
from .formulas import DIVIDED, IGNORES, SAMPLED, SMOOTHED, WEIGHTED, WRITES, Factors, Samples
from .held import held_kernel
from .rows import rows_kernel
from .samples import PER_THREAD, THREADS, masses_kernel, multiply_kernel
from .streams import streams_kernel
from .sums import total, total_kernels, unit_and_divisor

ROWS = 32
"""Rows of a block where classes are fewest."""

fits = in_blocks_of(ROWS)


class Options(NamedTuple):
    """The options of cross entropy that its kernels know."""

    axis: int
    weight: Any
    sample_weight: Any
    ignore_index: int | None
    label_smoothing: float
    temperature: float
    reduction: str
    normalize: Any
    on_empty: str
    overwrite_logits: bool
    softcap: float | None = None
    class_prior: Any = None
    z_loss: float = 0.0
    return_logsumexp: bool = False


PLAIN = Options._fields[:-4]
"""Those of kernels that know no others; the others' kernels are in ``scored.py``."""


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, None if they are: the target is labels."""
    if target.dtype.kind not in "iu":
        return "it takes labels"
    return dtypes.takes(logits, target, **options)


class Problem:
    """A call: its arrays as the kernels read them, and what the options are to them."""

    by_default = "weight"
    """What a mean divides by if nothing is said."""

    def __init__(self, logits: Any, target: Any, options: Options):
        self.options, self.code = options, code_of(logits)
        self.shape, self.dtype, axis = logits.shape, logits.dtype, options.axis
        self.layout = layout_of(self.shape, axis)
        self.moves = 1 < self.layout.inner < FEW_PIXELS
        if self.moves:
            self.layout = self.layout._replace(inner=1)
        self.samples = self.shape[:axis] + self.shape[axis + 1 :]
        self.x, self.target = self.read(logits), self.read_target(target)
        self.weight, self.sample_weight = wide(options.weight), wide(options.sample_weight)
        self.ignore = None
        if is_labels(target):
            self.ignore = ignored_label(options.ignore_index, np.iinfo(target.dtype), 64)
        self.flags = WEIGHTED * (self.weight is not None)
        self.flags |= SAMPLED * (self.sample_weight is not None)
        self.flags |= IGNORES * (self.ignore is not None)
        self.unit, self.divisor = self.unit_and_divisor()
        self.flags |= DIVIDED * (self.divisor is not None)
        self.flags |= SMOOTHED * (options.label_smoothing > 0)

    def read(self, x: Any) -> Any:
        """Return the elements of an array of the logits' shape, as the kernels read them."""
        return elements(xp.moveaxis(x, self.options.axis, -1) if self.moves else x)

    def read_target(self, target: Any) -> Any:
        """Return the labels, as the kernels read them."""
        return elements(target.astype(np.int64, copy=False))

    @property
    def by(self) -> Any:
        """What the mean divides by."""
        return self.options.normalize or self.by_default

    def unit_and_divisor(self) -> tuple[float, Any]:
        """Return the gradient of the loss with respect to a term, and the divisor of the mean."""
        masses = None if self.counts_all() else self.masses
        return unit_and_divisor(self.options, self.by, self.layout.rows, masses)

    def counts_all(self) -> bool:
        """Tell whether each sample counts 1 in what the mean divides by."""
        weighted = self.by == "weight" and self.flags & (WEIGHTED | SAMPLED)
        return self.ignore is None and not weighted

    def masses(self) -> Any:
        """Return numbers whose sum the mean divides by."""
        weights = WEIGHTED | SAMPLED if self.by == "weight" else 0
        sums = xp.empty(-(-self.layout.rows // (THREADS * PER_THREAD)), np.float64)
        masses_kernel(of_wide(self.code))(
            sums.size, self.target, self.weight, self.sample_weight, sums, self.layout.rows,
            self.layout.classes, self.ignore or 0, self.flags & (weights | IGNORES),
        )  # fmt: skip
        return sums

    def factors(self) -> Factors:
        """Return what terms are multiplied by, with ``unit`` for gradients of terms."""
        smoothing, sharpness = self.options.label_smoothing, 1 / self.options.temperature
        return Factors(1 - smoothing, smoothing / self.layout.classes, sharpness, self.unit)

    def run(self, g: Any = None) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if there is one."""
        terms = xp.empty(self.layout.rows, np.float64)
        samples = Samples(*self.layout, self.ignore or 0, self.flags | WRITES * (g is not None))
        kernel, blocks = self.kernel()
        kernel(
            blocks, self.x, self.target, self.weight, self.sample_weight, self.weight_sum(),
            self.divisor, g, terms, *samples, *map(WIDE[self.code], self.factors_of_logits()),
        )  # fmt: skip
        return self.reduced(terms)

    def weight_sum(self) -> Any:
        """Return the sum of the classes' weights, on the device, where labels are smoothed."""
        if self.flags & SMOOTHED and self.weight is not None:
            return xp.sum(self.weight, dtype=np.float64, keepdims=True)
        return None

    def factors_of_logits(self) -> Factors:
        """Return what terms are multiplied by, with ``unit`` for gradients of logits."""
        factors = self.factors()
        return factors._replace(unit=factors.unit * factors.sharpness)

    def reduced(self, terms: Any) -> Any:
        """Return the loss of the samples' terms."""
        if self.options.reduction == "none":
            return terms.astype(self.dtype).reshape(self.samples)
        return total(terms, self.dtype, self.unit, self.divisor)

    def kernel(self) -> tuple[Kernel, int]:
        """Return the kernel for the layout of the logits, and its blocks."""
        rows, classes, inner = self.layout
        if inner > 1:
            return apart_kernel(self.code), -(-rows // APART)
        if team := team_for(self.code, classes):
            return rows_kernel(self.code, *team), -(-rows // rows_of_block(team[0]))
        if threads := held_by(self.code, classes):
            return held_kernel(self.code, threads), rows
        return streams_kernel(self.code, MOST[self.code]), rows

    def multiply(self, g: Any, dy: Any) -> Any:
        """Multiply a gradient by the cotangent, in place; return it as an array like the logits."""
        blocks = -(-g.size // (THREADS * PER_THREAD))
        multiply_kernel(self.code)(
            blocks, g, self.target, self.sample_weight, elements(dy),
            *Samples(*self.layout, self.ignore or 0, self.flags), self.options.reduction == "none",
        )  # fmt: skip
        return self.laid_out(g)

    def laid_out(self, g: Any) -> Any:
        """Return a gradient as an array like the logits; None stays None."""
        if g is None:
            return None
        g, axis = g.view(self.dtype), self.options.axis
        if self.moves:
            return contiguous(xp.moveaxis(g.reshape(*self.samples, self.layout.classes), -1, axis))
        return g.reshape(self.shape)

    def new(self) -> Any:
        """Return a new array for the elements of a gradient, in the order of those of x."""
        return stored(xp.empty(self.x.size, self.dtype))


def value(logits: Any, target: Any, **options: Any) -> Any:
    """Return the loss of logits and labels."""
    return Problem(logits, target, Options(**options)).run()


def vjp(
    logits: Any, target: Any, *, wrt: frozenset[int], **options: Any
) -> tuple[Any, Pullback]:  # fmt: skip
    """Return the loss of logits and labels, and its pullback."""
    return with_labels(Problem(logits, target, Options(**options)), wrt)


def with_labels(problem: Problem, wrt: frozenset[int]) -> tuple[Any, Pullback]:
    """Return the loss of a problem, and its pullback.

    The gradient for a cotangent of 1 is there already.
    """
    if 0 not in wrt:
        return problem.run(), lambda dy: (None, None)
    over = problem.options.overwrite_logits and getattr(problem.x.flags, "writeable", True)
    if over:  # once the logits are gone, nothing else can compute the loss
        load(problem.kernel()[0], multiply_kernel(problem.code), *total_kernels(problem.code))
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


register("cross_entropy", value, vjp, takes, *PLAIN, fits=fits)

# Of a linear layer: the products are cuBLAS's, and the kernels run on each block of logits.
linear = OPERATIONS["linear_cross_entropy"]
options = *linear.options, "slices"
register(linear.name, linear.portable.value, linear.portable.vjp, dtypes.takes, *options)
