"""Layers as JSON, from which the same layers can be made."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from . import augmentation, containers, layers, signal_augmentation
from .layers import Layer

KNOWN: dict[str, Any] = {
    name: getattr(module, name)
    for module in (layers, augmentation, signal_augmentation, containers)
    for name in module.__all__
}
"""The layers of this package, by name."""


def described(layer: Layer) -> dict[str, Any]:
    """Return a layer as JSON holds it.

    Raises
    ------
    TypeError
        If it is, or is made of, a layer of another package.
    """
    name = type(layer).__name__
    if KNOWN.get(name) is not type(layer):
        raise TypeError(f"{name} is no layer of agnostic_xent, which alone are kept in a folder")
    if isinstance(layer, containers.Sequential):
        return {"layer": name, "layers": [described(inner) for inner in layer.layers]}
    values = {field.name: getattr(layer, field.name) for field in fields(layer)}  # type: ignore[arg-type]
    return {"layer": name} | {
        key: described(value) if isinstance(value, Layer) else value
        for key, value in values.items()
    }


def layer_of(description: Any) -> Layer:
    """Return the layer that `described` has described.

    Raises
    ------
    ValueError
        If there is no such layer.
    """
    try:
        values = dict(description)
        kind = KNOWN[values.pop("layer")]
        if kind is containers.Sequential:
            return kind(*map(layer_of, values["layers"]))
        made: Layer = kind(**{name: _value(value) for name, value in values.items()})
        return made
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"there is no layer {description!r}: {error}") from error


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return layer_of(value)
    return tuple(map(_value, value)) if isinstance(value, list) else value
