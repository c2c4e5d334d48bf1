"""Layers made of layers: Sequential and Residual."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .arrays import Array, generator
from .layers import Conv2d, Layer, LayerPullback, MaxPool2d, Params, ReLU, Shape

__all__ = ["Residual", "Sequential"]


@dataclass(frozen=True)
class Sequential(Layer):
    """Layers one after the other; the parameters of layer i are named "i.…".

    A `ReLU` and a ``MaxPool2d(2)`` behind a `Conv2d` run inside the convolution, where a kernel
    can do it in one pass.

    Parameters
    ----------
    *layers : layer
        At least one.

    Examples
    --------
    >>> model = Sequential(Conv2d(4, 3), ReLU(), Flatten(), Dense(10))
    >>> params, shape = model.init(0, (1, 8, 8))
    >>> shape, sorted(params)
    ((10,), ['0.bias', '0.weight', '3.bias', '3.weight'])
    >>> y = model(to_backend(params, xp), xp.ones((2, 1, 8, 8), dtype=xp.float32))
    >>> tuple(y.shape)
    (2, 10)
    """

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer):
        for layer in layers:
            _check_layer("layers", layer)
        if not layers:
            raise ValueError("layers must be at least one layer, got none")
        object.__setattr__(self, "layers", layers)

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        rng = generator(rng)
        params: Params = {}
        for i, layer in enumerate(self.layers):
            own, shape = layer.init(rng, tuple(shape))
            params |= _prefixed(f"{i}.", own)
        return params, shape

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        for prefix, layer in self._steps:
            x = layer(_below(prefix, params), x)
        return x

    def vjp(
        self,
        params: Mapping[str, Array],
        x: Array,
        *,
        train: bool = True,
        rng: Any = None,
        input_grad: bool = True,
    ) -> tuple[Array, LayerPullback]:
        """Return the output and its pullback: dy -> (dx, grads).

        The pullback takes a function as a second argument: to it, it hands each layer's gradients
        at once, and does not keep them.
        """
        rng, pullbacks = generator(rng), []
        for prefix, layer in self._steps:
            own = _below(prefix, params)
            x, pullback = layer.vjp(own, x, train=train, rng=rng, input_grad=input_grad)
            pullbacks.append((prefix, pullback))
            input_grad = input_grad or bool(own)  # below the first parameters nobody asks for dx

        def of_sequence(
            dy: Array | None, take: Callable[[Params], None] | None = None
        ) -> tuple[Array | None, Params]:
            grads: Params = {}
            take = grads.update if take is None else take
            for prefix, pullback in reversed(pullbacks):
                dy, own = pullback(dy)
                take(_prefixed(prefix, own))
                del own  # the next pullback needs the memory
                if dy is None:
                    break
            return dy, grads

        return x, of_sequence

    @cached_property
    def _steps(self) -> list[tuple[str, Layer]]:
        steps: list[tuple[str, Layer]] = []
        for i, layer in enumerate(self.layers):
            fused = _fused(steps[-1][1], layer) if steps else None
            if fused:
                steps[-1] = (steps[-1][0], fused)
            else:
                steps.append((f"{i}.", layer))
        return steps


def _fused(before: Layer, layer: Layer) -> Layer | None:
    """Return a convolution that does what follows it too, if it can."""
    if not isinstance(before, Conv2d) or before.max_pool:
        return None
    if isinstance(layer, ReLU) and not before.activation:
        return replace(before, activation="relu")
    if layer in (MaxPool2d(2), MaxPool2d(2, stride=2)):
        return replace(before, max_pool=2)
    return None


@dataclass(frozen=True)
class Residual(Layer):
    """Sum of a branch and a shortcut: ``y = body(x) + shortcut(x)`` (He et al., arXiv:1512.03385).

    Parameters
    ----------
    body : layer
        The branch; its parameters are named "body.…".
    shortcut : layer, optional
        What makes x fit the branch ("shortcut.…"); None is the identity.
    """

    body: Layer
    shortcut: Layer | None = None

    def __post_init__(self) -> None:
        _check_layer("body", self.body)
        if self.shortcut is not None:
            _check_layer("shortcut", self.shortcut)

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        rng, shape = generator(rng), tuple(shape)
        params, out = self.body.init(rng, shape)
        params, direct = _prefixed("body.", params), shape
        if self.shortcut is not None:
            own, direct = self.shortcut.init(rng, shape)
            params |= _prefixed("shortcut.", own)
        if direct != out:
            raise ValueError(f"body makes {out} of {shape}, but shortcut makes {direct}")
        return params, out

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        direct = x if self.shortcut is None else self.shortcut(_below("shortcut.", params), x)
        return self.body(_below("body.", params), x) + direct

    def vjp(
        self,
        params: Mapping[str, Array],
        x: Array,
        *,
        train: bool = True,
        rng: Any = None,
        input_grad: bool = True,
    ) -> tuple[Array, LayerPullback]:
        """Return the output and its pullback: dy -> (dx, grads)."""
        options: Any = {"train": train, "rng": generator(rng), "input_grad": input_grad}
        y, body = self.body.vjp(_below("body.", params), x, **options)
        direct: Array = x
        shortcut: LayerPullback = lambda dy: (dy, {})  # noqa: E731
        if self.shortcut is not None:
            direct, shortcut = self.shortcut.vjp(_below("shortcut.", params), x, **options)

        def of_sum(dy: Array) -> tuple[Array | None, Params]:
            dx, inner = body(dy)
            dshort, outer = shortcut(dy)
            grads = _prefixed("body.", inner) | _prefixed("shortcut.", outer)
            return None if dx is None else dx + dshort, grads

        return y + direct, of_sum


def _check_layer(name: str, layer: Any) -> None:
    if not isinstance(layer, Layer):
        raise TypeError(f"{name} must be a layer such as Dense(10), got {layer!r}")


def _prefixed(prefix: str, params: Mapping[str, Array]) -> Params:
    return {prefix + name: x for name, x in params.items()}


def _below(prefix: str, params: Mapping[str, Array]) -> Params:
    return {k.removeprefix(prefix): x for k, x in params.items() if k.startswith(prefix)}
