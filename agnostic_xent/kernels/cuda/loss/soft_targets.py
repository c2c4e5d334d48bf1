"""The kernels of cross entropy over probabilities: rows by a thread, a warp or a block.

With ``d = (z - max(z)) / T``, s the sum of ``exp(d)``, ``log p = d - log s`` and Q the sum of q,
the term of a row is ``-a sum q log p`` and its gradient ``a (Q exp(d) / s - q) / T``. A row whose q
is all in one class is treated as that label: its gradient there is ``-a Q others / (s T)``. Two
sweeps, as in ``softmax.py``. Notation of ``formulas.py``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ....core.operation import Pullback
from ..toolchain import dtypes
from ..toolchain.device import register, xp
from ..toolchain.dtypes import WIDE, elements, of_wide
from ..toolchain.elementary import times_log
from ..toolchain.launching import Kernel, codes_of
from ..toolchain.ptx import ahead, get, narrow, put, widen
from ..toolchain.rows import AT_ONCE, TEAMS, THREADS, Layout, read_some
from ..toolchain.teams import absorb, cuda, device, team_merge, team_sum
from .cross_entropy import PLAIN, Options, Problem, fits
from .formulas import DIVIDED, SAMPLED, WEIGHTED, Factors
from .gradients import with_pullback
from .sums import total

ONE, EACH, SKIPS, TERMS, LOGITS, TARGETS = (1 << k for k in range(6, 12))
"""What ``flags`` say besides: a cotangent of all or of each, which need not be multiplied by if it
is 1; what is wanted: terms, both gradients."""


@device
def weight_of(weight: Any, c: Any, flags: Any, like: Any) -> Any:
    """Return the weight of class c, which is 1 of the type of ``like`` where there are none."""
    return get(weight, c) if flags & WEIGHTED else type(like)(1)


@device
def factors_of(n: Any, sample_weight: Any, divisor: Any, dy: Any, flags: Any, unit: Any) -> Any:
    """Return a sample's weight, and the gradient of the loss with respect to ``term / a``."""
    kind = type(unit)
    a, b = kind(1), unit
    if flags & SAMPLED:
        a = get(sample_weight, n)
    if flags & DIVIDED:
        b *= kind(get(divisor, 1))
    if flags & (ONE | EACH):
        b *= widen(get(dy, n if flags & EACH else 0))
    return a, b * a


@device
def slope_of(q: Any, mass: Any, d: Any, rest: Any) -> Any:
    """Return the gradient of a term with respect to ``z / T``; ``rest`` is ``s - 1``.

    Where q is all there is, p - 1 would lose its digits.
    """
    e, total = type(d)(math.exp(d)), type(d)(1) + rest
    if q == mass:
        return -mass * ((rest if d == 0 else total - e) / total)
    return mass * e / total - q


def make_soft(code: str, team: int) -> Callable[..., None]:
    """Return the kernel of terms and gradients for a dtype, with ``team`` threads to a row."""
    kind: Any = WIDE[code]
    in_block = THREADS // team

    def soft(
        x: Any, target: Any, weight: Any, sample_weight: Any, divisor: Any, loss: Any, dy: Any,
        terms: Any, dx: Any, dt: Any, rows: int, classes: int, inner: int, flags: int,
        kept: float, spread: float, sharpness: float, unit: float,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, kind)
        v = cuda.local.array(AT_ONCE, kind)
        p = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        n = np.int64(cuda.blockIdx.x) * in_block + t // team
        if n >= rows:  # all of a team
            return
        zero, one, nothing = kind(0), kind(1), kind(-math.inf)
        if flags & SKIPS and widen(get(dy, 0)) == one:
            return
        a, b = factors_of(n, sample_weight, divisor, dy, flags, unit)
        start = n // inner * classes * inner + n % inner
        top, rest, mass = nothing, zero, zero
        for j in range(t % team, classes, team * AT_ONCE):
            read_some(v, x, start, j, team, classes, inner, nothing)
            read_some(p, target, start, j, team, classes, inner, zero)
            for u in range(AT_ONCE):
                top, rest = absorb(top, rest, v[u], sharpness)
                if j + u * team < classes:
                    mass += weight_of(weight, j + u * team, flags, one) * (p[u] * kept + spread)
        top, rest = team_merge(top, rest, sharpness, room, t, team)
        mass = team_sum(mass, room, t, team)
        log_sum, term = kind(math.log1p(rest)), zero
        for j in range(t % team, classes, team * AT_ONCE):
            read_some(v, x, start, j, team, classes, inner, nothing)
            read_some(p, target, start, j, team, classes, inner, zero)
            first = start + j * inner
            dx_here, dt_here = ahead(dx, first), ahead(dt, first)  # as in read_some
            for u in range(AT_ONCE):
                c, d = j + u * team, (v[u] - top) * sharpness
                if c < classes:
                    i, w = u * team * inner, weight_of(weight, c, flags, one)
                    q = w * (p[u] * kept + spread)
                    term -= times_log(q, d - log_sum)
                    if flags & LOGITS:
                        slope = slope_of(q, mass, d, rest)
                        put(dx_here, i, narrow(dx, zero if a == 0 else b * (slope * sharpness)))
                    if flags & TARGETS:
                        slope = -times_log(kept * w, d - log_sum)
                        if flags & DIVIDED:  # by the sum of the targets
                            slope -= kind(get(loss, 0)) * w
                        put(dt_here, i, narrow(dt, zero if a == 0 else b * slope))
        if flags & TERMS:
            term = team_sum(term, room, t, team)
            if t % team == 0:
                put(terms, n, zero if a == 0 else a * term)

    soft.__qualname__ = f"soft_{team}"
    return soft


