"""The kernel of conv1d: that of conv2d, on signals as images of one row."""

from __future__ import annotations

from typing import Any

from ....core.operation import OPERATIONS, Implementation
from ...shapes import of_signals, with_axis
from . import convolution

OPTIONS = "stride", "padding", "dilation", "groups", "activation"
ROW = 2
"""The axis of the only row."""


def describe(x: Any, w: Any, b: Any, **options: Any) -> str:
    """Say which algorithm runs, and which ones backward where they are others."""
    images = x[:, :, None], w[:, :, None], b
    return convolution.describe(*images, **with_axis(options), max_pool=None)


value, vjp = of_signals(convolution.value, convolution.vjp, ROW, max_pool=None)
OPERATIONS["conv1d"].add_kernel(
    "numpy",
    Implementation("Numba", value, vjp, convolution.takes, describe=describe, options=OPTIONS),
)
