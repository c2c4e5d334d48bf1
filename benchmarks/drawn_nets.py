"""Small classifiers that nobody picked: drawn at random, of the usual families."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import agnostic_xent as ax

from .drawn_layers import Rng, pick

CLASSES = 10


@dataclass(frozen=True)
class Net:
    """A model, and the batches that it is trained on."""

    kind: str
    model: ax.Sequential
    shape: tuple[int, ...]
    """Of a sample, (C, H, W)."""
    batch: int


def draw_net(rng: Rng) -> Net:
    """Return a net of a random kind."""
    kind = pick(rng, *(kind for kind, (share, _) in KINDS.items() for _ in range(share)))
    channels, size = pick(rng, 1, 3), pick(rng, 24, 28, 32, 32, 40, 48)
    batch, filters = pick(rng, 16, 32, 64, 128), pick(rng, 8, 16, 24, 32)
    model = ax.Sequential(*KINDS[kind][1](rng, filters))
    return Net(kind, model, (channels, size, size), batch)


def same(filters: int, window: int = 3, **options: Any) -> ax.Conv2d:
    """Return a convolution that keeps the size of images, but for a stride."""
    return ax.Conv2d(filters, window, padding=window // 2, **options)


def normalized(filters: int, window: int = 3, **options: Any) -> list[Any]:
    """Return a convolution without a bias, which batch normalization brings."""
    return [same(filters, window, bias=False, **options), ax.BatchNorm2d()]


def averaged() -> list[Any]:
    """Return the end of a net whose channels are averaged."""
    return [ax.GlobalAvgPool2d(), ax.Dense(CLASSES)]


def flattened(*units: int) -> list[Any]:
    """Return the end of a net that knows all pixels, with hidden layers."""
    hidden = [layer for n in units for layer in (ax.Dense(n), ax.ReLU())]
    return [ax.Flatten(), *hidden, ax.Dense(CLASSES)]


def plain(rng: Rng, filters: int) -> list[Any]:
    """Two or three convolutions, two pools, a hidden layer."""
    body = [same(filters), ax.ReLU(), ax.MaxPool2d(2)]
    body += [same(2 * filters), ax.ReLU(), ax.MaxPool2d(2)]
    if rng.random() < 0.5:
        body += [same(4 * filters), ax.ReLU()]
    return body + flattened(pick(rng, 64, 128))


def vgg(rng: Rng, filters: int) -> list[Any]:
    """Three stages of two convolutions, some of them normalized."""
    body: list[Any] = []
    for stage in range(3):
        for _ in range(2):
            body += [same(filters * 2**stage), *[ax.BatchNorm2d()] * pick(rng, 0, 1), ax.ReLU()]
        body.append(ax.MaxPool2d(2))
    return body + averaged()


def resnet(rng: Rng, filters: int) -> list[Any]:
    """Three stages of one or two residual blocks."""
    body = [*normalized(filters), ax.ReLU()]
    for stage in range(3):
        wide = filters * 2**stage
        for block in range(pick(rng, 1, 2)):
            stride, shortcut = 1, None
            if stage > 0 and block == 0:
                stride = 2
                shortcut = ax.Sequential(*normalized(wide, 1, stride=2))
            branch = [*normalized(wide, stride=stride), ax.ReLU()]
            branch += normalized(wide)
            body += [ax.Residual(ax.Sequential(*branch), shortcut), ax.ReLU()]
    return body + averaged()


def mobile(rng: Rng, filters: int) -> list[Any]:
    """Three to five depthwise convolutions, each with a 1x1 convolution behind."""
    body = [*normalized(filters), ax.ReLU()]
    for block in range(pick(rng, 3, 4, 5)):
        window, stride = pick(rng, 3, 3, 5), 1 + block % 2
        body += [*normalized(filters, window, stride=stride, groups=filters), ax.ReLU()]
        filters *= 2 - block % 2
        body += [*normalized(filters, 1), ax.ReLU()]
    return body + averaged()


def alex(rng: Rng, filters: int) -> list[Any]:
    """Large windows, and pools that overlap."""
    body = [same(filters, 5), ax.ReLU(), ax.MaxPool2d(3, 2)]
    body += [same(2 * filters, 5), ax.ReLU(), ax.MaxPool2d(3, 2), same(2 * filters), ax.ReLU()]
    return body + flattened()


def mlp(rng: Rng, filters: int) -> list[Any]:
    """Dense layers alone."""
    return flattened(pick(rng, 128, 256, 512), pick(rng, 64, 128))


KINDS: dict[str, tuple[int, Callable[[Rng, int], list[Any]]]] = {  # how many of 8 nets; which
    "plain": (2, plain),
    "vgg": (1, vgg),
    "resnet": (2, resnet),
    "mobile": (1, mobile),
    "alex": (1, alex),
    "mlp": (1, mlp),
}
