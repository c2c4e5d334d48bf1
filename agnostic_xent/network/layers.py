"""Layers: frozen hyper-parameters with `init`, a call for inference, and `vjp` for training.

``init(rng, shape)`` takes the shape of one sample, without the batch axis, and returns
``(params, shape)``: NumPy parameters and the shape of one output. ``vjp(params, x, train=, rng=,
input_grad=)`` returns ``(y, pullback)``, and ``pullback(dy)`` returns ``(dx, grads)``, where dx is
None without ``input_grad``. A layer defines this as ``forward(params, x, how)``. Nothing is stored
on a layer. Gradients are arrays that nobody else has: they may be written to, and on several ranks
are.

Parameters are one flat dict with torch's spelling ("0.weight", "3.bias"). Running statistics are
parameters that are not trained: in ``grads`` their entries are their new values, see
`split_statistics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple, TypeAlias

from ..core.arrays import Array
from ..core.cached import cached_property
from ..core.checks import check_ndim, generator, namespace, set_integers
from ..core.geometry import LAYOUTS, Padding, SizesLike, as_margins, as_sizes, ceil_margins
from ..core.operation import Operation, explain, kernels
from ..operations.activations import relu
from ..operations.convolution import check_groups, conv1d, conv2d, conv3d
from ..operations.dense import dense
from ..operations.elementwise import gelu, leaky_relu, silu, tanh
from ..operations.normalization import batch_norm, dropout
from ..operations.pooling import (
    avg_pool1d,
    avg_pool2d,
    avg_pool3d,
    global_avg_pool,
    global_avg_pool2d,
    max_pool1d,
    max_pool2d,
    max_pool3d,
)
from ..operations.sample_normalization import group_norm, layer_norm
from .onnx_graph import OnnxGraph

__all__ = [
    "GELU",
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "GlobalAvgPool2d",
    "GroupNorm",
    "LayerNorm",
    "LeakyReLU",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "ReLU",
    "SiLU",
    "Standardize",
    "Tanh",
]

Params: TypeAlias = dict[str, Array]
Shape: TypeAlias = tuple[int, ...]
LayerPullback: TypeAlias = Callable[[Array], tuple[Array | None, Params]]
"""Takes dy, the gradient of an output; returns dx, and the gradients of the parameters."""
WithPullback: TypeAlias = tuple[Array, LayerPullback]

STATISTICS = ("running_mean", "running_var")


def split_statistics(grads: Mapping[str, Array]) -> tuple[Params, Params]:
    """Split what a pullback returns into gradients and new running statistics."""
    statistics = {k: v for k, v in grads.items() if k.rpartition(".")[2] in STATISTICS}
    if not statistics:
        return dict(grads), statistics
    return {k: v for k, v in grads.items() if k not in statistics}, statistics


class Pass(NamedTuple):
    """What is wanted of a way through a layer and back."""

    train: bool = True
    """Whether layers such as `Dropout` do what they do in training alone."""
    rng: Any = None
    """What random layers draw from."""
    input_grad: bool = True
    """Whether the pullback has to return dx."""
    param_grads: bool = True
    """Whether it has to return the gradients of the parameters."""

    def options(self) -> dict[str, Any]:
        """Return the options of `Layer.vjp`, with which all parameters have gradients."""
        return {"train": self.train, "rng": self.rng, "input_grad": self.input_grad}

    def shared(self) -> Pass:
        """Return the same with one generator, from which several layers draw in turn.

        Without a seed each layer makes one of its own, if it needs any: that takes as long as a
        small layer.
        """
        return self if self.rng is None else self._replace(rng=generator(self.rng))


class Layer:
    """The base of all layers.

    A layer has to define `forward`; `init` if it has parameters; `to_onnx` if it can be exported;
    `children` and `rebuilt` if it is made of layers.
    """

    trained: ClassVar[bool] = True
    """Whether the parameters, if it has some, are learnt from gradients."""

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        return {}, self._output_shape({}, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return self.vjp(params, x, train=False, input_grad=False)[0]

    def vjp(
        self,
        params: Mapping[str, Array],
        x: Array,
        *,
        train: bool = True,
        rng: Any = None,
        input_grad: bool = True,
    ) -> WithPullback:
        """Return the output and its pullback: dy -> (dx, grads)."""
        return self.forward(params, x, Pass(train, rng, input_grad))

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        raise NotImplementedError(f"{type(self).__name__} has to define forward")

    def children(self) -> dict[str, Layer]:
        """Return the layers that this one is made of, by what their parameters' names begin with.

        Those of "body" are named "body.weight" and so on.
        """
        return {}

    def rebuilt(self, children: Mapping[str, Layer]) -> Layer:
        """Return the same layer made of others, which have the names that `children` gives."""
        raise NotImplementedError(f"{type(self).__name__} has to define rebuilt")

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append this layer's nodes to a graph, for inference.

        Parameters
        ----------
        graph : OnnxGraph
            Where ``graph.node("Relu", x)`` appends a node and returns the name of its output.
        x : str
            The name of this layer's input.

        Returns
        -------
        str
            The name of this layer's output.
        """
        raise TypeError(
            f"{type(self).__name__} does not say how it is written in ONNX: "
            "its class has to define to_onnx"
        )

    def _output_shape(self, params: Params, shape: Shape) -> Shape:
        import numpy as np

        with kernels("portable"):  # one blank sample; it passes all of the operation's checks
            return tuple(self(params, np.zeros((1, *shape), dtype="float32")).shape[1:])

    def _fused(self) -> Layer:
        """Return the layer as it runs: layers within it that run as one are one."""
        children = self.children()
        if not children:
            return self
        return self.rebuilt({name: child._fused() for name, child in children.items()})

    def _explained(self, params: Mapping[str, Array], x: Array) -> list[str]:
        """Return what `explain` says of the operations that run in training."""
        return []


