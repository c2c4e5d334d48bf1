"""Normalization by the statistics of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ...core.arrays import Array
from ...core.cached import cached_property
from ...core.checks import check_ndim
from ...core.geometry import LAYOUTS
from ...operations.normalization import batch_norm
from ..onnx_graph import OnnxGraph
from .base import STATISTICS, OperationLayer, Params, Pass, Shape, WithPullback

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


@dataclass(frozen=True)
class _BatchNorm(OperationLayer):
    """Batch normalization: `batch_norm`, its running statistics among the parameters."""

    operation = batch_norm
    rank: ClassVar[int]
    momentum: float = 0.1
    eps: float = 1e-5
    activation: str | None = None

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        import numpy as np

        values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        params = {k: np.full(shape[0], v, dtype="float32") for k, v in values.items()}
        return params, self._output_shape(params, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return super().__call__(params, x)[0]

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        (y, mean, var), pullback = self.operation.vjp(
            *self._arrays(params, x), **self._options_in(how)
        )

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, dweight, dbias, _, _ = pullback(dy)
            statistics = {"running_mean": mean, "running_var": var}
            grads = {"weight": dweight, "bias": dbias} | statistics
            return dx if how.input_grad else None, grads

        return y, of_layer

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to a graph; return the output's name."""
        vectors = graph.parameters("weight", "bias", *STATISTICS)
        y = graph.node("BatchNormalization", x, *vectors, epsilon=self.eps)
        return graph.node("Relu", y) if self.activation else y

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("momentum", "eps", "activation")}

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        self._check(x)
        return x, *(params[name] for name in ("weight", "bias", *STATISTICS))

    def _check(self, x: Array) -> None:
        """Raise ValueError unless samples have the rank that the class says."""
        check_ndim("x", x, 2 + self.rank, LAYOUTS[self.rank])

    def _options_in(self, how: Pass) -> dict[str, Any]:
        return self._options | {"train": how.train}


class BatchNorm1d(_BatchNorm):
    """Batch normalization of signals, or of rows (N, C): `batch_norm`."""

    rank = 1

    def _check(self, x: Array) -> None:
        if x.ndim != 2:
            super()._check(x)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of images: `batch_norm`, its running statistics among the parameters."""

    rank = 2


class BatchNorm3d(_BatchNorm):
    """Batch normalization of volumes: `batch_norm`."""

    rank = 3
