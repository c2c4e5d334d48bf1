"""Layers of which nothing, or not all, is trained."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..core.arrays import Array
from .containers import mapped, prefix_of
from .layers import STATISTICS, Layer, Params, Pass, WithPullback


def frozen(model: Layer, params: Mapping[str, Array], trainable: Sequence[str]) -> Layer:
    """Return a model of which only some parameters are trained, as it runs.

    A layer in which nothing is trained does what it does in inference, and computes no gradients
    of its own; below the lowest layer that is trained nothing goes back at all.

    Parameters
    ----------
    model : layer
        Such as `Sequential`.
    params : mapping of str to array
        Its parameters.
    trainable : sequence of str
        Names of parameters, or of layers: "0.body" for all whose names begin with "0.body.".

    Raises
    ------
    ValueError
        If a name is that of no parameter that is learnt, or there is none.
    """
    owners: dict[str, str] = {}

    def note(owner: str, layer: Layer) -> Layer:
        own = (name for name in params if name.startswith(prefix_of(owner)))
        if layer.trained:
            owners.update({n: owner for n in own if n.rpartition(".")[2] not in STATISTICS})
        return layer

    model = model._fused()  # what runs as one layer stays one
    mapped(model, note)
    trained = _named(trainable, owners)

    def change(owner: str, layer: Layer) -> Layer:
        own = {name for name, of in owners.items() if of == owner}
        if own <= trained:
            return layer
        if own.isdisjoint(trained):
            return _Frozen(layer)
        kept = tuple(name.removeprefix(prefix_of(owner)) for name in sorted(own - trained))
        return _PartlyFrozen(layer, kept)

    return mapped(model, change)


def _named(trainable: Sequence[str], learnt: Collection[str]) -> set[str]:
    """Return the parameters that names stand for."""
    found: set[str] = set()
    for name in trainable:
        named = {own for own in learnt if own == name or own.startswith(prefix_of(name))}
        if not named:
            layers = dict.fromkeys(own.rpartition(".")[0] for own in learnt)
            raise ValueError(
                f"trainable has {name!r}, which is no layer or parameter that is learnt; "
                f"the layers are {', '.join(layers)}"
            )
        found |= named
    if not found:
        raise ValueError("trainable must name at least one layer or parameter, got none")
    return found


@dataclass(frozen=True)
class _Frozen(Layer):
    """A layer that does in training what it does in inference."""

    layer: Layer
    trained = False

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return self.layer(params, x)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        if not how.input_grad:
            return self.layer(params, x), lambda dy: (None, {})
        how = how._replace(train=False, param_grads=False)
        y, pullback = self.layer.forward(params, x, how)
        return y, lambda dy: (pullback(dy)[0], {})


@dataclass(frozen=True)
class _PartlyFrozen(Layer):
    """A layer whose parameters of some names are not trained."""

    layer: Layer
    names: tuple[str, ...]

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return self.layer(params, x)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        y, pullback = self.layer.vjp(params, x, **how.options())

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, grads = pullback(dy)
            return dx, {name: g for name, g in grads.items() if name not in self.names}

        return y, of_layer