# --- layers that are one operation ---------------------------------------------------------------


@dataclass(frozen=True)
class OperationLayer(Layer):
    """A layer that is one operation of x; its fields, if it has some, are the operation's options.

    Written in a line, without options, and what the same is called in ONNX::

        class Tanh(OperationLayer):
            operation, onnx_node = tanh, "Tanh"
    """

    operation: ClassVar[Operation[Any, Any]]
    onnx_node: ClassVar[str] = ""
    """The kind of node that does the same in ONNX, to x alone; empty where there is none."""

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return self.operation(*self._arrays(params, x), **self._options)

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        y, pullback = self.operation.vjp(x, **self._options_in(how))
        return y, lambda dy: (pullback(dy)[0] if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node(self.onnx_node, x) if self.onnx_node else super().to_onnx(graph, x)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        """Return what the operation takes: x, and perhaps parameters."""
        return (x,)

    def _options_in(self, how: Pass) -> dict[str, Any]:
        """Return the options of the operation in a pass."""
        return self._options

    def _explained(self, params: Mapping[str, Array], x: Array) -> list[str]:
        options = self._options_in(Pass(rng=0))
        return [explain(self.operation, *self._arrays(params, x), **options)]


class ReLU(OperationLayer):
    """Rectified linear unit: `relu`."""

    operation, onnx_node = relu, "Relu"


class Tanh(OperationLayer):
    """Hyperbolic tangent: `tanh`."""

    operation, onnx_node = tanh, "Tanh"


class SiLU(OperationLayer):
    """Sigmoid linear unit: `silu`."""

    operation = silu

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to a graph; return the output's name."""
        return graph.node("Mul", x, graph.node("Sigmoid", x))


@dataclass(frozen=True)
class GELU(OperationLayer):
    """Gaussian error linear unit: `gelu`."""

    operation = gelu
    approximate: str = "none"

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("Gelu", x, approximate=self.approximate)


@dataclass(frozen=True)
class LeakyReLU(OperationLayer):
    """Leaky rectified linear unit: `leaky_relu`."""

    operation = leaky_relu
    negative_slope: float = 0.01

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("LeakyRelu", x, alpha=self.negative_slope)


@dataclass(frozen=True)
class _MaxPool(OperationLayer):
    """Maximum over windows."""

    rank: ClassVar[int]
    window: SizesLike
    stride: SizesLike | None = None
    padding: Padding = 0
    dilation: SizesLike = 1
    ceil_mode: bool = False

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        Padding of dilated windows is a node: in onnxruntime it has to be less than the window, and
        windows without a pixel, which are -inf here, are not.
        """
        options = _onnx_windows(self, graph.shapes[x], self.dilation)
        if max(options["dilations"]) > 1:
            x = graph.padded(x, options["pads"], -math.inf)
            options["pads"] = [0] * len(options["pads"])
        return graph.node("MaxPool", x, **options)


class MaxPool1d(_MaxPool):
    """Maximum over windows of signals: `max_pool1d`."""

    operation, rank = max_pool1d, 1


class MaxPool2d(_MaxPool):
    """Maximum over windows: `max_pool2d`."""

    operation, rank = max_pool2d, 2


class MaxPool3d(_MaxPool):
    """Maximum over windows of volumes: `max_pool3d`."""

    operation, rank = max_pool3d, 3


@dataclass(frozen=True)
class _AvgPool(OperationLayer):
    """Mean over windows."""

    rank: ClassVar[int]
    window: SizesLike
    stride: SizesLike | None = None
    padding: Padding = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        In ONNX what ``ceil_mode`` adds would count as padding does, so that padding is a node then.
        """
        options = _onnx_windows(self, graph.shapes[x], dilation=1)
        padding_counts = self.count_include_pad
        if padding_counts and self.ceil_mode:
            plain = _onnx_windows(replace(self, ceil_mode=False), graph.shapes[x], dilation=1)
            both = zip(options["pads"], plain["pads"], strict=True)
            options["pads"] = [pad - counted for pad, counted in both]
            x, padding_counts = graph.padded(x, plain["pads"], 0.0), False
        return graph.node("AveragePool", x, count_include_pad=int(padding_counts), **options)


class AvgPool1d(_AvgPool):
    """Mean over windows of signals: `avg_pool1d`."""

    operation, rank = avg_pool1d, 1


class AvgPool2d(_AvgPool):
    """Mean over windows: `avg_pool2d`."""

    operation, rank = avg_pool2d, 2


class AvgPool3d(_AvgPool):
    """Mean over windows of volumes: `avg_pool3d`."""

    operation, rank = avg_pool3d, 3


class GlobalAvgPool(OperationLayer):
    """Mean of each channel: `global_avg_pool`; (C, L), (C, H, W) or (C, D, H, W) -> (C,)."""

    operation = global_avg_pool

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        axes = range(2, 1 + len(graph.shapes[x]))
        return graph.node("ReduceMean", x, graph.constant("axes", [*axes]), keepdims=0)


class GlobalAvgPool2d(GlobalAvgPool):
    """Mean over all pixels: `global_avg_pool2d`; (C, H, W) -> (C,)."""

    operation = global_avg_pool2d


@dataclass(frozen=True)
class Dropout(OperationLayer):
    """Dropout in training, nothing in inference: `dropout`."""

    operation, onnx_node = dropout, "Dropout"
    rate: float = 0.5

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return x

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        if how.train:
            return super().forward(params, x, how)
        return x, lambda dy: (dy if how.input_grad else None, {})

    def _options_in(self, how: Pass) -> dict[str, Any]:
        return {"rate": self.rate, "rng": how.rng}


# --- layers with parameters ----------------------------------------------------------------------


def _he_normal(rng: Any, shape: Shape) -> Array:
    """Draw weights of variance 2 / fan_in (He et al., arXiv:1502.01852)."""
    scale = math.sqrt(2 / math.prod(shape[1:]))
    return (generator(rng).standard_normal(shape) * scale).astype("float32")


def _weight_and_bias(rng: Any, shape: Shape, bias: bool) -> Params:
    import numpy as np

    params = {"weight": _he_normal(rng, shape)}
    return params | {"bias": np.zeros(shape[0], dtype="float32")} if bias else params


class _WeightedLayer(OperationLayer):
    """A layer whose operation takes x, weights, and perhaps a bias."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        wrt = [0] * how.input_grad + [1, 2] * how.param_grads
        y, pullback = self.operation.vjp(*self._arrays(params, x), wrt=wrt, **self._options)

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, dw, db = pullback(dy)
            grads = {"weight": dw, "bias": db}
            return dx, {name: grad for name, grad in grads.items() if grad is not None}

        return y, of_layer

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        return x, params["weight"], params.get("bias")


@dataclass(frozen=True)
class Dense(_WeightedLayer):
    """Fully connected layer: `dense` with weights (units, features)."""

    operation = dense
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

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("Gemm", x, *graph.parameters("weight", "bias"), transB=1)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class _Convolution(_WeightedLayer):
    """Convolution layer with weights (filters, C / groups, *window)."""

    rank: ClassVar[int]
    filters: int
    window: SizesLike
    stride: SizesLike = 1
    padding: Padding = 0
    dilation: SizesLike = 1
    groups: int = 1
    bias: bool = True
    activation: str | None = None

    def __post_init__(self) -> None:
        set_integers(self, "filters", "groups")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        if len(shape) != 1 + self.rank:
            letters = LAYOUTS[self.rank].replace("N, ", "")
            raise ValueError(f"{type(self).__name__} takes samples of shape {letters}, got {shape}")
        check_groups(shape[0], self.filters, self.groups)
        window = as_sizes("window", self.window, self.rank)
        weight = (self.filters, shape[0] // self.groups, *window)
        params = _weight_and_bias(rng, weight, self.bias)
        return params, self._output_shape(params, shape)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        They are a convolution, and behind it the ReLU that it does too.
        """
        options = _onnx_windows(self, graph.shapes[x], self.dilation)
        inputs = x, *graph.parameters("weight", "bias")
        y = graph.node("Conv", *inputs, group=self.groups, **options)
        return graph.node("Relu", y) if self.activation else y

    @cached_property
    def _options(self) -> dict[str, Any]:
        of_parameters = ("filters", "window", "bias")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in of_parameters}


