"""The kernels of the activations of elements: one read and one write."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...operation import Pullback
from .device import contiguous, register, xp
from .dtypes import WIDE, code_of, stored, takes
from .launching import Kernel
from .ptx import get, narrow, put, widen
from .teams import cuda, device

THREADS = 256
PER_THREAD = 4  # elements

# --- formulas ------------------------------------------------------------------------------------


@device
def exp_minus_abs(v: Any) -> Any:
    """Return exp(-abs(v)), which never overflows."""
    return type(v)(math.exp(-abs(v)))


@device
def sigmoid_of(v: Any) -> Any:
    """Return 1 / (1 + exp(-v))."""
    one, e = type(v)(1), exp_minus_abs(v)
    return (one if v >= 0 else e) / (one + e)


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
    """Return dv times the slope, which keeps its digits where the value is almost 1."""
    one, e = type(v)(1), exp_minus_abs(v)
    return dv * e / ((one + e) * (one + e))


@device
def log_sigmoid(v: Any) -> Any:
    """Return log(1 / (1 + exp(-v)))."""
    return (v if v < 0 else type(v)(0)) - type(v)(math.log1p(exp_minus_abs(v)))


@device
def log_sigmoid_gradient(v: Any, dv: Any) -> Any:
    """Return dv times the slope."""
    return dv * sigmoid_of(-v)


# --- kernels -------------------------------------------------------------------------------------

FORMULAS = {
    "relu": (relu, relu_gradient),
    "sigmoid": (sigmoid_of, sigmoid_gradient),
    "log_sigmoid": (log_sigmoid, log_sigmoid_gradient),
}


def make_value(name: str) -> Callable[..., None]:
    """Return the kernel of a formula of one number."""
    formula = FORMULAS[name][0]

    def value(x: Any, y: Any, n: int) -> None:
        i = np.int64(cuda.blockIdx.x) * THREADS * PER_THREAD + cuda.threadIdx.x
        for _ in range(PER_THREAD):
            if i < n:
                put(y, i, narrow(y, formula(widen(get(x, i)))))
            i += THREADS

    value.__qualname__ = name
    return value


def make_gradient(name: str) -> Callable[..., None]:
    """Return the kernel of a formula of a number and a cotangent."""
    formula = FORMULAS[name][1]

    def gradient(x: Any, dy: Any, dx: Any, n: int) -> None:
        i = np.int64(cuda.blockIdx.x) * THREADS * PER_THREAD + cuda.threadIdx.x
        for _ in range(PER_THREAD):
            if i < n:
                put(dx, i, narrow(dx, formula(widen(get(x, i)), widen(get(dy, i)))))
            i += THREADS

    gradient.__qualname__ = f"{name}_gradient"
    return gradient


@functools.cache
def value_kernel(name: str, code: str) -> Kernel:
    """Return the kernel of an activation for a dtype."""
    return Kernel(make_value(name), f"{code}* {code}* i8", THREADS, 4)


@functools.cache
def gradient_kernel(name: str, code: str) -> Kernel:
    """Return the kernel of an activation's pullback for a dtype."""
    return Kernel(make_gradient(name), f"{code}* {code}* {code}* i8", THREADS, 4)


def run(made: Callable[[str, str], Kernel], name: str, *arrays: Any) -> Any:
    """Return what a kernel writes of arrays of one shape."""
    y = xp.empty(arrays[0].shape, arrays[0].dtype)
    blocks = -(-y.size // (THREADS * PER_THREAD))
    if blocks:
        given = [stored(contiguous(x)) for x in arrays]
        made(name, code_of(y))(blocks, *given, stored(y), y.size)
    return y


def variants() -> list[Kernel]:
    """Return all kernels of this file."""
    made = value_kernel, gradient_kernel
    return [make(name, code) for make in made for name in FORMULAS for code in WIDE]


def add(name: str) -> None:
    """Register the kernels of an activation."""

    def value(x: Any) -> Any:
        return run(value_kernel, name, x)

    def vjp(x: Any) -> tuple[Any, Pullback]:
        return value(x), lambda dy: (run(gradient_kernel, name, x, dy),)

    register(name, value, vjp, takes)


for name in FORMULAS:
    add(name)
