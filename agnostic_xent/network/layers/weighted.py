"""What layers with weights share: their start, and the gradients of their parameters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...core.arrays import Array
from ...core.checks import generator
from .base import OperationLayer, Params, Pass, Shape, WithPullback


def weight_and_bias(rng: Any, shape: Shape, bias: bool) -> Params:
    """Return weights of variance 2 / fan_in (He et al., arXiv:1502.01852), and zeros for a bias."""
    import numpy as np

    scale = math.sqrt(2 / math.prod(shape[1:]))
    params = {"weight": (generator(rng).standard_normal(shape) * scale).astype("float32")}
    return params | {"bias": np.zeros(shape[0], dtype="float32")} if bias else params


class _WeightedLayer(OperationLayer):
    """A layer whose operation takes x, weights, and perhaps a bias."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        wrt = [0] * how.input_grad + [1, 2] * how.param_grads
        y, pullback = self.operation.vjp(*self._arrays(params, x), wrt=wrt, **self._options)

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, dw, db = pullback(dy)
            grads = {"weight": dw, "bias": db}
            return dx, {name: grad for name, grad in grads.items() if grad is not None}

        return y, of_layer

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        return x, params["weight"], params.get("bias")
