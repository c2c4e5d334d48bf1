"""Softmax cross entropy over labels with a cap, a prior or a z-loss: a thread, warp or block a row.

The scores are ``u = S tanh(z / S) + T log prior``, where the second part is an offset of each
class; then ``d = (u - max(u)) / T``, s the sum of ``exp(d)`` and Q the sum of q as in
``soft_targets.py``, whose two sweeps these are. With r the log-sum-exp and b the z-loss a term is
``a (b r^2 - sum q log p)``, and its gradient ``a (Q p - q + 2 b r p) / T``, times
``1 - tanh(z / S)^2``. Notation of ``formulas.py``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ....core.arrays import quiet
from ....core.operation import Pullback
from ..toolchain.device import register, xp
from ..toolchain.dtypes import WIDE, of_wide
from ..toolchain.elementary import HYPERBOLIC_TANGENTS, times_log
from ..toolchain.launching import Kernel, codes_of
from ..toolchain.ptx import ahead, get, narrow, put, sync_warp, widen
from ..toolchain.rows import AT_ONCE, TEAMS, THREADS, read_some
from ..toolchain.teams import absorb, cuda, device, team_merge, team_sum
from . import cross_entropy
from .cross_entropy import Options, Problem, fits, with_labels
from .formulas import WRITES, Factors, Samples, describe, sum_of_weights
from .soft_targets import slope_of, weight_of

CAPPED, MOVED, SUMS = (1 << k for k in range(6, 9))
"""What ``flags`` say besides: there is a cap, a prior; log-sum-exps are written."""


def make_scores(kind: Any) -> tuple[Callable[..., Any], ...]:
    """Return the functions of scores that are computed in a type."""
    tanh = HYPERBOLIC_TANGENTS[kind]

    @device
    def score_of(v: Any, offset: Any, c: Any, base: Any, softcap: Any, flags: Any) -> Any:
        """Return the score of class c with the logit v, less ``base``."""
        if flags & CAPPED:
            v = softcap * tanh(v / softcap)
        v -= base
        if flags & MOVED:
            v += get(offset, c)
        return v

    @device
    def base_of(v: Any, softcap: Any, flags: Any) -> Any:
        """Return what scores lose for their offsets to keep digits: the label's without its own.

        0 where that is not finite, or there is no offset.
        """
        if flags & CAPPED:
            v = softcap * tanh(v / softcap)
        return v if flags & MOVED and v - v == 0 else kind(0)

    @device
    def slope_of_logit(
        v: Any, q: Any, mass: Any, d: Any, rest: Any, pull: Any, softcap: Any, flags: Any
    ) -> Any:
        """Return the gradient of a term with respect to ``v / T``, with ``pull`` for 2 b r."""
        slope = slope_of(q, mass, d, rest)
        if pull != 0:
            slope += pull * kind(math.exp(d)) / (kind(1) + rest)
        if flags & CAPPED:
            t = tanh(v / softcap)
            slope *= (kind(1) - t) * (kind(1) + t)
        return slope

    return score_of, base_of, slope_of_logit


def make_summed(kind: Any, team: int, score_of: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function by which a thread of a team sums exponentials of a row."""

    @device
    def summed(
        v: Any, x: Any, start: Any, first: Any, classes: Any, inner: Any, offset: Any, base: Any,
        softcap: Any, sharpness: Any, flags: Any,
    ) -> Any:  # fmt: skip
        """Return the greatest score of the thread's classes and the sum of the others'; see absorb.

        ``v`` is memory for logits.
        """
        top, rest = kind(-math.inf), kind(0)
        for j in range(first, classes, team * AT_ONCE):
            read_some(v, x, start, j, team, classes, inner, kind(-math.inf))
            for u in range(AT_ONCE):
                c = j + u * team
                if c < classes:
                    score = score_of(v[u], offset, c, base, softcap, flags)
                    top, rest = absorb(top, rest, score, sharpness)
        return top, rest

    return summed


