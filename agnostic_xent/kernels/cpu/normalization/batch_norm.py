"""The kernel of batch normalization: two passes over memory forward, two backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ....core.arrays import quiet
from ....core.operation import OPERATIONS, Implementation, Pullback
from ..simd.elements import SMALL
from ..toolchain.arguments import why_not
from ..toolchain.memory import empty
from . import loops

operation = OPERATIONS["batch_norm"]


def takes(*arrays: Any, **options: Any) -> str | None:
    """Return why these arguments are not taken, or None."""
    return why_not(*arrays)


class Planes:
    """The images of one call by planes, and what they are transformed by."""

    def __init__(self, x: Any, weight: Any, mean: Any, var: Any, train: bool, eps: float):
        self.shape, self.dtype = x.shape, x.dtype
        self.x, self.train = self.of(x), train
        self.count = x.size // x.shape[1]
        self.alone = x.size < SMALL
        self.weight = weight.astype(np.float64)
        if train:
            self.mean, self.var = self.statistics()
        else:
            self.mean, self.var = mean.astype(np.float64), var.astype(np.float64)
        with quiet():
            self.inverse = 1 / np.sqrt(self.var + eps)

    def of(self, x: Any) -> Any:
        """Return images as planes, (N*C, H*W)."""
        return np.ascontiguousarray(x).reshape(self.shape[0] * self.shape[1], -1)

    def sums(self) -> Any:
        """Return room for a number a plane, (N, C)."""
        return np.empty(self.shape[:2])

    def rounded(self, *numbers: Any) -> Any:
        """Return numbers of the channels in the dtype of the images."""
        return [v.astype(self.dtype) for v in numbers]

    def statistics(self) -> tuple[Any, Any]:
        """Return mean and biased variance of each channel, from those of its planes."""
        means, spreads = self.sums(), self.sums()
        loops.moments[self.dtype](self.x, means.reshape(-1), spreads.reshape(-1), alone=self.alone)
        with quiet():
            mean = means.mean(axis=0)
            between = self.x.shape[1] * np.square(means - mean)
            return mean, (spreads + between).sum(axis=0) / self.count

    def value(self, bias: Any) -> Any:
        """Return the normalised images."""
        y = empty(self.shape, self.dtype)
        mean, scale = self.rounded(self.mean, self.weight * self.inverse)
        bias = np.ascontiguousarray(bias)
        loops.transform[self.dtype](self.x, mean, scale, bias, self.of(y), alone=self.alone)
        return y

    def gradients(self, dy: Any, wrt: frozenset[int]) -> tuple[Any, Any, Any]:
        """Return the gradients of images, weight and bias."""
        dx = dweight = dbias = None
        dy = self.of(dy)
        if self.train or wrt & {1, 2}:
            sums, products = self.sums(), self.sums()
            flat = sums.reshape(-1), products.reshape(-1)
            loops.products[self.dtype](dy, self.x, self.mean, *flat, alone=self.alone)
            with quiet():
                dweight, dbias = products.sum(axis=0) * self.inverse, sums.sum(axis=0)
        if 0 in wrt:
            dx = self.image_gradient(dy, dweight, dbias)
        if dweight is not None:
            dweight, dbias = self.rounded(dweight, dbias)
        return dx, dweight, dbias

    def image_gradient(self, dy: Any, dweight: Any, dbias: Any) -> Any:
        """Return the gradient of the images."""
        dx, nothing = empty(self.shape, self.dtype), np.zeros(self.shape[1], self.dtype)
        mean, scale = self.rounded(self.mean, self.weight * self.inverse)
        slope = shift = nothing
        if self.train:  # the batch's mean and variance depend on x, too
            with quiet():
                slope, shift = dweight * self.inverse / self.count, dbias / self.count
                slope, shift = self.rounded(slope, shift)
        numbers = mean, scale, slope, shift
        loops.gradient[self.dtype](dy, self.x, *numbers, self.of(dx), alone=self.alone)
        return dx


def vjp(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, *, train: bool,
    momentum: float, eps: float, wrt: frozenset[int],
) -> tuple[Any, Pullback]:  # fmt: skip
    """Return the normalised images, the new running statistics, and the pullback."""
    planes = Planes(x, weight, running_mean, running_var, train, eps)
    y = planes.value(bias)
    if train:
        with quiet():
            unbiased = planes.var * (planes.count / (planes.count - 1))
            running_mean = (1 - momentum) * running_mean + momentum * planes.mean
            running_var = (1 - momentum) * running_var + momentum * unbiased
        running_mean, running_var = planes.rounded(running_mean, running_var)

    def pullback(dy: Any) -> tuple[Any, ...]:
        return (*planes.gradients(dy, wrt), None, None)

    return (y, running_mean, running_var), pullback


def value(*arrays: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Return the normalised images and the new running statistics."""
    found: tuple[Any, Any, Any] = vjp(*arrays, **options, wrt=frozenset())[0]
    return found


options = "train", "momentum", "eps"
operation.add_kernel("numpy", Implementation("Numba loops", value, vjp, takes, options=options))
