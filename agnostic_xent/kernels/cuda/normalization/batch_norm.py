"""The kernels of batch normalization: from normalised arguments to launches and back.

Training reads the images twice and writes them once; so does the pullback with its two arrays.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ....core.operation import Pullback
from ..toolchain.device import in_blocks_of, register, xp
from ..toolchain.dtypes import code_of, given, stored, takes
from .channels import PIECE, WARPS, Extent, kernels_of

BLOCKS = 1024
"""Blocks that keep any GPU busy: eight for each of 128 multiprocessors."""

PARTS = 64
"""At most, since each warp of the next kernel reads the sums of all parts of its channel."""


class Images:
    """The images of one call, and what they are normalised by."""

    def __init__(self, x: Any, weight: Any, bias: Any, train: bool, relu: bool):
        self.shape, self.dtype, self.train, self.relu = x.shape, x.dtype, train, relu
        images, self.channels, *size = x.shape
        self.extent = Extent(images, self.channels, math.prod(size))
        self.x, self.weight, self.bias = given(x), given(weight), given(bias)
        self.kernels = kernels_of(code_of(x))
        pieces = -(-self.extent.plane // PIECE)
        self.planes = images * self.channels
        self.blocks = -(-self.planes * pieces // WARPS)
        most = min(PARTS, BLOCKS // self.channels)
        self.parts = max(1, min(-(-images * pieces // WARPS), most))
        self.found = xp.empty(2 * self.channels, np.float64)

    def new(self) -> Any:
        """Return a new array of one number for each channel."""
        return xp.empty(self.channels, self.dtype)

    def sums(self, count: int) -> Any:
        """Return a new array of ``count`` sums for each part and channel."""
        return xp.empty(count * self.parts * self.channels, np.float64)

    def value(self, mean: Any, var: Any, momentum: float, eps: float) -> tuple[Any, Any, Any]:
        """Return the normalised images times the weight, plus the bias; new mean and variance.

        ``found`` is written, of the batch if it trains.
        """
        sums, moved, y = None, (mean, var), xp.empty(self.shape, self.dtype)
        if self.train:
            sums, moved = self.sums(3), (self.new(), self.new())
            self.kernels["moments"]((self.channels, self.parts), self.x, sums, *self.extent)
        self.kernels["transform"](
            self.blocks, self.x, self.weight, self.bias, given(mean), given(var), sums,
            self.found, *map(given, moved), stored(y), self.planes, self.channels,
            self.extent.plane, self.parts, momentum, eps, self.train, self.relu,
        )  # fmt: skip
        return y, *moved

    def gradients(self, dy: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of images, weight and bias."""
        dy, sums = given(dy), self.sums(2)
        dx, dweight, dbias = xp.empty(self.shape, self.dtype), self.new(), self.new()
        grid = self.channels, self.parts
        given_arrays = self.x, dy, self.weight, self.bias, self.found, sums
        self.kernels["products"](grid, *given_arrays, *self.extent, self.relu)
        self.kernels["gradient"](
            self.blocks, *given_arrays, stored(dx), stored(dweight), stored(dbias), self.planes,
            self.channels, self.extent.plane, self.parts, self.x.size // self.channels,
            self.train, self.relu,
        )  # fmt: skip
        return dx, dweight, dbias


def vjp(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *, train: bool,
    momentum: float, eps: float, activation: str | None, wrt: frozenset[int],
) -> tuple[Any, Pullback]:  # fmt: skip
    """Return the normalised images, the new running statistics, and the pullback."""
    images = Images(x, weight, bias, train, activation == "relu")
    found = images.value(running_mean, running_var, momentum, eps)

    def pullback(dy: Any) -> tuple[Any, ...]:
        gradients = images.gradients(dy)
        return *(d if i in wrt else None for i, d in enumerate(gradients)), None, None

    return found, pullback


def value(*arrays: Any, **options: Any) -> Any:
    """Return the normalised images and the new running statistics."""
    return vjp(*arrays, **options, wrt=frozenset())[0]


options = "train", "momentum", "eps", "activation"
register("batch_norm", value, vjp, takes, *options, fits=in_blocks_of(2))
