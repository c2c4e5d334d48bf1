"""Normalization of each sample by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.arrays import Array
from ...core.cached import cached_property
from ...core.checks import set_integers
from ...operations.sample_normalization import group_norm, layer_norm
from ..onnx_graph import OnnxGraph
from .base import OperationLayer, Params, Pass, Shape, WithPullback

__all__ = ["GroupNorm", "LayerNorm"]


class _SampleNorm(OperationLayer):
    """Normalization of each sample by itself, with a weight and a bias."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        y, pullback = self.operation.vjp(*self._arrays(params, x), **self._options)

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, dweight, dbias = pullback(dy)
            return dx if how.input_grad else None, {"weight": dweight, "bias": dbias}

        return y, of_layer

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        return x, params["weight"], params["bias"]

    def _fresh(self, own: Shape, shape: Shape) -> tuple[Params, Shape]:
        """Return parameters of a shape that change nothing, and that of one output sample."""
        import numpy as np

        params = {"weight": np.ones(own, "float32"), "bias": np.zeros(own, "float32")}
        return params, self._output_shape(params, shape)


@dataclass(frozen=True)
class LayerNorm(_SampleNorm):
    """Normalization of each sample over its last axes: `layer_norm`.

    With torch's ``LayerNorm(shape)`` in place of ``LayerNorm(axes)``, ``shape`` has as many sizes.
    """

    operation = layer_norm
    axes: int = 1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        set_integers(self, "axes")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        if len(shape) < self.axes:
            raise ValueError(f"LayerNorm takes samples of {self.axes} or more axes, got {shape}")
        return self._fresh(shape[-self.axes :], shape)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        inputs = x, *graph.parameters("weight", "bias")
        return graph.node("LayerNormalization", *inputs, axis=-self.axes, epsilon=self.eps)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {"eps": self.eps}


@dataclass(frozen=True)
class GroupNorm(_SampleNorm):
    """Normalization of each sample over groups of channels: `group_norm`."""

    operation = group_norm
    groups: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        set_integers(self, "groups")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        return self._fresh(shape[:1], shape)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        ONNX normalises channels one by one: groups are taken for such.
        """
        shape = graph.shapes[x]
        rows = graph.node("Reshape", x, graph.constant("rows", [0, self.groups, -1]))
        one, zero = (
            graph.filled(k, [self.groups], v) for k, v in {"one": 1.0, "zero": 0.0}.items()
        )
        unit = graph.node("InstanceNormalization", rows, one, zero, epsilon=self.eps)
        y = graph.node("Reshape", unit, graph.constant("whole", [0, *shape]))
        channels = graph.constant("channels", [-1, *(1 for _ in shape[1:])])
        weight, bias = graph.parameters("weight", "bias")
        y = graph.node("Mul", y, graph.node("Reshape", weight, channels))
        return graph.node("Add", y, graph.node("Reshape", bias, channels))
