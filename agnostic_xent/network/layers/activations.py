"""Activations as layers."""

from __future__ import annotations

from dataclasses import dataclass

from ...operations.activations import relu
from ...operations.elementwise import gelu, leaky_relu, silu, tanh
from ..onnx_graph import OnnxGraph
from .base import OperationLayer

__all__ = ["GELU", "LeakyReLU", "ReLU", "SiLU", "Tanh"]


class ReLU(OperationLayer):
    """Rectified linear unit: `relu`."""

    operation, onnx_node = relu, "Relu"


class Tanh(OperationLayer):
    """Hyperbolic tangent: `tanh`."""

    operation, onnx_node = tanh, "Tanh"


class SiLU(OperationLayer):
    """Sigmoid linear unit: `silu`."""

    operation = silu

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to a graph; return the output's name."""
        return graph.node("Mul", x, graph.node("Sigmoid", x))


@dataclass(frozen=True)
class GELU(OperationLayer):
    """Gaussian error linear unit: `gelu`."""

    operation = gelu
    approximate: str = "none"

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("Gelu", x, approximate=self.approximate)


@dataclass(frozen=True)
class LeakyReLU(OperationLayer):
    """Leaky rectified linear unit: `leaky_relu`."""

    operation = leaky_relu
    negative_slope: float = 0.01

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("LeakyRelu", x, alpha=self.negative_slope)
