"""Models for other libraries: parameters named as torch names them, and ONNX files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..core.arrays import Array
from ..core.conversion import to_numpy
from ..core.files import write_atomically
from ..core.geometry import Margins, PairLike, as_margins, as_pair
from .containers import Residual, Sequential
from .layers import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    Layer,
    MaxPool2d,
    ReLU,
    Shape,
)

__all__ = ["export_onnx", "match_params"]

OPSET, IR_VERSION = 20, 9

COUNTER = "num_batches_tracked"
"""torch's BatchNorm2d counts its batches; nothing here depends on it."""


def match_params(
    model: Layer, params: Mapping[str, Array], input_shape: tuple[int, ...]
) -> dict[str, Array]:
    """Check that parameters are those of a model, such as ones that torch has saved.

    `Sequential` names its parameters as ``torch.nn.Sequential`` does, and they have the same
    shapes, so that a safetensors file goes from one to the other; what torch counts in its batch
    normalization is left out here.

    Parameters
    ----------
    model : layer
        The model.
    params : mapping of str to array
        Such as `load_params` returns.
    input_shape : tuple of int
        Of one sample.

    Returns
    -------
    dict of str to array
        The parameters in the model's order.

    Raises
    ------
    ValueError
        If a parameter is missing, unknown or of another shape.

    Examples
    --------
    >>> params = {"0.weight": xp.ones((2, 3)), "0.bias": xp.zeros(2)}
    >>> sorted(match_params(Sequential(Dense(2)), params, (3,)))
    ['0.bias', '0.weight']
    """
    own, _ = model.init(0, input_shape)
    given = {name: w for name, w in params.items() if name.rpartition(".")[2] != COUNTER}
    for problem, names in (("lacks", own.keys() - given), ("has unknown", given.keys() - own)):
        if names:
            raise ValueError(f"params {problem} {', '.join(sorted(names))}")
    for name, w in own.items():
        if tuple(given[name].shape) != w.shape:
            raise ValueError(
                f"params[{name!r}] must have shape {w.shape} in this model, "
                f"got {tuple(given[name].shape)}"
            )
    return {name: given[name] for name in own}


def export_onnx(
    model: Layer,
    params: Mapping[str, Array],
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...],
) -> None:
    """Write a model, for inference, to an ONNX file: one node a layer, any number of samples.

    The graph's input is called "input" and its output "output"; parameters keep their names.

    Parameters
    ----------
    model : layer
        Of this package's layers.
    params : mapping of str to array
        Its parameters, of any library, all of one dtype.
    path : path
        The file; an older one is replaced only when the new one is complete.
    input_shape : tuple of int
        Of one sample, such as (C, H, W).

    Raises
    ------
    TypeError
        If a layer is not one of this package.
    ValueError
        If ``params`` are not those of the model.
    ImportError
        Without the package onnx.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> model = Sequential(Flatten(), Dense(10))
    >>> params, _ = model.init(0, (1, 8, 8))
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.onnx"
    >>> export_onnx(model, params, path, (1, 8, 8))
    >>> path.exists()
    True
    """
    onnx = _onnx()
    host = {k: to_numpy(w) for k, w in match_params(model, params, input_shape).items()}
    dtypes = {w.dtype for w in host.values()}
    if len(dtypes) > 1:
        raise ValueError(f"params must have one dtype, got {', '.join(sorted(map(str, dtypes)))}")
    graph = _Graph()
    shape = graph.add(model, "", "input", tuple(input_shape))[1]
    graph.nodes[-1].output[0] = "output"
    elements = [onnx.helper.np_dtype_to_tensor_dtype(dtype) for dtype in dtypes]
    element = elements[0] if elements else onnx.TensorProto.FLOAT
    describe = onnx.helper.make_tensor_value_info
    content = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "model",
            [describe("input", element, ["batch", *input_shape])],
            [describe("output", element, ["batch", *shape])],
            [onnx.numpy_helper.from_array(w, name) for name, w in host.items()] + graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="agnostic_xent",
    )
    onnx.checker.check_model(content, full_check=True)
    write_atomically(path, content.SerializeToString())