class Conv1d(_Convolution):
    """Convolution layer for signals: `conv1d` with weights (filters, C / groups, KL)."""

    operation, rank = conv1d, 1


@dataclass(frozen=True)
class Conv2d(_Convolution):
    """Convolution layer: `conv2d` with weights (filters, C / groups, KH, KW)."""

    operation, rank = conv2d, 2
    max_pool: int | None = None

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        They are a convolution, and behind it the ReLU and the pool that it does too.
        """
        y = super().to_onnx(graph, x)
        if self.max_pool:
            pair = as_sizes("max_pool", self.max_pool, self.rank)
            y = graph.node("MaxPool", y, kernel_shape=pair, strides=pair)
        return y


class Conv3d(_Convolution):
    """Convolution layer for volumes: `conv3d` with weights (filters, C / groups, KD, KH, KW)."""

    operation, rank = conv3d, 3


class _SampleNorm(OperationLayer):
    """Normalization of each sample by itself, with a weight and a bias."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        y, pullback = self.operation.vjp(*self._arrays(params, x), **self._options)

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, dweight, dbias = pullback(dy)
            return dx if how.input_grad else None, {"weight": dweight, "bias": dbias}

        return y, of_layer

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        return x, params["weight"], params["bias"]

    def _fresh(self, own: Shape, shape: Shape) -> tuple[Params, Shape]:
        """Return parameters of a shape that change nothing, and that of one output sample."""
        import numpy as np

        params = {"weight": np.ones(own, "float32"), "bias": np.zeros(own, "float32")}
        return params, self._output_shape(params, shape)


