"""Layers made of layers: Sequential and Residual, and how to walk through them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ..core.arrays import Array
from ..core.cached import cached_property
from ..core.checks import check_choice, generator
from ..operations.addition import add
from .augmentation import moved_at_once
from .layers import (
    Conv2d,
    Layer,
    LayerPullback,
    MaxPool2d,
    Params,
    Pass,
    ReLU,
    Shape,
    WithPullback,
)
from .layers.batch_normalization import _BatchNorm
from .layers.convolution import _Convolution
from .onnx_graph import OnnxGraph

__all__ = ["Residual", "Sequential"]


def mapped(layer: Layer, change: Callable[[str, Layer], Layer], name: str = "") -> Layer:
    """Return a layer with its leaves changed: the layers in it that are not made of layers.

    Parameters
    ----------
    layer : layer
        What may be made of layers; else it is the only leaf itself.
    change : callable
        Returns what takes a leaf's place, given its name, such as "0.body.1", and the leaf.
    name : str
        That of ``layer`` itself.
    """
    children = layer.children()
    if not children:
        return change(name, layer)
    return layer.rebuilt(
        {own: mapped(child, change, prefix_of(name) + own) for own, child in children.items()}
    )


def prefix_of(name: str) -> str:
    """Return what names within a layer begin with, given its name: "0." of "0"."""
    return f"{name}." if name else ""


def learns(layer: Layer) -> bool:
    """Return whether the parameters of a layer, or of one in it, are learnt from gradients."""
    children = layer.children().values()
    return layer.trained and (not children or any(map(learns, children)))


# --- parameters of the layers in a layer ---------------------------------------------------------

Names: TypeAlias = dict[str, str]
"""Names of a layer's own parameters, to those that they have outside of it."""


class Part(NamedTuple):
    """A child of a layer, with its own parameters."""

    layer: Layer
    params: Params
    names: Names

    def __call__(self, x: Array) -> Array:
        """Return the child's output for inference."""
        return self.layer(self.params, x)

    def vjp(self, x: Array, how: Pass) -> WithPullback:
        """Return the child's output and its pullback, whose gradients have their outer names."""
        layer, params, names = self
        y, pullback = layer.vjp(params, x, **how.options())

        def of_part(dy: Array) -> tuple[Array | None, Params]:
            dx, grads = pullback(dy)
            return dx, {names[own]: grad for own, grad in grads.items()}

        return y, of_part


def parts(layer: Layer, params: Mapping[str, Array]) -> dict[str, Part]:
    """Return the children of a layer by name, each with its own of the layer's parameters."""
    children = layer.children()
    names = _names_within(tuple(children), tuple(params))
    return {
        name: Part(child, {own: params[full] for own, full in inner.items()}, inner)
        for (name, child), inner in zip(children.items(), names, strict=True)
    }


@lru_cache
def _names_within(children: tuple[str, ...], params: tuple[str, ...]) -> tuple[Names, ...]:
    """Return for each child the names of its parameters out of ``params``."""
    return tuple(
        {full.removeprefix(prefix): full for full in params if full.startswith(prefix)}
        for prefix in map(prefix_of, children)
    )


def outer_params(name: str, params: Mapping[str, Array]) -> Params:
    """Return a child's parameters, given its name, with the names that they have outside of it."""
    return {prefix_of(name) + own: x for own, x in params.items()}


# --- layers one after the other ------------------------------------------------------------------