class _Graph:
    """Nodes, one behind the other, and what they need beside the parameters."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, layer: Layer, prefix: str, x: str, shape: Shape) -> tuple[str, Shape]:
        """Append a layer whose input is called x; return the name and shape of its output."""
        if isinstance(layer, Sequential):
            for i, inner in enumerate(layer.layers):
                x, shape = self.add(inner, f"{prefix}{i}.", x, shape)
            return x, shape
        if isinstance(layer, Residual):
            branch, out = self.add(layer.body, f"{prefix}body.", x, shape)
            if layer.shortcut is not None:
                x, _ = self.add(layer.shortcut, f"{prefix}shortcut.", x, shape)
            return self.node("Add", prefix, [branch, x]), out
        y = self._single(layer, prefix, x, shape)
        return y, layer.init(0, shape)[1]

    def node(self, kind: str, prefix: str, inputs: list[str], **attributes: Any) -> str:
        """Append a node and return the name of its output."""
        name = f"{prefix}{kind}"
        node = _onnx().helper.make_node(kind, inputs, [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def _single(self, layer: Layer, prefix: str, x: str, shape: Shape) -> str:
        match layer:
            case Dense():
                return self.node("Gemm", prefix, _inputs(layer, prefix, x), transB=1)
            case Conv2d():
                return self._convolution(layer, prefix, x, shape)
            case BatchNorm2d():
                names = ("weight", "bias", "running_mean", "running_var")
                inputs = [x, *(prefix + name for name in names)]
                return self.node("BatchNormalization", prefix, inputs, epsilon=layer.eps)
            case MaxPool2d():
                return self.node("MaxPool", prefix, [x], **_pool(layer, shape, layer.dilation))
            case AvgPool2d():
                options = {"count_include_pad": int(layer.count_include_pad)}
                return self.node("AveragePool", prefix, [x], **_pool(layer, shape, 1), **options)
            case GlobalAvgPool2d():
                onnx, axes = _onnx(), f"{prefix}axes"
                self.constants.append(
                    onnx.helper.make_tensor(axes, onnx.TensorProto.INT64, [2], [2, 3])
                )
                return self.node("ReduceMean", prefix, [x, axes], keepdims=0)
            case Flatten():
                return self.node("Flatten", prefix, [x], axis=1)
            case ReLU():
                return self.node("Relu", prefix, [x])
            case Dropout():  # which does nothing outside of training
                return self.node("Dropout", prefix, [x])
        raise TypeError(f"model must be of this package's layers to become ONNX, got {layer!r}")

    def _convolution(self, layer: Conv2d, prefix: str, x: str, shape: Shape) -> str:
        window, stride = as_pair("window", layer.window), as_pair("stride", layer.stride)
        dilation = as_pair("dilation", layer.dilation)
        margins = as_margins(layer.padding, window, dilation, stride, (shape[1], shape[2]))
        y = self.node(
            "Conv",
            prefix,
            _inputs(layer, prefix, x),
            kernel_shape=window,
            strides=stride,
            dilations=dilation,
            pads=_pads(margins),
            group=layer.groups,
        )
        return self.node("Relu", prefix, [y]) if layer.activation else y


def _onnx() -> Any:
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError('export_onnx needs onnx: pip install "agnostic-xent[onnx]"') from error
    return onnx


def _inputs(layer: Dense | Conv2d, prefix: str, x: str) -> list[str]:
    return [x, f"{prefix}weight", *([f"{prefix}bias"] if layer.bias else [])]


def _pads(margins: Margins) -> list[int]:
    """Return margins in ONNX's order: all starts, then all ends."""
    (top, bottom), (left, right) = margins
    return [top, left, bottom, right]


def _pool(layer: MaxPool2d | AvgPool2d, shape: Shape, dilation: PairLike) -> dict[str, Any]:
    window, dilation = as_pair("window", layer.window), as_pair("dilation", dilation)
    stride = window if layer.stride is None else as_pair("stride", layer.stride)
    margins = as_margins(layer.padding, window, dilation, stride, (shape[1], shape[2]))
    return {
        "kernel_shape": window,
        "strides": stride,
        "dilations": dilation,
        "pads": _pads(margins),
        "ceil_mode": int(layer.ceil_mode),
    }