@dataclass(frozen=True)
class LayerNorm(_SampleNorm):
    """Normalization of each sample over its last axes: `layer_norm`.

    With torch's ``LayerNorm(shape)`` in place of ``LayerNorm(axes)``, ``shape`` has as many sizes.
    """

    operation = layer_norm
    axes: int = 1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        set_integers(self, "axes")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        if len(shape) < self.axes:
            raise ValueError(f"LayerNorm takes samples of {self.axes} or more axes, got {shape}")
        return self._fresh(shape[-self.axes :], shape)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        inputs = x, *graph.parameters("weight", "bias")
        return graph.node("LayerNormalization", *inputs, axis=-self.axes, epsilon=self.eps)

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {"eps": self.eps}


@dataclass(frozen=True)
class GroupNorm(_SampleNorm):
    """Normalization of each sample over groups of channels: `group_norm`."""

    operation = group_norm
    groups: int
    eps: float = 1e-5

    def __post_init__(self) -> None:
        set_integers(self, "groups")

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        return self._fresh(shape[:1], shape)

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        ONNX normalises channels one by one: groups are taken for such.
        """
        shape = graph.shapes[x]
        rows = graph.node("Reshape", x, graph.constant("rows", [0, self.groups, -1]))
        one, zero = (
            graph.filled(k, [self.groups], v) for k, v in {"one": 1.0, "zero": 0.0}.items()
        )
        unit = graph.node("InstanceNormalization", rows, one, zero, epsilon=self.eps)
        y = graph.node("Reshape", unit, graph.constant("whole", [0, *shape]))
        channels = graph.constant("channels", [-1, *(1 for _ in shape[1:])])
        weight, bias = graph.parameters("weight", "bias")
        y = graph.node("Mul", y, graph.node("Reshape", weight, channels))
        return graph.node("Add", y, graph.node("Reshape", bias, channels))


@dataclass(frozen=True)
class _BatchNorm(OperationLayer):
    """Batch normalization: `batch_norm`, its running statistics among the parameters."""

    operation = batch_norm
    rank: ClassVar[int]
    momentum: float = 0.1
    eps: float = 1e-5
    activation: str | None = None

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return fresh NumPy parameters (float32) and the shape of one output sample."""
        import numpy as np

        values = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
        params = {k: np.full(shape[0], v, dtype="float32") for k, v in values.items()}
        return params, self._output_shape(params, shape)

    def __call__(self, params: Mapping[str, Array], x: Array) -> Array:
        """Return the output for inference."""
        return super().__call__(params, x)[0]

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        (y, mean, var), pullback = self.operation.vjp(
            *self._arrays(params, x), **self._options_in(how)
        )

        def of_layer(dy: Array) -> tuple[Array | None, Params]:
            dx, dweight, dbias, _, _ = pullback(dy)
            statistics = {"running_mean": mean, "running_var": var}
            grads = {"weight": dweight, "bias": dbias} | statistics
            return dx if how.input_grad else None, grads

        return y, of_layer

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to a graph; return the output's name."""
        vectors = graph.parameters("weight", "bias", *STATISTICS)
        y = graph.node("BatchNormalization", x, *vectors, epsilon=self.eps)
        return graph.node("Relu", y) if self.activation else y

    @cached_property
    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("momentum", "eps", "activation")}

    def _arrays(self, params: Mapping[str, Array], x: Array) -> tuple[Array | None, ...]:
        self._check(x)
        return x, *(params[name] for name in ("weight", "bias", *STATISTICS))

    def _check(self, x: Array) -> None:
        """Raise ValueError unless samples have the rank that the class says."""
        check_ndim("x", x, 2 + self.rank, LAYOUTS[self.rank])

    def _options_in(self, how: Pass) -> dict[str, Any]:
        return self._options | {"train": how.train}


