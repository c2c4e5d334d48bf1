"""Models: logistic regression, small CNNs of signals, images and volumes, and ResNets."""

from __future__ import annotations

from ..core.checks import integer
from .containers import Residual, Sequential
from .layers import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    Dense,
    Flatten,
    GlobalAvgPool,
    GlobalAvgPool2d,
    Layer,
    MaxPool2d,
    ReLU,
    Shape,
    Standardize,
)

__all__ = ["convnet", "lenet", "logistic", "resnet", "signal_cnn", "small_cnn", "video_cnn"]


def logistic(classes: int = 2) -> Sequential:
    """Return logistic regression: one logit for two classes, else one for each.

    Train two classes with `binary_cross_entropy_with_logits` and targets of shape (N, 1).

    Examples
    --------
    >>> logistic().init(0, (57,))[1]
    (1,)
    """
    classes = integer("classes", classes, least=2)
    return Sequential(Dense(1 if classes == 2 else classes))


def small_cnn(classes: int = 10) -> Sequential:
    """Return a CNN of two 3x3 convolutions (16 and 32 filters), each with ReLU and 2x2 max-pool.

    Examples
    --------
    >>> small_cnn().init(0, (1, 28, 28))[1]
    (10,)
    """
    classes = integer("classes", classes)
    return Sequential(
        Conv2d(16, 3, padding=1),
        ReLU(),
        MaxPool2d(2),
        Conv2d(32, 3, padding=1),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(classes),
    )


def lenet(classes: int = 10) -> Sequential:
    """Return a CNN of 3x3 convolutions (32 and 64 filters), a 2x2 max-pool, and 128 hidden units.

    Examples
    --------
    >>> lenet().init(0, (1, 28, 28))[1]
    (10,)
    """
    classes = integer("classes", classes)
    return Sequential(
        Conv2d(32, 3, padding=1),
        ReLU(),
        Conv2d(64, 3, padding=1),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        Dense(128),
        ReLU(),
        Dense(classes),
    )


FILTERS = (32, 64, 128, 256)
"""Of the convolutions of `convnet`; those of large images go on with the last number."""
LEAST_POOLED = 6
"""The side of an image that is still halved."""


