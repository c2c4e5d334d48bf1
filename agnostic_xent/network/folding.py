"""A model for inference alone: fewer layers that do the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from ..core.arrays import Array, array_namespace, is_half, quiet
from .containers import Chain, Residual, Sequential, _check_layer, _fuse, outer_params, parts
from .layers import (
    STATISTICS,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    Dropout,
    Layer,
    Params,
)
from .layers.batch_normalization import _BatchNorm
from .layers.convolution import _Convolution
from .synchronized import SynchronizedBatchNorm

__all__ = ["fold_batch_norm"]


def fold_batch_norm(model: Layer, params: Mapping[str, Array]) -> tuple[Layer, Params]:
    """Return a model of fewer layers, and its parameters, with the same output in inference.

    A batch normalization behind a convolution is a scale and a shift of each filter there, with
    ``scale = weight / sqrt(running_var + eps)``: ``w' = scale w`` and ``b' = bias + scale (b -
    running_mean)``. A ReLU becomes a part of the convolution or of the sum that it follows, and
    dropout is left out. Layers that are not known stay as they are; so does batch normalization of
    half-precision numbers, whose product with the weights would be rounded once more.

    Parameters
    ----------
    model : layer
        Such as `Sequential`. It is not for training.
    params : mapping of str to array
        Its parameters, of any library; not changed.

    Returns
    -------
    model : layer
        The folded model, which `export_onnx` takes, too.
    params : dict of str to array
        Its parameters, which are numbered anew.

    Examples
    --------
    >>> model = Sequential(Conv2d(4, 3, bias=False), BatchNorm2d(), ReLU(), Flatten(), Dropout())
    >>> params, _ = model.init(0, (1, 8, 8))
    >>> folded, params = fold_batch_norm(model, params)
    >>> len(folded.layers), sorted(params)
    (2, ['0.bias', '0.weight'])

    References
    ----------
    Jacob et al., Quantization and training of neural networks, arXiv:1712.05877, section 3.2.
    """
    _check_layer("model", model)
    with quiet():
        return _folded(model, dict(params))


CONTAINERS = Chain, Residual, Sequential
CONVOLUTIONS = Conv1d, Conv2d, Conv3d
NORMALIZATIONS = BatchNorm1d, BatchNorm2d, BatchNorm3d, SynchronizedBatchNorm
FUSED = Residual, *CONVOLUTIONS, *NORMALIZATIONS


def _folded(layer: Layer, params: Params) -> tuple[Layer, Params]:
    if type(layer) not in CONTAINERS:  # a class derived from one of them may do anything
        return layer, params
    inner = {name: _folded(part.layer, part.params) for name, part in parts(layer, params).items()}
    if type(layer) is not Residual:
        return _chained(list(inner.values()))
    made = layer.rebuilt({name: one for name, (one, _) in inner.items()})
    return made, _renamed({name: own for name, (_, own) in inner.items()})


def _renamed(inner: Mapping[str, Params]) -> Params:
    """Return the parameters of children, by name, with the names that they have outside."""
    params: Params = {}
    for name, own in inner.items():
        params |= outer_params(name, own)
    return params


def _chained(inner: list[tuple[Layer, Params]]) -> tuple[Layer, Params]:
    """Return layers one after the other as one, where two that can be one are."""
    steps: list[tuple[Layer, Params]] = []
    for layer, own in inner:
        for step in _steps(layer, own):
            one = _joined(*steps[-1], *step) if steps else None
            steps = [*steps[:-1], one] if one else [*steps, step]
    if not steps:
        return Sequential(Dropout()), {}
    params = _renamed({str(i): own for i, (_, own) in enumerate(steps)})
    return Sequential(*(layer for layer, _ in steps)), params


def _steps(layer: Layer, params: Params) -> list[tuple[Layer, Params]]:
    """Return what a layer does in inference, one after the other."""
    if type(layer) is Sequential:
        return [(part.layer, part.params) for part in parts(layer, params).values()]
    return [] if type(layer) is Dropout else [(layer, params)]


def _joined(
    before: Layer, params: Params, layer: Layer, own: Params
) -> tuple[Layer, Params] | None:
    """Return one layer that does the work of two; None if there is none."""
    if type(layer) in NORMALIZATIONS:
        if type(before) not in CONVOLUTIONS or is_half(params["weight"].dtype):
            return None
        conv, norm = cast(_Convolution, before), cast(_BatchNorm, layer)
        if conv.activation or getattr(conv, "max_pool", None):
            return None
        one = replace(conv, bias=True, activation=norm.activation)
        return one, _scaled(params, own, norm.eps)
    fused = _fuse(before, layer) if type(before) in FUSED else None
    return (fused, params) if fused else None


def _scaled(conv: Params, norm: Params, eps: float) -> Params:
    """Return the parameters of a convolution that normalizes its output."""
    weight, bias = conv["weight"], conv.get("bias")
    mean, var = (norm[name] for name in STATISTICS)
    xp = array_namespace(weight)
    scale = norm["weight"] / xp.sqrt(var + eps)
    shift = -mean if bias is None else bias - mean
    return {
        "weight": weight * xp.reshape(scale, (-1, *(1 for _ in weight.shape[1:]))),
        "bias": norm["bias"] + scale * shift,
    }
