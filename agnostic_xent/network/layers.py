"""Layers: frozen hyper-parameters with `init`, a call for inference, and `vjp` for training.

``init(rng, shape)`` takes the shape of one sample, without the batch axis, and returns
``(params, shape)``: NumPy parameters and the shape of one output. ``vjp(params, x, train=, rng=,
input_grad=)`` returns ``(y, pullback)``, and ``pullback(dy)`` returns ``(dx, grads)``, where dx is
None without ``input_grad``. Nothing is stored on a layer. Gradients are arrays that nobody else
has: they may be written to, and on several ranks are.

Parameters are one flat dict with torch's spelling ("0.weight", "3.bias"). Running statistics are
parameters that are not trained: in ``grads`` their entries are their new values, see
`split_statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar, TypeAlias

from ..core.arrays import Array
from ..core.checks import generator, namespace, set_integers
from ..core.geometry import Margins, Padding, PairLike, as_pair
from ..core.operation import Operation, kernels
from ..operations.activations import relu
from ..operations.convolution import check_groups, conv2d
from ..operations.dense import dense
from ..operations.normalization import batch_norm, dropout
from ..operations.pooling import avg_pool2d, global_avg_pool2d, max_pool2d

__all__ = [
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool2d",
    "MaxPool2d",
    "ReLU",
]

Params: TypeAlias = dict[str, Array]
Shape: TypeAlias = tuple[int, ...]
LayerPullback: TypeAlias = Callable[[Array], tuple[Array | None, Params]]

STATISTICS = ("running_mean", "running_var")


def split_statistics(grads: Mapping[str, Array]) -> tuple[Params, Params]:
    """Split what a pullback returns into gradients and new running statistics."""
    statistics = {k: v for k, v in grads.items() if k.rpartition(".")[2] in STATISTICS}
    if not statistics:
        return dict(grads), statistics
    return {k: v for k, v in grads.items() if k not in statistics}, statistics


class Layer:
    """What layers share; by itself, a layer without parameters that keeps the shape."""

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        return {}, self._output_shape({}, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        raise NotImplementedError

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
        raise NotImplementedError

    def _output_shape(self, params: Params, shape: Shape) -> Shape:
        import numpy as np

        with kernels("portable"):  # one blank sample; it passes all of the operation's checks
            return tuple(self(params, np.zeros((1, *shape), dtype="float32")).shape[1:])


# --- layers with parameters ----------------------------------------------------------------------


def _he_normal(rng: Any, shape: Shape) -> Array:
    """Draw weights of variance 2 / fan_in (He et al., arXiv:1502.01852)."""
    scale = math.sqrt(2 / math.prod(shape[1:]))
    return (generator(rng).standard_normal(shape) * scale).astype("float32")


def _weight_and_bias(rng: Any, shape: Shape, bias: bool) -> Params:
    import numpy as np

    params = {"weight": _he_normal(rng, shape)}
    return params | {"bias": np.zeros(shape[0], dtype="float32")} if bias else params


@dataclass(frozen=True)
class Dense(Layer):
    """Fully connected layer: `dense` with weights (units, features)."""

    units: int
    bias: bool = True

    def __post_init__(self) -> None:
        set_integers(self, "units")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        if len(shape) != 1:
            raise ValueError(
                f"Dense takes samples of shape (features,), got {shape}; put Flatten() before it"
            )
        return _weight_and_bias(rng, (self.units, *shape), self.bias), (self.units,)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return dense(x, params["weight"], params.get("bias"))

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
        wrt = (0, 1, 2) if input_grad else (1, 2)
        y, pullback = dense.vjp(x, params["weight"], params.get("bias"), wrt=wrt)
        return y, _weights_pullback(pullback)


@dataclass(frozen=True)
class Conv2d(Layer):
    """Convolution layer: `conv2d` with weights (filters, C / groups, KH, KW)."""

    filters: int
    window: PairLike
    stride: PairLike = 1
    padding: Padding = 0
    dilation: PairLike = 1
    groups: int = 1
    bias: bool = True
    activation: str | None = None
    max_pool: int | None = None

    def __post_init__(self) -> None:
        set_integers(self, "filters", "groups")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        if len(shape) != 3:
            raise ValueError(f"Conv2d takes samples of shape (C, H, W), got {shape}")
        check_groups(shape[0], self.filters, self.groups)
        weight = (self.filters, shape[0] // self.groups, *as_pair("window", self.window))
        params = _weight_and_bias(rng, weight, self.bias)
        return params, self._output_shape(params, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return conv2d(x, params["weight"], params.get("bias"), **self._options)

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
        wrt = (0, 1, 2) if input_grad else (1, 2)
        y, pullback = conv2d.vjp(x, params["weight"], params.get("bias"), wrt=wrt, **self._options)
        return y, _weights_pullback(pullback)

    @cached_property
    def _options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups", "activation", "max_pool")
        return {name: getattr(self, name) for name in names}


def _weights_pullback(pullback: Callable[[Array], tuple[Array | None, ...]]) -> LayerPullback:
    def of_layer(dy: Array) -> tuple[Array | None, Params]:
        dx, dw, db = pullback(dy)
        return dx, {"weight": dw} if db is None else {"weight": dw, "bias": db}

    return of_layer


@dataclass(frozen=True)
class BatchNorm2d(Layer):
    """Batch normalization of images: `batch_norm`, its running statistics among the parameters."""

    momentum: float = 0.1
    eps: float = 1e-5

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        import numpy as np

        values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        params = {k: np.full(shape[0], v, dtype="float32") for k, v in values.items()}
        return params, self._output_shape(params, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return batch_norm(x, **params, eps=self.eps)[0]

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
        vectors = [params[name] for name in ("weight", "bias", *STATISTICS)]
        (y, mean, var), pullback = batch_norm.vjp(
            x, *vectors, train=train, momentum=self.momentum, eps=self.eps
        )

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, dweight, dbias, _, _ = pullback(dy)
            statistics = {"running_mean": mean, "running_var": var}
            return dx if input_grad else None, {"weight": dweight, "bias": dbias} | statistics

        return y, of_layer


# --- layers that are one operation of x ----------------------------------------------------------


class _OneOperation(Layer):
    """A layer whose fields are the options of one operation of x."""

    operation: ClassVar[Operation[Any, Any]]

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return self.operation(x, **self._options)

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
        return self._one(x, input_grad, self._options)

    def _one(
        self, x: Array, input_grad: bool, options: dict[str, Any]
    ) -> tuple[Array, LayerPullback]:
        y, pullback = self.operation.vjp(x, **options)
        return y, lambda dy: (pullback(dy)[0] if input_grad else None, {})


@dataclass(frozen=True)
class ReLU(_OneOperation):
    """Rectified linear unit: `relu`."""

    operation = relu


@dataclass(frozen=True)
class MaxPool2d(_OneOperation):
    """Maximum over windows: `max_pool2d`."""

    operation = max_pool2d
    window: PairLike
    stride: PairLike | None = None
    padding: PairLike | Margins = 0
    dilation: PairLike = 1
    ceil_mode: bool = False


@dataclass(frozen=True)
class AvgPool2d(_OneOperation):
    """Mean over windows: `avg_pool2d`."""

    operation = avg_pool2d
    window: PairLike
    stride: PairLike | None = None
    padding: PairLike | Margins = 0
    ceil_mode: bool = False
    count_include_pad: bool = True


@dataclass(frozen=True)
class GlobalAvgPool2d(_OneOperation):
    """Mean over all pixels: `global_avg_pool2d`; (C, H, W) -> (C,)."""

    operation = global_avg_pool2d


@dataclass(frozen=True)
class Dropout(_OneOperation):
    """Dropout in training, nothing in inference: `dropout`."""

    operation = dropout
    rate: float = 0.5

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
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
        """Return the output and its pullback: dy -> (dx, grads)."""
        if not train:
            return x, lambda dy: (dy if input_grad else None, {})
        return self._one(x, input_grad, {"rate": self.rate, "rng": rng})


@dataclass(frozen=True)
class Flatten(Layer):
    """Flatten each sample: (C, H, W) -> (C * H * W,)."""

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return _flat(namespace(x=x), x)

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
        xp, shape = namespace(x=x), tuple(x.shape)
        return _flat(xp, x), lambda dy: (xp.reshape(dy, shape) if input_grad else None, {})


def _flat(xp: Any, x: Array) -> Array:
    return xp.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