def convnet(classes: int = 10, *, shape: Shape = (1, 28, 28)) -> Sequential:
    """Return a CNN for images of any size, with batch normalization and global average pooling.

    Samples are standardised first (see `standardized`). Then come convolutions over 3x3 pixels, or
    1x3 of a single row, of 32, 64, 128 and 256 filters, each with batch normalization and ReLU, and
    2x2 max-pools while the image has a side of at least 6 pixels.

    Parameters
    ----------
    classes : int
        Number of logits.
    shape : tuple of int
        (C, H, W) of one image.

    Examples
    --------
    >>> convnet(5, shape=(3, 64, 48)).init(0, (3, 64, 48))[1]
    (5,)

    References
    ----------
    Ioffe and Szegedy, Batch normalization, arXiv:1502.03167; Lin et al., Network in network,
    arXiv:1312.4400.
    """
    classes = integer("classes", classes)
    if len(shape) != 3:
        raise ValueError(f"shape must be (C, H, W), got {shape!r}")
    sides = [integer("shape", side) for side in shape[1:]]
    window = (3 if sides[0] > 1 else 1), (3 if sides[1] > 1 else 1)
    layers: list[Layer] = [Standardize()]
    filters = list(FILTERS)
    while filters or max(sides) >= LEAST_POOLED:
        layers += _convolution(filters.pop(0) if filters else FILTERS[-1], window)
        if max(sides) >= LEAST_POOLED:
            pool = min(2, sides[0]), min(2, sides[1])
            layers.append(MaxPool2d(pool))
            sides = [side // step for side, step in zip(sides, pool, strict=True)]
    return Sequential(*layers, GlobalAvgPool2d(), Dense(classes))


def _convolution(filters: int, window: tuple[int, int]) -> tuple[Layer, ...]:
    return Conv2d(filters, window, padding="same", bias=False), BatchNorm2d(), ReLU()


SIGNAL_FILTERS, SIGNAL_WINDOWS = 64, (7, 5, 3)
"""Of the convolutions of `signal_cnn`."""


def signal_cnn(classes: int = 10) -> Sequential:
    """Return a small CNN for signals (C, L) of any length, such as those of wearable sensors.

    Samples are standardised first (see `standardized`). Then come three convolutions of 64 filters
    over 7, 5 and 3 numbers, each with a stride of 2, batch normalization and ReLU. Last comes the
    mean over what is left of the length.

    Parameters
    ----------
    classes : int
        Number of logits.

    Examples
    --------
    >>> signal_cnn(7).init(0, (6, 200))[1]
    (7,)

    References
    ----------
    Wang, Yan and Oates, Time series classification from scratch with deep neural networks,
    arXiv:1611.06455.
    """
    classes = integer("classes", classes)
    layers: list[Layer] = [Standardize()]
    for window in SIGNAL_WINDOWS:
        conv = Conv1d(SIGNAL_FILTERS, window, stride=2, padding=window // 2, bias=False)
        layers += [conv, BatchNorm1d(), ReLU()]
    return Sequential(*layers, GlobalAvgPool(), Dense(classes))


VIDEO_FILTERS = (16, 32, 64)
"""Of the convolutions of `video_cnn`."""


def video_cnn(classes: int = 10) -> Sequential:
    """Return a small CNN for volumes (C, D, H, W) of any size, such as videos and scans.

    Samples are standardised first (see `standardized`). Then come convolutions over 3x3x3 numbers
    of 16, 32 and 64 filters, each with batch normalization and ReLU. Their stride is 2 in the
    plane, and that of the last one also in depth. Last comes the mean over what is left.

    Parameters
    ----------
    classes : int
        Number of logits.

    Examples
    --------
    >>> video_cnn(8).init(0, (1, 8, 28, 28))[1]
    (8,)

    References
    ----------
    Tran et al., Learning spatiotemporal features with 3D convolutional networks, arXiv:1412.0767.
    """
    classes = integer("classes", classes)
    layers: list[Layer] = [Standardize()]
    for filters in VIDEO_FILTERS:
        stride = (2 if filters == VIDEO_FILTERS[-1] else 1), 2, 2
        layers += [Conv3d(filters, 3, stride=stride, padding=1, bias=False), BatchNorm3d(), ReLU()]
    return Sequential(*layers, GlobalAvgPool(), Dense(classes))


def default_cnn(classes: int, shape: Shape) -> Sequential:
    """Return the CNN for signals (C, L), images (C, H, W) or volumes (C, D, H, W) of a shape."""
    if len(shape) == 3:
        return convnet(classes, shape=shape)
    return signal_cnn(classes) if len(shape) == 2 else video_cnn(classes)


def resnet(depth: int = 20, classes: int = 10) -> Sequential:
    """Return a residual network for small images, of 16, 32 and 64 filters.

    Parameters
    ----------
    depth : int
        6 n + 2: n blocks of two convolutions at each of three sizes.
    classes : int
        Number of logits.

    Examples
    --------
    >>> resnet(8).init(0, (3, 8, 8))[1]
    (10,)

    References
    ----------
    He et al., Deep residual learning for image recognition, arXiv:1512.03385, section 4.2.
    """
    classes = integer("classes", classes)
    if not isinstance(depth, int) or depth < 8 or (depth - 2) % 6:
        raise ValueError(f"depth must be 6 n + 2 for some n >= 1 (8, 14, 20, ...), got {depth!r}")
    blocks = [
        layer
        for filters in (16, 32, 64)
        for i in range((depth - 2) // 6)
        for layer in _residual_block(filters, shrink=filters > 16 and i == 0)
    ]
    stem = (Conv2d(16, 3, padding=1, bias=False), BatchNorm2d(), ReLU())
    return Sequential(*stem, *blocks, GlobalAvgPool2d(), Dense(classes))


def _residual_block(filters: int, *, shrink: bool) -> tuple[Residual, ReLU]:
    stride = 2 if shrink else 1
    body = Sequential(
        Conv2d(filters, 3, stride=stride, padding=1, bias=False),
        BatchNorm2d(),
        ReLU(),
        Conv2d(filters, 3, padding=1, bias=False),
        BatchNorm2d(),
    )
    project = Sequential(Conv2d(filters, 1, stride=2, bias=False), BatchNorm2d())
    return Residual(body, project if shrink else None), ReLU()
