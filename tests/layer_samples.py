"""Sample cases of every layer class: what the generic tests of layers and of ONNX walk.

A new layer class needs a case here; see `test_every_layer_class_has_a_case`.
"""

from __future__ import annotations

from dataclasses import dataclass

from agnostic_xent import (
    GELU,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    Cutout,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalAvgPool2d,
    GroupNorm,
    Jitter,
    LayerNorm,
    LeakyReLU,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    RandomCrop,
    RandomFlip,
    RandomRotation3d,
    RandomScale,
    RandomShift,
    ReLU,
    Residual,
    Sequential,
    SiLU,
    Standardize,
    Tanh,
)
from agnostic_xent.core.checks import generator
from agnostic_xent.network.containers import Chain, outer_params, parts
from agnostic_xent.network.layers import Layer
from agnostic_xent.network.synchronized import SynchronizedBatchNorm

IMAGE, SEED = (4, 6, 6), 7
SIGNAL, VOLUME = (4, 12), (2, 3, 4, 4)


@dataclass(frozen=True)
class Product(Layer):
    """A user's layer made of layers: ``y = left(x) * right(x)``."""

    left: Layer
    right: Layer

    def init(self, rng, shape):
        rng = generator(rng)
        left, out = self.left.init(rng, shape)
        right, _ = self.right.init(rng, shape)
        return outer_params("left", left) | outer_params("right", right), out

    def forward(self, params, x, how):
        how, inner = how.shared(), parts(self, params)
        y, pull_left = inner["left"].vjp(x, how)
        z, pull_right = inner["right"].vjp(x, how)

        def pullback(dy):
            dx, grads = pull_left(dy * z)
            dx_right, others = pull_right(dy * y)
            return dx + dx_right if how.input_grad else None, grads | others

        return y * z, pullback

    def children(self):
        return {"left": self.left, "right": self.right}

    def rebuilt(self, children):
        return Product(**children)

    def to_onnx(self, graph, x):
        return graph.node("Mul", *(graph.add(k, v, x) for k, v in self.children().items()))


NET = Sequential(
    Conv2d(4, 3, padding=1, bias=False),
    BatchNorm2d(),
    ReLU(),
    MaxPool2d(2),
    Conv2d(3, 2, stride=(1, 2)),
    ReLU(),
    Flatten(),
    Dense(5),
)
BLOCK = Residual(
    Sequential(Conv2d(6, 3, stride=2, padding=1), BatchNorm2d(), ReLU()),
    Sequential(Conv2d(6, 1, stride=2, bias=False), BatchNorm2d()),
)

CASES = {  # name: layer, shape of a sample, shape of an output
    "dense": (Dense(3), (5,), (3,)),
    "dense-no-bias": (Dense(3, bias=False), (5,), (3,)),
    "conv": (Conv2d(6, 3), IMAGE, (6, 4, 4)),
    "conv-options": (
        Conv2d(6, (3, 2), stride=(2, 1), padding="same", groups=2, bias=False, activation="relu"),
        IMAGE,
        (6, 3, 6),
    ),
    "conv-dilated": (Conv2d(2, 2, padding=(1, 0), dilation=2), IMAGE, (2, 6, 4)),
    "conv-pool": (Conv2d(3, 3, padding=1, activation="relu", max_pool=2), IMAGE, (3, 3, 3)),
    "batch-norm": (BatchNorm2d(momentum=0.3, eps=1e-3), IMAGE, IMAGE),
    "batch-norm-relu": (BatchNorm2d(momentum=0.3, activation="relu"), IMAGE, IMAGE),
    "batch-norm-synchronized": (SynchronizedBatchNorm(momentum=0.3, eps=1e-3), IMAGE, IMAGE),
    "batch-norm-synchronized-relu": (SynchronizedBatchNorm(activation="relu"), IMAGE, IMAGE),
    "relu": (ReLU(), IMAGE, IMAGE),
    "tanh": (Tanh(), IMAGE, IMAGE),
    "silu": (SiLU(), IMAGE, IMAGE),
    "gelu": (GELU(), IMAGE, IMAGE),
    "gelu-tanh": (GELU("tanh"), (5,), (5,)),
    "leaky-relu": (LeakyReLU(0.2), IMAGE, IMAGE),
    "layer-norm": (LayerNorm(2, eps=1e-3), IMAGE, IMAGE),
    "group-norm": (GroupNorm(2), SIGNAL, SIGNAL),
    "max-pool": (MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE, (4, 4, 4)),
    "avg-pool": (AvgPool2d((2, 3), padding=(0, 1), count_include_pad=False), IMAGE, (4, 3, 2)),
    "global-avg-pool": (GlobalAvgPool2d(), IMAGE, (4,)),
    "conv-1d": (Conv1d(6, 3, stride=2, padding="same", groups=2), SIGNAL, (6, 6)),
    "conv-3d": (Conv3d(3, (2, 3, 1), padding=(0, 1, 0), activation="relu"), VOLUME, (3, 2, 4, 4)),
    "batch-norm-1d": (BatchNorm1d(activation="relu"), SIGNAL, SIGNAL),
    "batch-norm-rows": (BatchNorm1d(momentum=0.3), (5,), (5,)),
    "batch-norm-3d": (BatchNorm3d(eps=1e-3), VOLUME, VOLUME),
    "max-pool-1d": (MaxPool1d(3, stride=2, padding=1, ceil_mode=True), SIGNAL, (4, 7)),
    "max-pool-3d": (MaxPool3d((2, 2, 1), stride=(1, 2, 2)), VOLUME, (2, 2, 2, 2)),
    "avg-pool-1d": (AvgPool1d(3, padding=1, count_include_pad=False), SIGNAL, (4, 4)),
    "avg-pool-3d": (AvgPool3d(2, padding=(1, 0, 0), ceil_mode=True), VOLUME, (2, 2, 2, 2)),
    "global-avg-pool-any": (GlobalAvgPool(), SIGNAL, (4,)),
    "dropout": (Dropout(0.25), IMAGE, IMAGE),
    "random-flip": (RandomFlip(vertical=True), IMAGE, IMAGE),
    "random-shift": (RandomShift((2, 7)), IMAGE, IMAGE),
    "random-crop": (RandomCrop((3, 5)), IMAGE, (4, 3, 5)),
    "cutout": (Cutout((2, 3)), IMAGE, IMAGE),
    "moved-at-once": (
        Sequential(RandomFlip(), RandomCrop(5), RandomShift(1), Cutout(2)),
        IMAGE,
        (4, 5, 5),
    ),
    "random-rotation": (RandomRotation3d(25), (6, 7), (6, 7)),
    "random-scale": (RandomScale(0.2), (6, 7), (6, 7)),
    "jitter": (Jitter(0.1), (6, 7), (6, 7)),
    "standardize": (Standardize(), IMAGE, IMAGE),
    "standardize-rows": (Standardize(), (5,), (5,)),
    "flatten": (Flatten(), IMAGE, (144,)),
    "residual": (Residual(Conv2d(4, 3, padding=1)), IMAGE, IMAGE),
    "residual-shortcut": (BLOCK, IMAGE, (6, 3, 3)),
    "residual-relu": (Sequential(BLOCK, ReLU()), IMAGE, (6, 3, 3)),
    "sequential": (NET, IMAGE, (5,)),
    "chain": (Chain({"flat": Flatten(), "last": Dense(5)}), IMAGE, (5,)),
    "product": (Product(Sequential(Conv2d(4, 3, padding=1), ReLU()), BatchNorm2d()), IMAGE, IMAGE),
}
