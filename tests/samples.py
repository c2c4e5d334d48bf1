"""Sample arguments for every operation of the table: what the generic tests walk."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Sample:
    """Arguments of one call: arrays in float64 (or integers), other arguments, options."""

    operation: str
    arrays: tuple[Any, ...]
    extra: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    terms: int = 8
    """About how many roundings follow each other."""

    @property
    def id(self) -> str:
        options = ",".join(f"{k}={v}" for k, v in self.options.items())
        shapes = "x".join(str(np.shape(a)) if a is not None else "None" for a in self.arrays)
        return f"{self.operation}-{shapes}-{self.extra}-{options}".replace(" ", "")

    @property
    def empty(self) -> bool:
        """Whether an array has no elements."""
        return any(np.size(a) == 0 for a in self.arrays if a is not None)


RNG = np.random.default_rng(20261124)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape)


def labels(classes: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, classes, shape)


def probabilities(axis: int, *shape: int) -> np.ndarray:
    p = RNG.random(shape) + 0.05
    return p / p.sum(axis=axis, keepdims=True)


def conv(shape: tuple[int, ...], w: tuple[int, ...], bias: bool = True, **options: Any) -> Sample:
    b = normal(w[0]) if bias else None
    name = f"conv{len(shape) - 2}d"
    return Sample(name, (normal(*shape), normal(*w), b), options=options, terms=64)


def pool(name: str, shape: tuple[int, ...], window: Any, **options: Any) -> Sample:
    return Sample(name, (normal(*shape),), (window,), options)


SAMPLES = [
    *(
        Sample(name, (normal(*shape),))
        for name in ("relu", "sigmoid", "log_sigmoid", "tanh", "silu")
        for shape in [(3, 5), (), (0, 4)]
    ),
    Sample("gelu", (3 * normal(3, 5),), terms=16),
    Sample("gelu", (3 * normal(7),), options={"approximate": "tanh"}, terms=16),
    Sample("leaky_relu", (normal(3, 5),), options={"negative_slope": 0.2}),
    Sample("sigmoid", (np.array([-700.0, -80.0, 0.0, 80.0, 700.0]),)),
    Sample("log_sigmoid", (np.array([-700.0, -80.0, 0.0, 80.0, 700.0]),), terms=16),
    *(
        Sample(name, (scale * normal(*shape),), options={"axis": axis}, terms=32)
        for name in ("softmax", "log_softmax", "logsumexp")
        for shape, axis, scale in [
            ((4, 7), -1, 1), ((2, 5, 3), 1, 10), ((6,), 0, 1), ((0, 3), 1, 1), ((), -1, 1),
            ((2, 0), 1, 1),
        ]
    ),
    *(
        Sample("logsumexp", (normal(*shape),), options={"axis": axis, "keepdims": keepdims})
        for keepdims in (False, True)
        for shape, axis in [
            ((2, 5, 3), (2, 0)), ((2, 5, 3), (1, 2)), ((2, 5, 3), None), ((4, 3), ()), ((), None),
            ((3, 0, 2), (0, 2)), ((4, 3), -2),
        ]
    ),
    conv((2, 3, 6, 5), (4, 3, 3, 3)),
    conv((2, 3, 7, 6), (2, 3, 3, 2), bias=False, padding=1, stride=2),
    conv((1, 4, 6, 7), (6, 2, 3, 3), groups=2, padding="same", activation="relu"),
    conv((2, 3, 5, 5), (3, 1, 3, 3), groups=3, padding=(1, 0), stride=(1, 2)),
    conv((1, 2, 9, 8), (3, 2, 3, 2), dilation=(2, 3), padding=((2, 0), (1, 3))),
    conv((2, 2, 5, 7), (3, 2, 2, 4), padding="same", stride=(2, 3)),
    conv((3, 5, 4, 4), (2, 5, 1, 1), padding="valid", activation="relu"),
    conv((1, 1, 1, 1), (1, 1, 3, 3), padding=1),
    conv((0, 2, 5, 5), (3, 2, 3, 3)),
    conv((1, 4, 11), (6, 2, 4), groups=2, padding="same", stride=2, activation="relu"),
    conv((2, 3, 12), (3, 1, 3), bias=False, groups=3, dilation=(3,), padding=((4, 1),)),
    conv((1, 4, 3, 4, 3), (2, 2, 2, 2, 1), groups=2, padding="same", activation="relu"),
    conv(
        (1, 2, 4, 4, 5), (2, 2, 2, 1, 2), bias=False, stride=(2, 1, 3), dilation=(2, 1, 1),
        padding=((1, 2), (0, 0), (2, 0)),
    ),
    *(
        pool(name, shape, window, **options)
        for name in ("max_pool2d", "avg_pool2d")
        for shape, window, options in [
            ((2, 3, 6, 4), 2, {}),
            ((1, 2, 7, 5), (3, 2), {"stride": 2, "padding": (1, 0)}),
            ((1, 1, 7, 8), 3, {"stride": 2, "padding": 1, "ceil_mode": True}),
            ((2, 1, 5, 5), 2, {"ceil_mode": True}),
            ((1, 2, 6, 6), 3, {"stride": 1, "padding": ((1, 0), (0, 1))}),
            ((0, 2, 4, 4), 2, {}),
            ((1, 2, 5, 6), 3, {"stride": 1, "padding": 2}),
            ((2, 1, 4, 7), (4, 2), {"padding": ((3, 2), (1, 1)), "ceil_mode": True}),
        ]
    ),
    pool("max_pool1d", (1, 2, 12), 3, stride=2, dilation=(2,), padding=2, ceil_mode=True),
    pool("max_pool3d", (1, 1, 4, 3, 6), (2, 1, 2), stride=1, dilation=(1, 1, 3), padding=(1, 0, 1)),
    pool("avg_pool1d", (1, 2, 10), (3,), stride=2, padding=1, ceil_mode=True),
    pool("avg_pool3d", (1, 2, 3, 4, 3), 2, padding=(1, 0, 1), count_include_pad=False),
    pool("max_pool2d", (1, 1, 9, 8), 2, stride=2, dilation=3, padding=3),
    pool("avg_pool2d", (1, 1, 5, 4), (3, 4), padding=(2, 3), count_include_pad=False),
    pool("max_pool2d", (1, 2, 8, 9), (3, 2), stride=2, dilation=(2, 3), padding=(2, 1)),
    pool("avg_pool2d", (1, 2, 5, 6), 3, padding=1, count_include_pad=False),
    pool(
        "avg_pool2d", (1, 1, 6, 8), 3, stride=2, padding=1, ceil_mode=True, count_include_pad=False
    ),
    Sample("global_avg_pool2d", (normal(2, 3, 4, 5),)),
    Sample("global_avg_pool", (normal(2, 3, 2, 3, 4),)),
    Sample("dense", (normal(4, 6), normal(3, 6), normal(3))),
    Sample("dense", (normal(2, 3, 5), normal(4, 5), None)),
    Sample("dense", (normal(0, 5), normal(4, 5), normal(4))),
    Sample("dense", (normal(5), normal(4, 5), normal(4))),
    *(
        Sample(
            "batch_norm",
            (normal(*shape), *(normal(shape[1]) for _ in range(3)), RNG.random(shape[1])),
            options={"train": train, "momentum": 0.3, "eps": 1e-3, "activation": activation},
            terms=128,
        )
        for shape, train, activation in [
            *product([(4, 3, 2, 5), (2, 1, 1, 1)], (True, False), (None, "relu")),
            ((5, 3), True, "relu"), ((2, 3, 2, 1, 3), True, None),
        ]
    ),
    Sample("layer_norm", (normal(3, 2, 5), normal(2, 5), normal(2, 5)), terms=64),
    Sample("layer_norm", (normal(0, 4), normal(4), normal(4)), options={"eps": 0.1}),
    Sample("group_norm", (normal(2, 6, 3), normal(6), normal(6)), options={"groups": 3}, terms=64),
    Sample("group_norm", (normal(3, 4), normal(4), normal(4)), options={"groups": 1}, terms=64),
    *(
        Sample("add", (normal(*shape), normal(*shape)), options={"activation": activation})
        for shape in [(3, 5), (), (0, 4)]
        for activation in (None, "relu")
    ),
    Sample("dropout", (normal(5, 6),), options={"rate": 0.3, "rng": 7}),
    Sample("dropout", (normal(5, 6),), options={"rate": 0.0, "rng": 7}),
    *(
        Sample(name, (scores, target), options={"axis": axis, "reduction": reduction}, terms=64)
        for reduction in ("mean", "sum", "none")
        for name, scores, target, axis in [
            ("cross_entropy", 3 * normal(5, 4), labels(4, 5), -1),
            ("cross_entropy", normal(2, 3, 2, 2), labels(3, 2, 2, 2), 1),
            ("cross_entropy", normal(5, 4), probabilities(-1, 5, 4), -1),
            ("cross_entropy", normal(3), labels(3), 0),
            ("nll_loss", -RNG.random((5, 4)), labels(4, 5), -1),
            ("nll_loss", -RNG.random((3, 4)), probabilities(0, 3, 4), 0),
            ("categorical_cross_entropy", probabilities(-1, 5, 4), labels(4, 5), -1),
            ("categorical_cross_entropy", probabilities(1, 2, 3, 4), probabilities(1, 2, 3, 4), 1),
        ]
    ),
    *(
        Sample(name, (scores, RNG.random(scores.shape)), options={"reduction": reduction}, terms=16)
        for reduction in ("mean", "sum", "none")
        for name, scores in [
            ("binary_cross_entropy", RNG.random((4, 3)) * 0.9 + 0.05),
            ("binary_cross_entropy_with_logits", 5 * normal(4, 3)),
        ]
    ),
    Sample(
        "binary_cross_entropy_with_logits",
        (np.array([-100.0, 100.0, 0.0, -30.0]), np.array([1.0, 0.0, 1.0, 0.0])),
        options={"reduction": "none"},
    ),
    *(
        Sample(
            "linear_cross_entropy",
            (normal(n, 4), normal(5, 4), target, bias),
            options={"reduction": reduction, "memory": memory},
            terms=64,
        )
        for reduction in ("mean", "sum", "none")
        for n, target, bias, memory in [
            (7, labels(5, 7), normal(5), 320),  # float64: a row a block, or 4 for a kernel
            (6, labels(5, 6), None, 1),
            (5, probabilities(-1, 5, 5), normal(5), 320),
        ]
    ),
    *(
        Sample(name, (2 * normal(*shape), target), options=options | {"reduction": reduction},
               terms=64)
        for name, options in [
            ("focal_loss", {}), ("focal_loss", {"gamma": 0.5}), ("generalized_cross_entropy", {}),
            ("jensen_shannon_divergence", {}), ("jensen_shannon_divergence", {"mixing": 0.1}),
        ]
        for shape, target, reduction in [
            ((5, 4), labels(4, 5), "mean"), ((5, 4), probabilities(-1, 5, 4), "none"),
        ]
    ),
    *(
        Sample(name, (normal(2, 3, 4), target), options={"axis": 1, "reduction": "sum"}, terms=64)
        for name, target in [
            ("focal_loss", labels(3, 2, 4)),
            ("generalized_cross_entropy", probabilities(1, 2, 3, 4)),
            ("jensen_shannon_divergence", probabilities(1, 2, 3, 4)),
            ("kl_divergence", normal(2, 3, 4)),
        ]
    ),
    Sample("kl_divergence", (normal(5, 4), normal(5, 4)), options={"temperature": 2.5}, terms=64),
    Sample("kl_divergence", (normal(5, 4), normal(5, 4)), options={"reduction": "none"}, terms=64),
    *(
        Sample("binary_focal_loss", (3 * normal(4, 3), RNG.random((4, 3))), (), options, 64)
        for options in ({}, {"gamma": 0.5, "reduction": "none"}, {"reduction": "sum"})
    ),
]  # fmt: skip
