"""Samples as numbers without a unit, by statistics of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.arrays import Array
from ..onnx_graph import OnnxGraph
from .base import Layer, Params, Pass, Shape, WithPullback

__all__ = ["Standardize"]


@dataclass(frozen=True)
class Standardize(Layer):
    """Standardised numbers: ``(x - mean) / std``, by channel of images, by feature of rows.

    The statistics are parameters, so that they are kept and exported with a model, but are not
    trained: `standardized` takes them from data.
    """

    trained = False

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return parameters that change nothing, and the shape of one output sample."""
        import numpy as np

        own = (shape[0], *(1 for _ in shape[1:]))  # (C, 1, 1) or (features,)
        return {"mean": np.zeros(own, "float32"), "std": np.ones(own, "float32")}, shape

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        std = params["std"]
        return (x - params["mean"]) / std, lambda dy: (dy / std if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to a graph; return its output's name."""
        mean, std = graph.parameters("mean", "std")
        return graph.node("Div", graph.node("Sub", x, mean), std)
