"""The kernel of the sum of two branches."""

from __future__ import annotations

from typing import Any

from ...core.operation import OPERATIONS, Implementation, Pullback
from .simd.elements import FEW
from .toolchain.arguments import flat, why_not
from .toolchain.compiling import compiled_in_parts
from .toolchain.memory import empty
from .toolchain.signatures import FLOATS, Read1, Write1
from .toolchain.threads import PIECES

operation = OPERATIONS["add"]


@compiled_in_parts(PIECES, kind=FLOATS)
def sums(x: Read1, y: Read1, z: Write1, relu: bool, parts: int, part: int) -> None:
    """Write x + y to z; with ``relu``, 0 where that is less."""
    first, last = x.size * part // parts, x.size * (part + 1) // parts
    x, y, z = x[first:last], y[first:last], z[first:last]
    if relu:
        for i in range(z.size):
            total = x[i] + y[i]
            z[i] = 0 if total <= 0 else total
    else:
        for i in range(z.size):
            z[i] = x[i] + y[i]


def takes(x: Any, y: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_not(x, y)


def value(x: Any, y: Any, *, activation: str | None) -> Any:
    """Return the sum."""
    z = empty(x.shape, x.dtype)
    sums[x.dtype](flat(x), flat(y), z.reshape(-1), activation == "relu", alone=x.size < FEW)
    return z


def vjp(x: Any, y: Any, *, activation: str | None) -> tuple[Any, Pullback]:
    """Return the sum and its pullback, which is cheap."""
    return operation.portable.vjp(x, y, activation=activation)


operation.add_kernel(
    "numpy", Implementation("Numba loop", value, vjp, takes, options=("activation",))
)
