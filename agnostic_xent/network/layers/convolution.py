"""Convolution of signals, images and volumes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ...core.cached import cached_property
from ...core.checks import set_integers
from ...core.geometry import LAYOUTS, Padding, SizesLike, as_sizes
from ...operations.convolution import check_groups, conv1d, conv2d, conv3d
from ..onnx_graph import OnnxGraph
from .base import Params, Shape
from .weighted import _WeightedLayer, weight_and_bias
from .windows import Windowed

__all__ = ["Conv1d", "Conv2d", "Conv3d"]


@dataclass(frozen=True)
class _Convolution(Windowed, _WeightedLayer):
    """Convolution layer with weights (filters, C / groups, *window)."""

    filters: int
    window: SizesLike
    stride: SizesLike = 1
    padding: Padding = 0
    dilation: SizesLike = 1
    groups: int = 1
    bias: bool = True
    activation: str | None = None

    def __post_init__(self) -> None:
        set_integers(self, "filters", "groups")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        if len(shape) != 1 + self.rank:
            letters = LAYOUTS[self.rank].replace("N, ", "")
            raise ValueError(f"{type(self).__name__} takes samples of shape {letters}, got {shape}")
        check_groups(shape[0], self.filters, self.groups)
        window = as_sizes("window", self.window, self.rank)
        weight = (self.filters, shape[0] // self.groups, *window)
        params = weight_and_bias(rng, weight, self.bias)
        return params, self._output_shape(params, shape)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        They are a convolution, and behind it the ReLU that it does too.
        """
        options = self._onnx_windows(graph.shapes[x], dilation=self.dilation)
        inputs = x, *graph.parameters("weight", "bias")
        y = graph.node("Conv", *inputs, group=self.groups, **options)
        return graph.node("Relu", y) if self.activation else y

    @cached_property
    def _options(self) -> dict[str, Any]:
        of_parameters = ("filters", "window", "bias")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in of_parameters}


class Conv1d(_Convolution):
    """Convolution layer for signals: `conv1d` with weights (filters, C / groups, KL)."""

    operation, rank = conv1d, 1


@dataclass(frozen=True)
class Conv2d(_Convolution):
    """Convolution layer: `conv2d` with weights (filters, C / groups, KH, KW)."""

    operation, rank = conv2d, 2
    max_pool: int | None = None

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        They are a convolution, and behind it the ReLU and the pool that it does too.
        """
        y = super().to_onnx(graph, x)
        if self.max_pool:
            pair = as_sizes("max_pool", self.max_pool, self.rank)
            y = graph.node("MaxPool", y, kernel_shape=pair, strides=pair)
        return y


class Conv3d(_Convolution):
    """Convolution layer for volumes: `conv3d` with weights (filters, C / groups, KD, KH, KW)."""

    operation, rank = conv3d, 3
