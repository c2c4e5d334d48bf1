"""Cross entropy of logits that are capped first: that of other logits, at another temperature."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....core.arrays import quiet
from ....core.operation import Pullback
from ..simd.elements import FEW
from ..toolchain.compiling import compiled_in_parts
from ..toolchain.memory import empty
from ..toolchain.signatures import FLOATS, Read1, Write1
from ..toolchain.threads import PIECES
from .plans import Plan

BLOCK = 16384
"""Elements that are divided and go through tanh while they are in cache."""


class CappedPlan:
    """What calls with a cap S have in common: ``S tanh(z / S) / T`` is ``t / (T / S)``.

    Parameters
    ----------
    inner : Plan
        Of t, at the temperature T / S.
    softcap : float
        S.
    """

    def __init__(self, inner: Plan, softcap: float):
        self.inner, self.softcap = inner, softcap

    def value(self, logits: Any, target: Any, **arrays: Any) -> Any:
        """Return the loss; ``arrays`` are those among the options."""
        return self.inner.value(capped(logits, self.softcap), target, **arrays)

    def vjp(
        self, logits: Any, target: Any, *, wrt: frozenset[int], **arrays: Any
    ) -> tuple[Any, Pullback]:
        """Return the loss and its pullback."""
        t = capped(logits, self.softcap)
        loss, of_inner = self.inner.vjp(t, target, wrt=wrt, **arrays)

        def pullback(dy: Any) -> tuple[Any, Any]:
            g, dt = of_inner(dy)
            if g is not None:
                uncap[g.dtype](g.reshape(-1), t.reshape(-1), 1 / self.softcap, alone=g.size < FEW)
            return g, dt

        return loss, pullback


def capped(logits: Any, softcap: float) -> Any:
    """Return ``tanh(z / S)``, in C order."""
    z = np.ascontiguousarray(logits).reshape(-1)
    t = empty(z.shape, z.dtype)
    with quiet():
        for start in range(0, z.size, BLOCK):
            block = t[start : start + BLOCK]
            np.divide(z[start : start + BLOCK], softcap, out=block)
            np.tanh(block, out=block)
    return t.reshape(logits.shape)


@compiled_in_parts(PIECES, kind=FLOATS)
def uncap(g: Write1, t: Read1, slope: float, parts: int, part: int) -> None:
    """Turn the gradient g of t into that of the logits; ``slope`` is 1 / S."""
    first, last = g.size * part // parts, g.size * (part + 1) // parts
    g, t, slope = g[first:last], t[first:last], g.dtype.type(slope)
    for i in range(g.size):
        g[i] *= (1 - t[i]) * (1 + t[i]) * slope
