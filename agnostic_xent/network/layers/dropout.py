"""Dropout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...core.arrays import Array
from ...operations.normalization import dropout
from .base import OperationLayer, Pass, WithPullback

__all__ = ["Dropout"]


@dataclass(frozen=True)
class Dropout(OperationLayer):
    """Dropout in training, nothing in inference: `dropout`."""

    operation, onnx_node = dropout, "Dropout"
    rate: float = 0.5

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return x

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        if how.train:
            return super().forward(params, x, how)
        return x, lambda dy: (dy if how.input_grad else None, {})

    def _options_in(self, how: Pass) -> dict[str, Any]:
        return {"rate": self.rate, "rng": how.rng}