@dataclass(frozen=True)
class Chain(Layer):
    """Named layers one after the other: what a `Sequential` runs."""

    steps: dict[str, Layer]

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        rng = generator(rng)
        params: Params = {}
        for name, layer in self.steps.items():
            own, shape = layer.init(rng, tuple(shape))
            params |= outer_params(name, own)
        return params, shape

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        for part in parts(self, params).values():
            x = part(x)
        return x

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        how, pullbacks = how.shared(), []
        for part in parts(self, params).values():
            x, pullback = part.vjp(x, how)
            pullbacks.append(pullback)
            if part.params and not how.input_grad and learns(part.layer):
                how = how._replace(input_grad=True)  # below the first parameters nobody asks for dx

        def of_chain(dy: Array | None) -> tuple[Array | None, Params]:
            grads: Params = {}
            for pullback in reversed(pullbacks):
                dy, own = pullback(dy)
                grads |= own
                if dy is None:
                    break
            return dy, grads

        return x, of_chain

    def children(self) -> dict[str, Layer]:
        """Return the layers by name."""
        return self.steps

    def rebuilt(self, children: Mapping[str, Layer]) -> Chain:
        """Return the same of other layers, which have the names that `children` gives."""
        return Chain(dict(children))

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append all layers' nodes, for the input named x, to a graph; return the output's name."""
        for name, layer in self.steps.items():
            x = graph.add(name, layer, x)
        return x


def as_chain(model: Layer) -> Chain:
    """Return what runs one after the other in a `Sequential`; of another model, all of it as one.

    The gradients that the pullback of a chain returns are those of its layers.
    """
    if isinstance(model, Chain):
        return model
    return Chain(model._as_run if isinstance(model, Sequential) else {"": model})


@dataclass(frozen=True)
class Sequential(Layer):
    """Layers one after the other; the parameters of layer i are named "i.…".

    A `ReLU` behind a convolution, a batch normalization or a `Residual`, and a ``MaxPool2d(2)``
    behind a `Conv2d`, run inside that layer, where a kernel can do it in one pass. `RandomFlip`,
    `RandomShift` and `RandomCrop` in a row move pixels once.

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
        return Chain(self.children()).init(rng, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return Chain(self._as_run)(params, x)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        return Chain(self._as_run).forward(params, x, how)

    def children(self) -> dict[str, Layer]:
        """Return the layers by name: "0", "1" and so on."""
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def rebuilt(self, children: Mapping[str, Layer]) -> Sequential:
        """Return the same of other layers, which have the names that `children` gives."""
        return Sequential(*children.values())

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append all layers' nodes, for the input named x, to a graph; return the output's name."""
        return Chain(self.children()).to_onnx(graph, x)  # as they are written, not as they run

    @cached_property
    def _as_run(self) -> dict[str, Layer]:
        """What runs one after the other, by the name of the layer that has the parameters."""
        steps: dict[str, Layer] = {}
        for name, layer in self.children().items():
            last = next(reversed(steps), "")
            fused = _fuse(steps[last], layer) if last else None
            steps |= {last: fused} if fused else {name: layer}
        return steps

    def _fused(self) -> Layer:
        return Chain(self._as_run)._fused()


def _fuse(before: Layer, layer: Layer) -> Layer | None:
    """Return a layer that does the work of ``layer``, which follows it, too; None if none."""
    if isinstance(before, Conv2d) and before.max_pool:
        return None
    if layer == ReLU() and isinstance(before, _Convolution | _BatchNorm | Residual):
        return None if before.activation else replace(before, activation="relu")
    if layer in (MaxPool2d(2), MaxPool2d(2, stride=2)) and isinstance(before, Conv2d):
        return replace(before, max_pool=2)
    return moved_at_once(before, layer)


def _check_layer(name: str, layer: Any) -> None:
    if not isinstance(layer, Layer):
        raise TypeError(f"{name} must be a layer such as Dense(10), got {layer!r}")


# --- branches ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Residual(Layer):
    """Sum of a branch and a shortcut: ``y = f(body(x) + shortcut(x))``.

    Parameters
    ----------
    body : layer
        The branch; its parameters are named "body.…".
    shortcut : layer, optional
        What makes x fit the branch ("shortcut.…"); None is the identity.
    activation : {None, "relu"}
        f, applied to the sum: `add`.

    References
    ----------
    He et al., Deep residual learning, arXiv:1512.03385.
    """

    body: Layer
    shortcut: Layer | None = None
    activation: str | None = None

    def __post_init__(self) -> None:
        _check_layer("body", self.body)
        if self.shortcut is not None:
            _check_layer("shortcut", self.shortcut)
        check_choice("activation", self.activation, (None, "relu"))

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        rng, shape = generator(rng), tuple(shape)
        params, out = self.body.init(rng, shape)
        params, direct = outer_params("body", params), shape
        if self.shortcut is not None:
            own, direct = self.shortcut.init(rng, shape)
            params |= outer_params("shortcut", own)
        if direct != out:
            raise ValueError(f"body makes {out} of {shape}, but shortcut makes {direct}")
        return params, out

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        inner = parts(self, params)
        direct = x if self.shortcut is None else inner["shortcut"](x)
        return add(inner["body"](x), direct, activation=self.activation)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        how, inner = how.shared(), parts(self, params)
        y, body = inner["body"].vjp(x, how)
        direct: Array = x
        shortcut: LayerPullback = lambda dy: (dy, {})  # noqa: E731
        if self.shortcut is not None:
            direct, shortcut = inner["shortcut"].vjp(x, how)

        y, of_sum = add.vjp(y, direct, activation=self.activation)

        def of_branches(dy: Array) -> tuple[Array | None, Params]:
            dbody, dshort = of_sum(dy)
            dx, grads = body(dbody)
            dshort, others = shortcut(dshort)
            return None if dx is None else add(dx, dshort), grads | others

        return y, of_branches

    def children(self) -> dict[str, Layer]:
        """Return the body and, if there is one, the shortcut."""
        shortcut = {} if self.shortcut is None else {"shortcut": self.shortcut}
        return {"body": self.body} | shortcut

    def rebuilt(self, children: Mapping[str, Layer]) -> Residual:
        """Return the same of other layers, which have the names that `children` gives."""
        return Residual(**children, activation=self.activation)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append both branches, for the input named x, and their sum; return the sum's name."""
        branch = graph.add("body", self.body, x)
        if self.shortcut is not None:
            x = graph.add("shortcut", self.shortcut, x)
        y = graph.node("Add", branch, x)
        return graph.node("Relu", y) if self.activation else y
