"""The kernels of activations and sums of elements: each array is read or written once."""

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


@device
def sum_of_two(v: Any, w: Any) -> Any:
    """Return v + w."""
    return v + w


@device
def rectified_sum(v: Any, w: Any) -> Any:
    """Return max(v + w, 0); NaN stays NaN."""
    return relu(v + w)


# --- kernels -------------------------------------------------------------------------------------

OF_ONE = {"relu": relu, "sigmoid": sigmoid_of, "log_sigmoid": log_sigmoid}
"""Formulas of one element."""

OF_TWO = {
    "relu_gradient": relu_gradient,
    "sigmoid_gradient": sigmoid_gradient,
    "log_sigmoid_gradient": log_sigmoid_gradient,
    "sum": sum_of_two,
    "rectified_sum": rectified_sum,
}
"""Formulas of an element of each of two arrays."""


def make_of_one(name: str, code: str) -> Callable[..., None]:
    """Return the kernel of a formula of one element of the dtype ``code``."""
    formula, kind = OF_ONE[name], WIDE[code]

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


def make_of_two(name: str, code: str) -> Callable[..., None]:
    """Return the kernel of a formula of two elements of the dtype ``code``."""
    formula, kind = OF_TWO[name], WIDE[code]

    def value(x: Any, other: Any, y: Any, n: int) -> None:
        v = cuda.local.array(AT_ONCE, kind)
        w = cuda.local.array(AT_ONCE, kind)
        first = np.int64(cuda.blockIdx.x) * THREADS * AT_ONCE + cuda.threadIdx.x
        for u in range(AT_ONCE):
            if first + u * THREADS < n:
                v[u] = widen(get(x, first + u * THREADS))
                w[u] = widen(get(other, first + u * THREADS))
        for u in range(AT_ONCE):
            if first + u * THREADS < n:
                put(y, first + u * THREADS, narrow(y, formula(v[u], w[u])))

    value.__qualname__ = name
    return value


@functools.cache
def kernel_of(name: str, code: str) -> Kernel:
    """Return the kernel of the formula ``name`` for a dtype, made once."""
    made = (make_of_one if name in OF_ONE else make_of_two)(name, code)
    arrays = f"{code}* " * (2 if name in OF_ONE else 3)
    return Kernel(made, f"{arrays}i8", THREADS, BLOCKS[code])


def run(name: str, *arrays: Any) -> Any:
    """Return what the kernel of ``name`` writes from arrays of one shape."""
    y = xp.empty(arrays[0].shape, arrays[0].dtype)
    blocks = -(-y.size // (THREADS * AT_ONCE))
    kernel_of(name, code_of(y))(blocks, *map(given, arrays), stored(y), y.size)
    return y


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    return [kernel_of(name, code) for name in (*OF_ONE, *OF_TWO) for code in WIDE]


def add_activation(name: str) -> None:
    """Register the kernels of an activation."""

    def value(x: Any) -> Any:
        return run(name, x)

    def vjp(x: Any) -> tuple[Any, Pullback]:
        return value(x), lambda dy: (run(f"{name}_gradient", x, dy),)

    register(name, value, vjp, takes)


for name in OF_ONE:
    add_activation(name)

# --- sums ----------------------------------------------------------------------------------------


def add(x1: Any, x2: Any, *, activation: str | None) -> Any:
    """Return the sum of two arrays, rectified if need be."""
    return run("rectified_sum" if activation else "sum", x1, x2)


def add_vjp(x1: Any, x2: Any, *, activation: str | None) -> tuple[Any, Pullback]:
    """Return the sum of two arrays, rectified if need be, and its pullback."""
    y = add(x1, x2, activation=activation)

    def pullback(dy: Any) -> tuple[Any, Any]:
        dx = run("relu_gradient", y, dy) if activation else dy
        return dx, dx

    return y, pullback


register("add", add, add_vjp, takes, "activation")
