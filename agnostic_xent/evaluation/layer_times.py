"""How long each layer takes in a training step, and which implementation of its operation runs."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, NamedTuple

from ..core.arrays import Array, array_namespace
from ..core.conversion import to_numpy
from ..core.operation import Pullback, explain
from ..network.containers import as_chain, mapped, parts
from ..network.layers import Layer, Pass, WithPullback
from ..training.objective import Loss, loss_vjp, operation_of, options_of

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
    model: Layer, params: Mapping[str, Array], x: Array, y: Array, loss: Loss
) -> list[LayerTime]:
    """Measure each layer of a model, and the loss, in training steps on one batch.

    Layers that run as one, such as a convolution with its ReLU, are one row.
    """
    rows = []
    for i, (layer, own, _) in enumerate(parts(as_chain(model), params).values()):
        how = Pass(train=True, rng=0, input_grad=i > 0)
        output, forward, backward = _measure(functools.partial(layer.vjp, own, **how.options()), x)
        count = sum(int(to_numpy(w).size) for w in own.values())
        kernels = _kernels(layer, own, x)
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


def _kernels(layer: Layer, params: Mapping[str, Array], x: Array) -> list[str]:
    """Return which implementations run in a training step of a layer, each once."""
    lines: list[str] = []
    noted = mapped(layer._fused(), lambda name, inner: _Explained(inner, lines))
    noted.vjp(params, x, rng=0)
    return list(dict.fromkeys(map(_without_name, lines)))


@dataclass(frozen=True)
class _Explained(Layer):
    """A layer that, when it runs, notes what `explain` says of its operations."""

    layer: Layer
    lines: list[str]

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        self.lines.extend(self.layer._explained(params, x))
        return self.layer.vjp(params, x, **how.options())


def _without_name(line: str) -> str:
    return line.partition(": ")[2].removesuffix(" (it takes these arguments)")


def _short(layer: Any) -> str:
    """Return a layer as it is written, without layers in it and the options that are as usual."""
    shown = ["…"] if layer.children() else []
    for field in () if shown or not is_dataclass(layer) else fields(layer):
        value = getattr(layer, field.name)
        if field.default is MISSING:
            shown.append(str(value))
        elif value != field.default:
            shown.append(f"{field.name}={value!r}")
    return f"{type(layer).__name__}({', '.join(shown)})"