def make_masses(code: str, team: int) -> Callable[..., None]:
    """Return the kernel that writes ``a sum w t`` of each row."""
    kind: Any = WIDE[code]
    in_block = THREADS // team

    def masses(
        target: Any, weight: Any, sample_weight: Any, sums: Any,
        rows: int, classes: int, inner: int, flags: int,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, np.float64)
        t = cuda.threadIdx.x
        n = np.int64(cuda.blockIdx.x) * in_block + t // team
        if n >= rows:
            return
        start = n // inner * classes * inner + n % inner
        mass = 0.0
        for c in range(t % team, classes, team):
            w = weight_of(weight, c, flags, kind(1))
            mass += w * widen(get(target, start + c * inner))
        mass = team_sum(mass, room, t, team)
        if t % team == 0:
            a = get(sample_weight, n) if flags & SAMPLED else kind(1)
            put(sums, n, 0.0 if a == 0 else a * mass)

    masses.__qualname__ = f"masses_{team}"
    return masses


@functools.cache
def soft_kernel(code: str, team: int) -> Kernel:
    """Return the kernel of terms and gradients for a dtype and a team, made once."""
    x, k = f"{code}*", of_wide(code)
    arrays, numbers = f"{x} {x} {k}* {k}* f8* f8* {x} f8* {x} {x}", codes_of(Factors, k)
    parameters = f"{arrays} {codes_of(Layout)} i4 {numbers}"
    return Kernel(make_soft(code, team), parameters, THREADS, 2 if code == "f8" else 3)


@functools.cache
def masses_kernel(code: str, team: int) -> Kernel:
    """Return the kernel of the numbers whose sum the mean divides by, made once."""
    k = of_wide(code)
    parameters = f"{code}* {k}* {k}* f8* {codes_of(Layout)} i4"
    return Kernel(make_masses(code, team), parameters, THREADS, 4)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [
        made(code, team) for made in (soft_kernel, masses_kernel) for code in WIDE for team in TEAMS
    ]


class SoftProblem(Problem):
    """A call with probabilities."""

    by_default = "count"
    loss: Any = None
    """The loss on the device, where the gradient of the targets asks for it."""

    def read_target(self, target: Any) -> Any:
        """Return the probabilities, as the kernels read them."""
        return self.read(target)

    def counts_all(self) -> bool:
        """Tell whether each sample counts 1: not by weight, for its target may add up to less."""
        return bool(self.by != "weight")

    def masses(self) -> Any:
        """Return numbers whose sum the mean divides by."""
        sums = xp.empty(self.layout.rows, np.float64)
        masses_kernel(self.code, self.layout.team)(
            self.layout.blocks, self.target, self.weight, self.sample_weight, sums, *self.layout,
            self.flags,
        )  # fmt: skip
        return sums

    def launch(
        self, dy: Any = None, *, skips: bool = False, terms: Any = None, dx: Any = None,
        dt: Any = None,
    ) -> None:  # fmt: skip
        """Write those of terms and gradients that are given; ``skips``: not for a dy of 1."""
        flags = self.flags | SKIPS * skips
        if dy is not None:
            flags |= EACH if self.options.reduction == "none" else ONE
        wanted = {TERMS: terms, LOGITS: dx, TARGETS: dt}
        flags |= sum(flag for flag, x in wanted.items() if x is not None)
        soft_kernel(self.code, self.layout.team)(
            self.layout.blocks, self.x, self.target, self.weight, self.sample_weight, self.divisor,
            self.loss, elements(dy), terms, dx, dt, *self.layout, flags,
            *map(WIDE[self.code], self.factors()),
        )  # fmt: skip

    def run(self, g: Any = None) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if there is one."""
        terms = xp.empty(self.layout.rows, np.float64)
        self.launch(terms=terms, dx=g)
        if self.divisor is not None:
            self.loss = total(terms, np.float64, 1.0, self.divisor).reshape(1)
        return self.reduced(terms)


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, None if they are: the target is probabilities."""
    if target.dtype.kind in "iu":
        return "it takes probabilities"
    return dtypes.takes(logits, target, **options)


def value(logits: Any, target: Any, **options: Any) -> Any:
    """Return the loss of logits and probabilities."""
    return SoftProblem(logits, target, Options(**options)).run()


def vjp(
    logits: Any, target: Any, *, wrt: frozenset[int], **options: Any
) -> tuple[Any, Pullback]:  # fmt: skip
    """Return the loss of logits and probabilities, and its pullback."""
    problem = SoftProblem(logits, target, Options(**options))
    loss, pullback = with_pullback(problem, wrt)
    return loss, lambda dy: tuple(map(problem.laid_out, pullback(dy)))


register("cross_entropy", value, vjp, takes, *PLAIN, fits=fits)