def make_scored(code: str, team: int) -> Callable[..., None]:
    """Return the kernel of terms and gradients for a dtype, with ``team`` threads to a row."""
    kind: Any = WIDE[code]
    in_block = THREADS // team
    score_of, base_of, slope_of_logit = make_scores(kind)
    summed = make_summed(kind, team, score_of)

    def scored(
        x: Any, labels: Any, weight: Any, sample_weight: Any, weight_sum: Any, divisor: Any,
        offset: Any, g: Any, terms: Any, sums: Any, rows: int, classes: int, inner: int,
        ignore: int, flags: int, kept: float, spread: float, sharpness: float, unit: float,
        softcap: float, z_loss: float,
    ) -> None:  # fmt: skip
        room = cuda.shared.array(32, kind)
        v = cuda.local.array(AT_ONCE, kind)
        t = cuda.threadIdx.x
        n = np.int64(cuda.blockIdx.x) * in_block + t // team
        if n >= rows:  # all of a team
            return
        zero, one, nothing = kind(0), kind(1), kind(-math.inf)
        start = n // inner * classes * inner + n % inner
        label, counts, a, w, b = describe(
            n, labels, weight, sample_weight, divisor, classes, ignore, flags, unit
        )
        base = base_of(widen(get(x, start + label * inner)), softcap, flags)
        top, rest = summed(
            v, x, start, t % team, classes, inner, offset, base, softcap, sharpness, flags
        )
        top, rest = team_merge(top, rest, sharpness, room, t, team)
        if team > 1:  # g may be x, whose number at the label all of the team have read
            sync_warp()
        log_sum, term = kind(math.log1p(rest)), zero
        of_scores = (base + top) * sharpness + log_sum
        pull = kind(2) * z_loss * of_scores
        mass = kept * w + spread * sum_of_weights(weight_sum, classes, flags, unit)
        for j in range(t % team, classes, team * AT_ONCE):
            read_some(v, x, start, j, team, classes, inner, nothing)
            here = ahead(g, start + j * inner)  # as in read_some
            for u in range(AT_ONCE):
                c = j + u * team
                if c < classes:
                    score = score_of(v[u], offset, c, base, softcap, flags)
                    d = (score - top) * sharpness
                    q = spread * weight_of(weight, c, flags, one)
                    if c == label:
                        q += kept * w
                    term -= times_log(q, d - log_sum)
                    if flags & WRITES:
                        slope = slope_of_logit(v[u], q, mass, d, rest, pull, softcap, flags)
                        put(here, u * team * inner, narrow(g, b * slope if counts else zero))
        term = team_sum(term, room, t, team)
        if t % team == 0:
            if z_loss != 0:
                term += z_loss * of_scores * of_scores
            put(terms, n, a * term if counts else zero)
            if flags & SUMS:
                put(sums, n, of_scores)

    scored.__qualname__ = f"scored_{team}"
    return scored


@functools.cache
def scored_kernel(code: str, team: int) -> Kernel:
    """Return the kernel for a dtype and a team, made once."""
    k = of_wide(code)
    arrays = f"{code}* i8* {k}* {k}* f8* f8* {k}* {code}* f8* {k}*"
    parameters = f"{arrays} {codes_of(Samples)} {codes_of(Factors, k)} {k} {k}"
    return Kernel(make_scored(code, team), parameters, THREADS, 2 if code == "f8" else 3)


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [scored_kernel(code, team) for code in WIDE for team in TEAMS]


class ScoredProblem(Problem):
    """A call whose scores are not the logits alone, or whose log-sum-exp is asked for."""

    def run(self, g: Any = None) -> Any:
        """Return the loss; write its gradient for a cotangent of 1 to g, if there is one."""
        options, kind, rows = self.options, WIDE[self.code], self.layout.rows
        terms, sums = xp.empty(rows, np.float64), None
        if options.return_logsumexp:
            sums = xp.empty(rows, kind)
        flags = self.flags | WRITES * (g is not None) | SUMS * (sums is not None)
        flags |= CAPPED * (options.softcap is not None) | MOVED * (options.class_prior is not None)
        kernel, blocks = self.kernel()
        kernel(
            blocks, self.x, self.target, self.weight, self.sample_weight, self.weight_sum(),
            self.divisor, self.offset(), g, terms, sums,
            *Samples(*self.layout, self.ignore or 0, flags),
            *map(kind, self.factors_of_logits()), kind(options.softcap or 1), kind(options.z_loss),
        )  # fmt: skip
        loss = self.reduced(terms)
        return loss if sums is None else (loss, sums.astype(self.dtype).reshape(self.samples))

    def offset(self) -> Any:
        """Return what a prior adds to the logit of each class; None without one."""
        prior = self.options.class_prior
        if prior is None:
            return None
        with quiet():  # of a class that does not occur it is -inf
            log_prior = xp.log(prior.astype(np.float64))
        return (log_prior * self.options.temperature).astype(WIDE[self.code])

    def kernel(self) -> tuple[Kernel, int]:
        """Return the kernel for the layout of the logits, and its blocks."""
        return scored_kernel(self.code, self.layout.team), self.layout.blocks


def takes(logits: Any, target: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, None if they are: the target is labels."""
    if options["class_prior"] is not None and options["temperature"] == math.inf:
        return "it takes a finite temperature beside class_prior"
    return cross_entropy.takes(logits, target, **options)


def value(logits: Any, target: Any, **options: Any) -> Any:
    """Return the loss of logits and labels, and log-sum-exps if they are asked for."""
    return ScoredProblem(logits, target, Options(**options)).run()


def vjp(
    logits: Any, target: Any, *, wrt: frozenset[int], **options: Any
) -> tuple[Any, Pullback]:  # fmt: skip
    """Return the same, and the pullback of the loss."""
    return with_labels(ScoredProblem(logits, target, Options(**options)), wrt)


register("cross_entropy", value, vjp, takes, *Options._fields, fits=fits)
