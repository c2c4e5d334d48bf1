"""Maxima and means over windows of samples, and over whole channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...core.geometry import Padding, SizesLike
from ...operations.pooling import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    global_avg_pool,
    global_avg_pool2d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from ..onnx_graph import OnnxGraph
from .base import OperationLayer
from .windows import Windowed

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "GlobalAvgPool",
    "GlobalAvgPool2d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
]


@dataclass(frozen=True)
class _MaxPool(Windowed, OperationLayer):
    """Maximum over windows."""

    window: SizesLike
    stride: SizesLike | None = None
    padding: Padding = 0
    dilation: SizesLike = 1
    ceil_mode: bool = False

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        Padding of dilated windows is a node: in onnxruntime it has to be less than the window, and
        windows without a pixel, which are -inf here, are not.
        """
        options = self._onnx_windows(
            graph.shapes[x], dilation=self.dilation, ceil_mode=self.ceil_mode
        )
        if max(options["dilations"]) > 1:
            x = graph.padded(x, options["pads"], -math.inf)
            options["pads"] = [0] * len(options["pads"])
        return graph.node("MaxPool", x, **options)


class MaxPool1d(_MaxPool):
    """Maximum over windows of signals: `max_pool1d`."""

    operation, rank = max_pool1d, 1


class MaxPool2d(_MaxPool):
    """Maximum over windows: `max_pool2d`."""

    operation, rank = max_pool2d, 2


class MaxPool3d(_MaxPool):
    """Maximum over windows of volumes: `max_pool3d`."""

    operation, rank = max_pool3d, 3


@dataclass(frozen=True)
class _AvgPool(Windowed, OperationLayer):
    """Mean over windows."""

    window: SizesLike
    stride: SizesLike | None = None
    padding: Padding = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        In ONNX what ``ceil_mode`` adds would count as padding does, so that padding is a node then.
        """
        options = self._onnx_windows(graph.shapes[x], ceil_mode=self.ceil_mode)
        padding_counts = self.count_include_pad
        if padding_counts and self.ceil_mode:
            plain = self._onnx_windows(graph.shapes[x])
            both = zip(options["pads"], plain["pads"], strict=True)
            options["pads"] = [pad - counted for pad, counted in both]
            x, padding_counts = graph.padded(x, plain["pads"], 0.0), False
        return graph.node("AveragePool", x, count_include_pad=int(padding_counts), **options)


class AvgPool1d(_AvgPool):
    """Mean over windows of signals: `avg_pool1d`."""

    operation, rank = avg_pool1d, 1


class AvgPool2d(_AvgPool):
    """Mean over windows: `avg_pool2d`."""

    operation, rank = avg_pool2d, 2


class AvgPool3d(_AvgPool):
    """Mean over windows of volumes: `avg_pool3d`."""

    operation, rank = avg_pool3d, 3


class GlobalAvgPool(OperationLayer):
    """Mean of each channel: `global_avg_pool`; (C, L), (C, H, W) or (C, D, H, W) -> (C,)."""

    operation = global_avg_pool

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        axes = range(2, 1 + len(graph.shapes[x]))
        return graph.node("ReduceMean", x, graph.constant("axes", [*axes]), keepdims=0)


class GlobalAvgPool2d(GlobalAvgPool):
    """Mean over all pixels: `global_avg_pool2d`; (C, H, W) -> (C,)."""

    operation = global_avg_pool2d
