"""Windows that slide over samples, of which convolution and pooling are made."""

from __future__ import annotations

from typing import Any, ClassVar

from ...core.geometry import Padding, SizesLike, as_margins, as_sizes, ceil_margins
from .base import Shape


class Windowed:
    """A layer whose windows slide over the last axes of samples."""

    rank: ClassVar[int]
    """How many axes they are."""
    window: SizesLike
    stride: SizesLike | None
    padding: Padding

    def _onnx_windows(
        self, shape: Shape, *, dilation: SizesLike = 1, ceil_mode: bool = False
    ) -> dict[str, Any]:
        """Return ONNX's attributes of the windows over samples of a shape.

        ``ceil_mode`` becomes margins: runtimes disagree about that attribute.
        """
        window = as_sizes("window", self.window, self.rank)
        dilation = as_sizes("dilation", dilation, self.rank)
        stride = window if self.stride is None else as_sizes("stride", self.stride, self.rank)
        margins = as_margins(self.padding, window, dilation, stride, shape[1:])
        if ceil_mode:
            margins = ceil_margins(margins, window, dilation, stride, shape[1:])
        before, after = zip(*margins, strict=True)
        return {
            "kernel_shape": window,
            "strides": stride,
            "dilations": dilation,
            "pads": [*before, *after],
        }
