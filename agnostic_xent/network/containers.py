"""Layers made of layers: Sequential and Residual."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from ..core.arrays import Array
from ..core.checks import generator
from .layers import Conv2d, Layer, LayerPullback, MaxPool2d, Params, ReLU, Shape

__all__ = ["Residual", "Sequential"]

Names: TypeAlias = dict[str, str]
"""Names of a layer's own parameters, to those that they have outside of it."""

BRANCHES = ("body.", "shortcut.")


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
        for layer, _, own in self._named(params):
            x = layer(own, x)
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
        for layer, names, own in self._named(params):
            x, pullback = layer.vjp(own, x, train=train, rng=rng, input_grad=input_grad)
            pullbacks.append((names, pullback))
            input_grad = input_grad or bool(own)  # below the first parameters nobody asks for dx

        def of_sequence(
            dy: Array | None, take: Callable[[Params], None] | None = None
        ) -> tuple[Array | None, Params]:
            grads: Params = {}
            take = grads.update if take is None else take
            for names, pullback in reversed(pullbacks):
                dy, own = pullback(dy)
                take(_above(names, own))
                del own  # the next pullback needs the memory
                if dy is None:
                    break
            return dy, grads

        return x, of_sequence

    def _named(self, params: Mapping[str, Array]) -> Iterator[tuple[Layer, Names, Params]]:
        """Yield what runs one after the other, with its parameters and their names."""
        named = names_below(tuple(self._steps), tuple(params))
        for layer, names in zip(self._steps.values(), named, strict=True):
            yield layer, names, below(names, params)

    @cached_property
    def _steps(self) -> dict[str, Layer]:
        steps: dict[str, Layer] = {}
        for i, layer in enumerate(self.layers):
            last = next(reversed(steps), "")
            fused = _fused(steps[last], layer) if last else None
            steps |= {last: fused} if fused else {f"{i}.": layer}
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
        inner, outer = names_below(BRANCHES, tuple(params))
        direct = x if self.shortcut is None else self.shortcut(below(outer, params), x)
        return self.body(below(inner, params), x) + direct

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
        inner, outer = names_below(BRANCHES, tuple(params))
        y, body = self.body.vjp(below(inner, params), x, **options)
        direct: Array = x
        shortcut: LayerPullback = lambda dy: (dy, {})  # noqa: E731
        if self.shortcut is not None:
            direct, shortcut = self.shortcut.vjp(below(outer, params), x, **options)

        def of_sum(dy: Array) -> tuple[Array | None, Params]:
            dx, grads = body(dy)
            dshort, others = shortcut(dy)
            grads = _above(inner, grads) | _above(outer, others)
            return None if dx is None else dx + dshort, grads

        return y + direct, of_sum


def _check_layer(name: str, layer: Any) -> None:
    if not isinstance(layer, Layer):
        raise TypeError(f"{name} must be a layer such as Dense(10), got {layer!r}")


# --- names ---------------------------------------------------------------------------------------


@lru_cache
def names_below(prefixes: tuple[str, ...], names: tuple[str, ...]) -> tuple[Names, ...]:
    """Return for each prefix the names that begin so, by what is left of them."""
    return tuple(
        {name.removeprefix(prefix): name for name in names if name.startswith(prefix)}
        for prefix in prefixes
    )


def below(names: Names, params: Mapping[str, Array]) -> Params:
    return {own: params[name] for own, name in names.items()}


def _above(names: Names, params: Mapping[str, Array]) -> Params:
    return {names[own]: x for own, x in params.items()}


def _prefixed(prefix: str, params: Mapping[str, Array]) -> Params:
    return {prefix + name: x for name, x in params.items()}
