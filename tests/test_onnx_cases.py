"""ONNX's own cases of convolutions, pools and batch normalization, and those that torch gave it."""

from __future__ import annotations

import importlib
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_close

import agnostic_xent as ax

onnx = pytest.importorskip("onnx")
base = pytest.importorskip("onnx.backend.test.case.base")

TORCH = Path(onnx.__file__).parent / "backend" / "test" / "data" / "pytorch-converted"
FROM_TORCH = sorted(
    path.name
    for path in TORCH.glob("test_*")
    if path.name.startswith(("test_Conv1", "test_Conv2", "test_Conv3", "test_BatchNorm"))
    or "Pool" in path.name
)


def margins(given, size, window, dilation, stride):
    """Return the pads of a node, before and behind each axis."""
    rank, auto = len(size), given.get("auto_pad", b"NOTSET")
    if auto in (b"NOTSET", b"VALID"):
        pads = given.get("pads", [0] * 2 * rank)
        return tuple(zip(pads[:rank], pads[rank:], strict=True))
    sides = []
    for n, k, d, s in zip(size, window, dilation, stride, strict=True):
        total = max(0, (math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n)
        less, more = total // 2, total - total // 2
        sides.append((less, more) if auto == b"SAME_UPPER" else (more, less))
    return tuple(sides)


def windows(given, size, window, own):
    """Return the options of windows that slide over axes of a size; ``own`` is their stride."""
    rank = len(size)
    dilation = tuple(given.get("dilations", [1] * rank))
    stride = tuple(given.get("strides", own))
    pads = margins(given, size, window, dilation, stride)
    return {"stride": stride, "dilation": dilation, "padding": pads}


def convolution(given, x, w, b=None):
    options = windows(given, x.shape[2:], w.shape[2:], [1] * (x.ndim - 2))
    operation = getattr(ax, f"conv{x.ndim - 2}d")
    return operation(x, w, b, groups=given.get("group", 1), **options)


def max_pool(given, x):
    window = tuple(given["kernel_shape"])
    options = windows(given, x.shape[2:], window, [1] * len(window))
    floats = x.astype("float32")  # exact for uint8
    operation = getattr(ax, f"max_pool{x.ndim - 2}d")
    found = operation(floats, window, ceil_mode=bool(given.get("ceil_mode", 0)), **options)
    return found.astype(x.dtype)


def average_pool(given, x):
    window = tuple(given["kernel_shape"])
    options = windows(given, x.shape[2:], window, [1] * len(window))
    assert {*options.pop("dilation")} == {1}
    operation = getattr(ax, f"avg_pool{x.ndim - 2}d")
    ceil, margin = (bool(given.get(name, 0)) for name in ("ceil_mode", "count_include_pad"))
    return operation(x, window, ceil_mode=ceil, count_include_pad=margin, **options)


def global_average_pool(given, x):
    return ax.global_avg_pool(x).reshape(*x.shape[:2], *(1 for _ in x.shape[2:]))


def batch_normalization(given, x, scale, bias, mean, variance):
    layer = (ax.BatchNorm1d, ax.BatchNorm2d, ax.BatchNorm3d)[x.ndim - 3](eps=given["epsilon"])
    statistics = {"running_mean": mean, "running_var": variance}
    return layer({"weight": scale, "bias": bias, **statistics}, x)


NODES = {
    "Conv": convolution,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "GlobalAveragePool": global_average_pool,
    "BatchNormalization": batch_normalization,
    "Unsqueeze": lambda given, x: np.expand_dims(x, tuple(given["axes"])),
    "Squeeze": lambda given, x: np.squeeze(x, tuple(given["axes"])),
}


def attributes(node):
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def node_cases():
    """Return nodes with their inputs and first output, by name."""
    found = {}

    def expect(node, inputs, outputs, name, **_):
        found[name.removeprefix("test_")] = node, inputs, outputs[0]

    for name in ("conv", "maxpool", "averagepool", "globalaveragepool"):
        module = importlib.import_module(f"onnx.backend.test.case.node.{name}")
        module.expect = expect
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, base.Base) and kind is not base.Base:
                for export in [way for way in vars(kind) if way.startswith("export")]:
                    getattr(kind, export)()
    return found


CASES = {
    name: case
    for name, case in node_cases().items()
    # a mean over windows with holes is no operation here, nor in torch
    if name.startswith("maxpool") or {*attributes(case[0]).get("dilations", [1])} == {1}
}


def test_there_are_cases():
    assert {len(case[1][0].shape) for case in CASES.values()} == {3, 4, 5}
    assert len(CASES) > 40
    assert len(FROM_TORCH) > 40


@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("name", CASES)
def test_nodes_are_onnxs(name, mode):
    node, inputs, expected = CASES[name]
    with ax.kernels(mode):
        found = NODES[node.op_type](attributes(node), *inputs)
    assert found.dtype == expected.dtype
    if name == "averagepool_2d_ceil_last_window_starts_on_pad":  # whose numbers have four digits
        np.testing.assert_allclose(found, expected, rtol=1e-3)  # as ONNX compares
    else:
        assert_close(found, expected, "float32", 64)


def arrays(path):
    """Return the array in a file."""
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return onnx.numpy_helper.to_array(tensor)


@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("name", FROM_TORCH)
def test_models_of_torch_are_ours(name, mode):
    graph = onnx.load(TORCH / name / "model.onnx").graph
    values = {w.name: onnx.numpy_helper.to_array(w) for w in graph.initializer}
    (given,) = (x.name for x in graph.input if x.name not in values)
    values[given] = arrays(TORCH / name / "test_data_set_0" / "input_0.pb")
    with ax.kernels(mode):
        for node in graph.node:
            inputs = [values[x] for x in node.input]
            values[node.output[0]] = NODES[node.op_type](attributes(node), *inputs)
    expected = arrays(TORCH / name / "test_data_set_0" / "output_0.pb")
    assert_close(values[graph.output[0].name], expected, "float32", 256)
