"""Batch normalization whose statistics are those of all ranks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..core.arrays import Array, array_namespace, constant, narrow, widen
from ..core.communication import Alone, Communicator
from ..operations.activations import relu
from ..operations.normalization import axes_of, per_channel
from .containers import mapped
from .layers import Layer, Params, Pass, WithPullback
from .layers.batch_normalization import _BatchNorm

__all__ = ["synchronize_batch_norm"]


def synchronize_batch_norm(model: Layer, communicator: Communicator) -> Layer:
    """Return a model whose batch normalization takes its statistics over all ranks.

    Without it each rank normalises by the mean and variance of its own share of a batch, and
    only the running statistics are averaged: cheaper, but then the number of ranks changes the
    result.

    Parameters
    ----------
    model : layer
        A batch normalization, or a layer made of layers, such as `Sequential`, with some in it.
    communicator : Communicator
        That of `fit`.

    Examples
    --------
    >>> model = Sequential(Conv2d(4, 3), BatchNorm2d(), ReLU())
    >>> model = synchronize_batch_norm(model, MPICommunicator())  # doctest: +SKIP
    """

    def synchronized(name: str, layer: Layer) -> Layer:
        if isinstance(layer, _BatchNorm):
            return SynchronizedBatchNorm(layer.momentum, layer.eps, layer.activation, communicator)
        return layer

    return mapped(model, synchronized)


@dataclass(frozen=True)
class SynchronizedBatchNorm(_BatchNorm):
    """Batch normalization, over any number of axes, with statistics over all ranks.

    Two sums go around in the forward pass, mean before variance, and one in the backward pass.
    """

    communicator: Communicator = field(default=Alone(), repr=False, compare=False)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        if not how.train:
            return super().forward(params, x, how)
        xp, add, wide = array_namespace(x), self.communicator.sum, widen(x)
        axes = axes_of(x)
        own = constant(math.prod(x.shape[axis] for axis in axes), wide)
        sums = add(xp.concat([xp.sum(wide, axis=axes), xp.reshape(own, (1,))]))
        mean, count = sums[:-1] / sums[-1], sums[-1]
        centred = wide - per_channel(mean, x)
        var = add(xp.sum(centred * centred, axis=axes)) / count
        inverse = 1 / xp.sqrt(var + self.eps)
        unit = centred * per_channel(inverse, x)
        weight, bias = widen(params["weight"]), widen(params["bias"])
        y = narrow(unit * per_channel(weight, x) + per_channel(bias, x), x)
        if self.activation:
            y, of_relu = relu.vjp(y)
        moved = {
            name: narrow((1 - self.momentum) * widen(params[name]) + self.momentum * new, x)
            for name, new in (
                ("running_mean", mean), ("running_var", var * (count / (count - 1)))
            )
        }  # fmt: skip

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dy = widen(of_relu(dy)[0] if self.activation else dy)
            dweight, dbias = xp.sum(dy * unit, axis=axes), xp.sum(dy, axis=axes)
            grads = {"weight": narrow(dweight, x), "bias": narrow(dbias, x)} | moved
            if not how.input_grad:
                return None, grads
            means = add(xp.stack([dbias, dweight])) / count
            dx = dy - per_channel(means[0, :], x) - unit * per_channel(means[1, :], x)
            return narrow(dx * per_channel(weight * inverse, x), x), grads

        return y, of_layer

    def _explained(self, params: Mapping[str, Array], x: Array) -> list[str]:
        return ["batch_norm: portable (its statistics are those of all ranks)"]

    def _check(self, x: Array) -> None:
        """Take samples of any rank: those that the layer in whose place this one is takes."""
