"""Samples as rows of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...core.arrays import Array
from ...core.checks import namespace
from ..onnx_graph import OnnxGraph
from .base import Layer, Pass, WithPullback

__all__ = ["Flatten"]


@dataclass(frozen=True)
class Flatten(Layer):
    """Flatten each sample: (C, H, W) -> (C * H * W,)."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        xp, shape = namespace(x=x), tuple(x.shape)
        y = xp.reshape(x, (shape[0], math.prod(shape[1:])))
        return y, lambda dy: (xp.reshape(dy, shape) if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("Flatten", x, axis=1)
