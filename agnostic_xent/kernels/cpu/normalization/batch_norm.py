"""The kernel of batch normalization: one pass over memory forward, one backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....core.operation import OPERATIONS, Implementation, Pullback
from ..simd.elements import SMALL
from ..toolchain.arguments import NOTHING, why_not
from ..toolchain.memory import empty
from . import loops

operation = OPERATIONS["batch_norm"]


def takes(*arrays: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_not(*arrays)


def rows(x: Any) -> Any:
    """Return each image as a row."""
    return np.ascontiguousarray(x).reshape(len(x), -1)


def vjp(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *, train: bool,
    momentum: float, eps: float, activation: str | None, wrt: frozenset[int],
) -> tuple[Any, Pullback]:  # fmt: skip
    """Return the normalised images, the new running statistics, and the pullback."""
    rule = loops.Rule(train, activation == "relu", momentum, eps)
    images, alone, kind, channels = rows(x), x.size < SMALL, x.dtype, x.shape[1]
    weight, bias = np.ascontiguousarray(weight), np.ascontiguousarray(bias)
    running = np.ascontiguousarray(running_mean), np.ascontiguousarray(running_var)
    found = np.empty(2 * channels)
    moved = [np.empty(channels if train else 0, kind) for _ in range(2)]
    y = empty(x.shape, kind)
    given = images, weight, bias, *running, rule
    loops.value[kind](*given, found, *moved, rows(y), alone=alone)
    if not train:
        moved = [running_mean, running_var]

    def pullback(dy: Any) -> tuple[Any, ...]:
        dx, below = None, NOTHING[kind].reshape(0, 0)
        if 0 in wrt:
            dx = empty(x.shape, kind)
            below = rows(dx)
        gradients = np.empty(channels, kind), np.empty(channels, kind)
        given = rows(dy), images, weight, bias, found, rule
        loops.gradient[kind](*given, below, *gradients, alone=alone)
        return dx, *gradients, None, None

    return (y, *moved), pullback


def value(*arrays: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Return the normalised images and the new running statistics."""
    found: tuple[Any, Any, Any] = vjp(*arrays, **options, wrt=frozenset())[0]
    return found


options = "train", "momentum", "eps", "activation"
operation.add_kernel("numpy", Implementation("Numba loops", value, vjp, takes, options=options))
