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
from ..core.checks import generator, namespace, set_integers
from ..core.geometry import Margins, Padding, PairLike, as_margins, as_pair, ceil_margins
from ..core.operation import Operation, explain, kernels
from ..operations.activations import relu
from ..operations.convolution import check_groups, conv2d
from ..operations.dense import dense
from ..operations.normalization import batch_norm, dropout
from ..operations.pooling import avg_pool2d, global_avg_pool2d, max_pool2d
from .onnx_graph import OnnxGraph

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
    "Standardize",
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


@dataclass(frozen=True)
class MaxPool2d(OperationLayer):
    """Maximum over windows: `max_pool2d`."""

    operation = max_pool2d
    window: PairLike
    stride: PairLike | None = None
    padding: PairLike | Margins = 0
    dilation: PairLike = 1
    ceil_mode: bool = False

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        Padding of dilated windows is a node: in onnxruntime it has to be less than the window, and
        windows without a pixel, which are -inf here, are not.
        """
        options = _onnx_windows(self, graph.shapes[x], self.dilation)
        if max(options["dilations"]) > 1:
            x, options["pads"] = graph.padded(x, options["pads"], -math.inf), [0, 0, 0, 0]
        return graph.node("MaxPool", x, **options)


@dataclass(frozen=True)
class AvgPool2d(OperationLayer):
    """Mean over windows: `avg_pool2d`."""

    operation = avg_pool2d
    window: PairLike
    stride: PairLike | None = None
    padding: PairLike | Margins = 0
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


class GlobalAvgPool2d(OperationLayer):
    """Mean over all pixels: `global_avg_pool2d`; (C, H, W) -> (C,)."""

    operation = global_avg_pool2d

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's node, for the input named x, to a graph; return its output's name."""
        return graph.node("ReduceMean", x, graph.constant("axes", [2, 3]), keepdims=0)


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
class Conv2d(_WeightedLayer):
    """Convolution layer: `conv2d` with weights (filters, C / groups, KH, KW)."""

    operation = conv2d
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

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        """Append the layer's nodes, for the input named x, to ``graph``; return the output's name.

        They are a convolution, and behind it the ReLU and the pool that it does too.
        """
        options = _onnx_windows(self, graph.shapes[x], self.dilation)
        inputs = x, *graph.parameters("weight", "bias")
        y = graph.node("Conv", *inputs, group=self.groups, **options)
        if self.activation:
            y = graph.node("Relu", y)
        if self.max_pool:
            pair = as_pair("max_pool", self.max_pool)
            y = graph.node("MaxPool", y, kernel_shape=pair, strides=pair)
        return y

    @cached_property
    def _options(self) -> dict[str, Any]:
        names = ("stride", "padding", "dilation", "groups", "activation", "max_pool")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class BatchNorm2d(OperationLayer):
    """Batch normalization of images: `batch_norm`, its running statistics among the parameters."""

    operation = batch_norm
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
        return x, *(params[name] for name in ("weight", "bias", *STATISTICS))

    def _options_in(self, how: Pass) -> dict[str, Any]:
        return self._options | {"train": how.train}


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
    layer: Conv2d | MaxPool2d | AvgPool2d, shape: Shape, dilation: PairLike
) -> dict[str, Any]:
    """Return ONNX's attributes of windows that slide over samples of a shape.

    A pool's ``ceil_mode`` becomes margins: runtimes disagree about that attribute.
    """
    window, dilation = as_pair("window", layer.window), as_pair("dilation", dilation)
    stride = window if layer.stride is None else as_pair("stride", layer.stride)
    image = shape[1], shape[2]
    margins = as_margins(layer.padding, window, dilation, stride, image)
    if not isinstance(layer, Conv2d) and layer.ceil_mode:
        margins = ceil_margins(margins, window, dilation, stride, image)
    (top, bottom), (left, right) = margins
    return {
        "kernel_shape": window,
        "strides": stride,
        "dilations": dilation,
        "pads": [top, left, bottom, right],
    }
