"""How long each layer takes in a training step, and which implementation of its operation runs."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, NamedTuple

from ..core.arrays import Array, array_namespace
from ..core.conversion import to_numpy
from ..core.operation import Pullback, explain
from ..network.containers import BRANCHES, Residual, Sequential, below, names_below
from ..network.layers import BatchNorm2d, Conv2d, Dense, Dropout, Layer, _OneOperation
from ..operations.convolution import conv2d
from ..operations.dense import dense
from ..operations.normalization import batch_norm
from ..training.steps import Loss, loss_vjp, operation_of, options_of

ROUNDS = 10


class LayerTime(NamedTuple):
    """A row of the table: a layer of a model, or the loss at its end."""

    layer: str
    output: tuple[int, ...]
    """Shape of one sample's output; of the loss ()."""
    parameters: int
    kernels: list[str]
    """What `explain` says of its operations."""
    forward: float
    """Seconds, median."""
    backward: float


def layer_times(
    model: Sequential, params: Mapping[str, Array], x: Array, y: Array, loss: Loss
) -> list[LayerTime]:
    """Measure each layer of a model, and the loss, in training steps on one batch.

    Layers that run as one, such as a convolution with its ReLU, are one row.
    """
    rows = []
    for i, (layer, _, own) in enumerate(model._named(params)):
        options: Any = {"train": True, "rng": 0, "input_grad": i > 0}
        output, forward, backward = _measure(functools.partial(layer.vjp, own, **options), x)
        count = sum(int(to_numpy(w).size) for w in own.values())
        kernels = list(dict.fromkeys(_explained(layer, own, x)))  # each once
        shape = tuple(output.shape[1:])
        rows.append(LayerTime(_short(layer), shape, count, kernels, forward, backward))
        x = output
    operation = operation_of(loss)
    _, forward, backward = _measure(functools.partial(_loss_vjp, loss, y), x)
    line = _without_name(explain(operation, x, y, **options_of(loss)))
    return [*rows, LayerTime(operation.name, (), 0, [line], forward, backward)]


def how_measured(samples: int, library: str) -> str:
    """Return what the times are of, in words."""
    return (
        f"A training step of {samples} {'sample' if samples == 1 else 'samples'} on {library} "
        f"arrays, medians of {ROUNDS}; what runs as one is one row."
    )


def _measure(
    vjp: Callable[[Array], tuple[Array, Callable[[Array], Any]]], x: Array
) -> tuple[Array, float, float]:
    """Return the value, and median seconds forward and backward."""
    forward, backward = [], []
    for _ in range(1 + ROUNDS):
        start = time.perf_counter()
        value, pullback = vjp(x)
        _wait(value)
        forward.append(time.perf_counter() - start)
        cotangent = array_namespace(value).ones_like(value)
        _wait(cotangent)
        start = time.perf_counter()
        _wait(pullback(cotangent))
        backward.append(time.perf_counter() - start)
    # the first round compiles
    return value, statistics.median(forward[1:]), statistics.median(backward[1:])


def _wait(found: Any) -> None:
    """Wait until arrays are computed, where calls return before: one number is fetched of each."""
    if isinstance(found, Mapping):
        found = tuple(found.values())
    if isinstance(found, tuple):
        for x in found:
            _wait(x)
    elif found is not None:
        to_numpy(array_namespace(found).reshape(found, (-1,))[:1])


def _loss_vjp(loss: Loss, y: Array, output: Array) -> tuple[Array, Pullback]:
    return loss_vjp(loss, output, y)


def _explained(layer: Layer, params: Mapping[str, Array], x: Array) -> list[str]:
    match layer:
        case Sequential():
            lines = []
            for inner, _, own in layer._named(params):
                lines += _explained(inner, own, x)
                x = inner(own, x)
            return lines
        case Residual():
            body, shortcut = names_below(BRANCHES, tuple(params))
            lines = _explained(layer.body, below(body, params), x)
            if layer.shortcut is not None:
                lines += _explained(layer.shortcut, below(shortcut, params), x)
            return lines
        case Conv2d():
            arrays = (x, params["weight"], params.get("bias"))
            return [_without_name(explain(conv2d, *arrays, **layer._options))]
        case Dense():
            return [_without_name(explain(dense, x, params["weight"], params.get("bias")))]
        case BatchNorm2d():
            return [_without_name(explain(batch_norm, x, **params, train=True, eps=layer.eps))]
        case _OneOperation():
            options = layer._options | ({"rng": 0} if isinstance(layer, Dropout) else {})
            return [_without_name(explain(layer.operation, x, **options))]
    return []  # it only changes the shape


def _without_name(line: str) -> str:
    return line.partition(": ")[2].removesuffix(" (it takes these arguments)")


def _short(layer: Layer) -> str:
    """Return a layer as it is written, without the options that are as usual."""
    shown = []
    for field in fields(layer):  # type: ignore[arg-type]
        value = getattr(layer, field.name)
        if field.default is MISSING:
            shown.append("…" if isinstance(value, Layer) else str(value))
        elif value != field.default and not isinstance(value, Layer):
            shown.append(f"{field.name}={value!r}")
    return f"{type(layer).__name__}({', '.join(shown)})"
