"""Models for other libraries: parameters named as torch names them, and ONNX files."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.arrays import Array, array_namespace
from ..core.conversion import to_numpy
from ..core.files import write_atomically
from ..operations.activations import softmax
from .containers import Chain
from .layers import Layer, Params, Pass, Shape, Standardize, WithPullback
from .onnx_graph import OnnxGraph, import_onnx

if TYPE_CHECKING:
    import numpy as np

__all__ = ["export_onnx", "match_params"]

OPSET, IR_VERSION = 20, 9
DTYPES = ("float16", "float32", "float64")
NOT_IN_FLOAT64 = ("AveragePool", "Conv", "Gelu", "InstanceNormalization", "LeakyRelu")
"""The nodes of layers that onnxruntime does not compute in float64 on a CPU."""

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


class Exported(NamedTuple):
    """What becomes an ONNX file."""

    model: Layer
    """Of a classifier with what is done to samples before; it makes logits."""
    params: Mapping[str, Array]
    input_shape: tuple[int, ...]
    classes: list[Any] | None = None
    """The labels of a classifier, whose output is probabilities."""
    input: str = ""
    """What a classifier is to be given, in words."""

    @property
    def output(self) -> str:
        """The name of the graph's output."""
        return "output" if self.classes is None else "probabilities"


def after_division(
    model: Layer, params: Params, shape: Shape, divisor: int
) -> tuple[Layer, Params]:
    """Return a model of numbers that are divided before, and its parameters."""
    if divisor == 1:
        return model, params
    levels, dtype = Standardize(), str(next(iter(params.values())).dtype).rpartition(".")[2]
    own = {
        f"levels.{name}": (w * divisor if name == "std" else w).astype(dtype)
        for name, w in levels.init(0, shape)[0].items()
    }
    return Chain({"levels": levels, "": model}), {**params, **own}


def export_onnx(
    model: Any,
    params: Any,
    path: str | os.PathLike[str] | None = None,
    input_shape: tuple[int, ...] | None = None,
) -> None:
    """Write a model, for inference, to an ONNX file that takes any number of samples.

    It is called as ``export_onnx(model, params, path, input_shape)``, or as
    ``export_onnx(classifier, path)``.

    The graph's input is called "input" and its output "output"; parameters keep their names. Of a
    classifier the output is called "probabilities". What it does to images before, such as to
    divide levels by 255, is in the graph, and the metadata has its labels: a JSON list called
    "classes".

    Parameters
    ----------
    model : layer, or CNNClassifier or LogisticRegression
        Each layer in it appends its own nodes, `Layer.to_onnx`. A classifier is fitted.
    params : mapping of str to array, or path of a classifier's file
        Its parameters, of any library, all float16, float32 or float64. onnxruntime computes some
        layers, such as convolutions and average pools, in the first two alone; a warning says so.
    path : path
        The file; an older one is replaced only when the new one is complete.
    input_shape : tuple of int
        Of one sample, such as (C, H, W).

    Raises
    ------
    TypeError
        If a layer does not say how it is written in ONNX, or cannot be.
    ValueError
        If ``params`` are not those of the model, or of several dtypes or another one.
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
    >>> export_onnx(LogisticRegression().fit([[0.0], [1.0]], ["ham", "spam"]), path)
    """
    if not isinstance(model, Layer):
        write_onnx(params, _of_classifier(model, path))
        return
    if path is None or input_shape is None:
        raise TypeError("export_onnx of a layer needs params, path and input_shape")
    write_onnx(path, Exported(model, params, input_shape))


def write_onnx(path: str | os.PathLike[str], exported: Exported) -> None:
    """Write a model, or a classifier, to an ONNX file."""
    onnx = import_onnx()
    model, params, input_shape, classes, about = exported
    if classes is not None:
        model = Chain({"": model, "probabilities": _Probabilities()})
    host = {k: to_numpy(w) for k, w in match_params(model, params, input_shape).items()}
    dtype = _dtype(host)
    element = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    graph = OnnxGraph(host.keys(), {"input": tuple(input_shape)}, element)
    y = model.to_onnx(graph, "input")
    graph.note_shape(model, "input", y)
    if not graph.nodes or graph.nodes[-1].output[0] != y:
        graph.node("Identity", y)
    graph.nodes[-1].output[0] = exported.output
    describe = onnx.helper.make_tensor_value_info
    content = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            "model",
            [describe("input", element, ["batch", *input_shape])],
            [describe(exported.output, element, ["batch", *graph.shapes[y]])],
            [onnx.numpy_helper.from_array(w, name) for name, w in host.items()] + graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="agnostic_xent",
    )
    if classes is not None:
        notes = {"classes": json.dumps(classes)} | ({"input": about} if about else {})
        onnx.helper.set_model_props(content, notes)
    onnx.checker.check_model(content, full_check=True)
    _warn_of_float64(dtype, {node.op_type for node in graph.nodes})
    write_atomically(path, content.SerializeToString())


def _of_classifier(classifier: Any, path: Any) -> Exported:
    """Return a fitted classifier as what is exported."""
    if path is not None or not hasattr(classifier, "_exported"):
        raise TypeError(
            "model must be a layer, with params, path and input_shape, or a CNNClassifier or "
            f"LogisticRegression, with the path alone; got {type(classifier).__name__}"
        )
    if not hasattr(classifier, "classes_"):
        raise ValueError(f"this {type(classifier).__name__} is not fitted yet; call fit before")
    if classifier._several:
        raise TypeError("a classifier of several labels a sample is not exported; export its model")
    found: Exported = classifier._exported()
    return found


class _Probabilities(Layer):
    """Of logits, the probability of each class; a single one is that of the second of two."""

    def forward(self, params: Mapping[str, Array], x: Array, how: Pass) -> WithPullback:
        logits = x if x.shape[1] > 1 else array_namespace(x).concat([0 * x, x], axis=1)
        return softmax(logits), lambda dy: (None, {})

    def to_onnx(self, graph: OnnxGraph, x: str) -> str:
        if graph.shapes[x][0] > 1:
            return graph.node("Softmax", x, axis=1)
        return graph.node("Sigmoid", graph.node("Concat", graph.node("Neg", x), x, axis=1))


def _dtype(params: Mapping[str, np.ndarray]) -> np.dtype:
    """Return the one dtype of parameters; where there are none, float32."""
    import numpy as np

    dtypes = {w.dtype for w in params.values()} or {np.dtype("float32")}
    names = sorted(map(str, dtypes))
    if len(names) > 1:
        raise ValueError(f"params must have one dtype, got {', '.join(names)}")
    if names[0] not in DTYPES:
        raise ValueError(
            f"params must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]} in ONNX, got {names[0]}"
        )
    return dtypes.pop()


def _warn_of_float64(dtype: np.dtype, kinds: set[str]) -> None:
    refused = [kind for kind in NOT_IN_FLOAT64 if kind in kinds]
    if dtype == "float64" and refused:
        warnings.warn(
            f"onnxruntime does not compute {' and '.join(refused)} in float64, the dtype of params,"
            ' on a CPU; to run the file there, export {name: w.astype("float32") for name, w in '
            "to_backend(params, numpy).items()}",
            stacklevel=4,
        )
