"""The kernels of the activations of elements: one read and one write."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...core.operation import Pullback
from .toolchain.device import register, xp
from .toolchain.dtypes import WIDE, code_of, given, stored, takes
from .toolchain.elementary import exp_minus_abs, sigmoid_of
from .toolchain.launching import Kernel
from .toolchain.ptx import get, narrow, put, widen
from .toolchain.teams import cuda, device

THREADS = 256
AT_ONCE = 8  # elements that a thread waits for together
BLOCKS = {"f4": 4, "f8": 2, "f2": 4, "u2": 4}  # of a multiprocessor


@device
def relu(v: Any) -> Any:
    """Return max(v, 0); NaN stays NaN."""
    return type(v)(0) if v <= 0 else v


@device
def relu_gradient(v: Any, dv: Any) -> Any:
    """Return dv where v is not below 0, else 0."""
    return type(v)(0) if v <= 0 else dv


@device
def sigmoid_gradient(v: Any, dv: Any) -> Any:
    """Return dv times the sigmoid's slope at v, with all its digits where the value is almost 1."""
    one, e = type(v)(1), exp_minus_abs(v)
    return dv * e / ((one + e) * (one + e))


@device
def log_sigmoid(v: Any) -> Any:
    """Return log(1 / (1 + exp(-v)))."""
    return (v if v < 0 else type(v)(0)) - type(v)(math.log1p(exp_minus_abs(v)))


@device
def log_sigmoid_gradient(v: Any, dv: Any) -> Any:
    """Return dv times the slope of log_sigmoid at v."""
    return dv * sigmoid_of(-v)


# --- kernels -------------------------------------------------------------------------------------

FORMULAS = {
    "relu": (relu, relu_gradient),
    "sigmoid": (sigmoid_of, sigmoid_gradient),
    "log_sigmoid": (log_sigmoid, log_sigmoid_gradient),
}
"""The formulas of an activation and of its pullback."""


def make_value(name: str, code: str) -> Callable[..., None]:
    """Return the kernel of the activation ``name`` for elements of the dtype ``code``."""
    (formula, _), kind = FORMULAS[name], WIDE[code]

    def value(x: Any, y: Any, n: int) -> None:
        v = cuda.local.array(AT_ONCE, kind)
        first = np.int64(cuda.blockIdx.x) * THREADS * AT_ONCE + cuda.threadIdx.x
        for u in range(AT_ONCE):
            if first + u * THREADS < n:
                v[u] = widen(get(x, first + u * THREADS))
        for u in range(AT_ONCE):
            if first + u * THREADS < n:
                put(y, first + u * THREADS, narrow(y, formula(v[u])))

    value.__qualname__ = name
    return value


def make_gradient(name: str, code: str) -> Callable[..., None]:
    """Return the kernel of the pullback of ``name`` for elements of the dtype ``code``."""
    (_, formula), kind = FORMULAS[name], WIDE[code]

    def gradient(x: Any, dy: Any, dx: Any, n: int) -> None:
        v = cuda.local.array(AT_ONCE, kind)
        dv = cuda.local.array(AT_ONCE, kind)
        first = np.int64(cuda.blockIdx.x) * THREADS * AT_ONCE + cuda.threadIdx.x
        for u in range(AT_ONCE):
            if first + u * THREADS < n:
                v[u] = widen(get(x, first + u * THREADS))
                dv[u] = widen(get(dy, first + u * THREADS))
        for u in range(AT_ONCE):
            if first + u * THREADS < n:
                put(dx, first + u * THREADS, narrow(dx, formula(v[u], dv[u])))

    gradient.__qualname__ = f"{name}_gradient"
    return gradient


@functools.cache
def value_kernel(name: str, code: str) -> Kernel:
    """Return the kernel of the activation ``name`` for a dtype, made once."""
    return Kernel(make_value(name, code), f"{code}* {code}* i8", THREADS, BLOCKS[code])


@functools.cache
def gradient_kernel(name: str, code: str) -> Kernel:
    """Return the kernel of the pullback of ``name`` for a dtype, made once."""
    parameters = f"{code}* {code}* {code}* i8"
    return Kernel(make_gradient(name, code), parameters, THREADS, BLOCKS[code])


def run(made: Callable[[str, str], Kernel], name: str, *arrays: Any) -> Any:
    """Return what the kernel of ``name``, by ``made``, writes from arrays of one shape."""
    y = xp.empty(arrays[0].shape, arrays[0].dtype)
    blocks = -(-y.size // (THREADS * AT_ONCE))
    made(name, code_of(y))(blocks, *map(given, arrays), stored(y), y.size)
    return y


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = value_kernel, gradient_kernel
    return [make(name, code) for make in made for name in FORMULAS for code in WIDE]


def add(name: str) -> None:
    """Register the kernels of the activation ``name``."""

    def value(x: Any) -> Any:
        return run(value_kernel, name, x)

    def vjp(x: Any) -> tuple[Any, Pullback]:
        return value(x), lambda dy: (run(gradient_kernel, name, x, dy),)

    register(name, value, vjp, takes)


for name in FORMULAS:
    add(name)
