"""Prediction: a model compiled for samples of a shape."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ..core.arrays import Array, array_namespace, library
from ..core.checks import check_shape, namespace
from ..core.conversion import detached
from ..core.modes import current_mode
from ..core.plans import Constants, Plan, plan_of
from .containers import Chain, Residual, Sequential
from .exchange import match_params
from .folding import _Sum, fold_batch_norm
from .layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    MaxPool2d,
    Params,
    ReLU,
)

__all__ = ["compile_predictor"]

KNOWN = {
    AvgPool2d, BatchNorm2d, Chain, Conv2d, Dense, Dropout, Flatten, GlobalAvgPool2d, MaxPool2d,
    ReLU, Residual, Sequential, _Sum,
}  # fmt: skip
"""Layers that do the same whatever the values of their input are."""