class BatchNorm1d(_BatchNorm):
    """Batch normalization of signals, or of rows (N, C): `batch_norm`."""

    rank = 1

    def _check(self, x: Array) -> None:
        if x.ndim != 2:
            super()._check(x)


class BatchNorm2d(_BatchNorm):
    """Batch normalization of images: `batch_norm`, its running statistics among the parameters."""

    rank = 2


class BatchNorm3d(_BatchNorm):
    """Batch normalization of volumes: `batch_norm`."""

    rank = 3


# --- layers without an operation -----------------------------------------------------------------


@dataclass(frozen=True)
class Flatten(Layer):
    """Flatten each sample: (C, H, W) -> (C * H * W,)."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        xp, shape = namespace(x=x), tuple(x.shape)
        y = xp.reshape(x, (shape[0], math.prod(shape[1:])))
        return y, lambda dy: (xp.reshape(dy, shape) if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("Flatten", x, axis=1)


@dataclass(frozen=True)
class Standardize(Layer):
    """Standardised numbers: ``(x - mean) / std``, by channel of images, by feature of rows.

    The statistics are parameters, so that they are kept and exported with a model, but are not
    trained: `standardized` takes them from data.
    """

    trained = False

    def init(self, rng: Any, shape: Shape) -> tuple[Params, Shape]:
        """Return parameters that change nothing, and the shape of one output sample."""
        import numpy as np

        own = (shape[0], *(1 for _ in shape[1:]))  # (C, 1, 1) or (features,)
        return {"mean": np.zeros(own, "float32"), "std": np.ones(own, "float32")}, shape

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        """Return the output of x and its pullback, as `vjp` does with the options in ``how``."""
        std = params["std"]
        return (x - params["mean"]) / std, lambda dy: (dy / std if how.input_grad else None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to a graph; return its output's name."""
        mean, std = graph.parameters("mean", "std")
        return graph.node("Div", graph.node("Sub", x, mean), std)


def _onnx_windows(
    layer: _Convolution | _MaxPool | _AvgPool, shape: Shape, dilation: SizesLike
) -> dict[str, Any]:
    """Return ONNX's attributes of windows that slide over samples of a shape.

    A pool's ``ceil_mode`` becomes margins: runtimes disagree about that attribute.
    """
    window = as_sizes("window", layer.window, layer.rank)
    dilation = as_sizes("dilation", dilation, layer.rank)
    stride = window if layer.stride is None else as_sizes("stride", layer.stride, layer.rank)
    margins = as_margins(layer.padding, window, dilation, stride, shape[1:])
    if not isinstance(layer, _Convolution) and layer.ceil_mode:
        margins = ceil_margins(margins, window, dilation, stride, shape[1:])
    before, after = zip(*margins, strict=True)
    return {
        "kernel_shape": window,
        "strides": stride,
        "dilations": dilation,
        "pads": [*before, *after],
    }
