"""Fully connected layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...core.cached import cached_property
from ...core.checks import set_integers
from ...operations.dense import dense
from ..onnx_graph import OnnxGraph
from .base import Params, Shape
from .weighted import _WeightedLayer, weight_and_bias

__all__ = ["Dense"]


@dataclass(frozen=True)
class Dense(_WeightedLayer):
    """Fully connected layer: `dense` with weights (units, features)."""

    operation = dense
    units: int
    bias: bool = True

    def __post_init__(self) -> None:
        set_integers(self, "units")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        if len(shape) != 1:
            raise ValueError(
                f"Dense takes samples of shape (features,), got {shape}; put Flatten() before it"
            )
        return weight_and_bias(rng, (self.units, *shape), self.bias), (self.units,)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("Gemm", x, *graph.parameters("weight", "bias"), transB=1)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {}
