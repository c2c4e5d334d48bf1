"""Layers: frozen hyper-parameters with `init`, a call for inference, and `vjp` for training.

``init(rng, shape)`` takes the shape of one sample, without the batch axis, and returns
``(params, shape)``: NumPy parameters and the shape of one output. ``vjp(params, x, train=, rng=,
input_grad=)`` returns ``(y, pullback)``, and ``pullback(dy)`` returns ``(dx, grads)``, where dx is
None without ``input_grad``. A layer defines this as ``forward(params, x, how)``. Nothing is stored
on a layer. Gradients are arrays that nobody else has: they may be written to, and on several ranks
are.

Parameters are one flat dict with torch's spelling ("0.weight", "3.bias"). Running statistics are
parameters that are not trained: in ``grads`` their entries are their new values, see
`split_statistics`.
"""

from .activations import GELU, LeakyReLU, ReLU, SiLU, Tanh
from .base import (
    STATISTICS,
    Layer,
    LayerPullback,
    OperationLayer,
    Params,
    Pass,
    Shape,
    WithPullback,
    split_statistics,
)
from .batch_normalization import BatchNorm1d, BatchNorm2d, BatchNorm3d
from .convolution import Conv1d, Conv2d, Conv3d
from .dense import Dense
from .dropout import Dropout
from .flatten import Flatten
from .pooling import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    GlobalAvgPool,
    GlobalAvgPool2d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from .sample_normalization import GroupNorm, LayerNorm
from .standardize import Standardize

__all__ = [
    "GELU",
    "STATISTICS",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "GlobalAvgPool2d",
    "GroupNorm",
    "Layer",
    "LayerNorm",
    "LayerPullback",
    "LeakyReLU",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "OperationLayer",
    "Params",
    "Pass",
    "ReLU",
    "Shape",
    "SiLU",
    "Standardize",
    "Tanh",
    "WithPullback",
    "split_statistics",
]
