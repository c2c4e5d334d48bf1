"""Models in other libraries: torch's safetensors both ways, and ONNX in two runtimes."""

from __future__ import annotations

import builtins
import re
import warnings
from contextlib import suppress

import numpy as np
import pytest
from layer_samples import CASES

from agnostic_xent import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    Conv1d,
    Conv2d,
    Conv3d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    GlobalAvgPool2d,
    GroupNorm,
    LayerNorm,
    LeakyReLU,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
    ReLU,
    Residual,
    Sequential,
    SiLU,
    Tanh,
    export_onnx,
    kernels,
    lenet,
    load_params,
    match_params,
    resnet,
    save_params,
)
from agnostic_xent.network.layers import Layer

SEED = 11
EQUAL = 1e-6
"""What outputs of order 1 may differ by between two libraries that sum in float32."""


def filled(model, shape, dtype="float32"):
    """Return parameters, running statistics too, none of which has the value it starts with."""
    rng = np.random.default_rng(SEED)
    params, _ = model.init(SEED, shape)
    for name, w in params.items():
        if w.ndim in (1, 3):
            shift = 1.0 if name.endswith(("running_var", "std", "weight")) else 0.0
            params[name] = shift + rng.uniform(-0.3, 0.3, w.shape)
    return {name: w.astype(dtype) for name, w in params.items()}


def images(shape, dtype="float32", samples=3):
    return np.random.default_rng(SEED).standard_normal((samples, *shape)).astype(dtype)


def run(model, params, x):
    """Run a model plainly: Winograd's algorithm rounds a little more than 1e-6 away."""
    with kernels("portable"):
        return model(params, x)


def check_equal(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(found, expected, rtol=0, atol=EQUAL * scale)


BLOCK = Sequential(Conv2d(4, 3, padding=1, bias=False), BatchNorm2d(), ReLU())
SHORTCUT = Sequential(Conv2d(4, 1, stride=2, bias=False), BatchNorm2d(eps=1e-3))
MODELS = {
    "lenet": (lenet(), (1, 8, 8)),
    "resnet": (resnet(8), (3, 8, 8)),
    "plain": (
        Sequential(
            Conv2d(6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2),
            BatchNorm2d(eps=1e-2),
            ReLU(),
            MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
            AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
            Dropout(0.5),
            Flatten(),
            Dense(5, bias=False),
        ),
        (2, 11, 9),
    ),
    "signals": (
        Sequential(
            Conv1d(6, 5, stride=2, padding=2, groups=2, bias=False),
            BatchNorm1d(eps=1e-2),
            ReLU(),
            MaxPool1d(3, stride=2, padding=1, ceil_mode=True),
            Conv1d(5, 3, padding=2, dilation=2),
            AvgPool1d(2, stride=1, padding=1, count_include_pad=False),
            GlobalAvgPool(),
            BatchNorm1d(),
            Dense(3),
        ),
        (4, 25),
    ),
    "volumes": (
        Sequential(
            Conv3d(4, (2, 3, 3), stride=(1, 2, 1), padding=(0, 1, 1), groups=2),
            BatchNorm3d(),
            ReLU(),
            MaxPool3d((1, 2, 2), stride=(1, 1, 2)),
            Conv3d(3, (3, 1, 1), padding=(1, 0, 0), bias=False),
            AvgPool3d((2, 1, 2), padding=(1, 0, 0)),
            Flatten(),
            Dense(3),
        ),
        (2, 4, 6, 7),
    ),
    "activations": (
        Sequential(
            LayerNorm(eps=1e-3),
            Tanh(),
            LeakyReLU(0.2),
            GroupNorm(2, eps=1e-2),
            SiLU(),
            LayerNorm(2),
        ),
        (4, 5),
    ),
    "residual": (
        Sequential(
            Residual(Sequential(Conv2d(4, 3, stride=2, padding=1), BatchNorm2d()), SHORTCUT),
            Residual(BLOCK),
            GlobalAvgPool2d(),
            Dense(3),
        ),
        (2, 7, 7),
    ),
}
each_model = pytest.mark.parametrize("name", MODELS)

# --- torch ---------------------------------------------------------------------------------------


def twin(layer, shape):
    """Return the torch module that a person would write for a layer, and the output's shape."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Sum(nn.Module):
        def __init__(self, body, shortcut):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    class GlobalMean(nn.Module):
        def forward(self, x):
            return x.flatten(2).mean(2)

    def made(layer, shape):
        out = layer.init(0, shape)[1]
        like = getattr(nn, type(layer).__name__, None)
        match layer:
            case Sequential():
                modules = []
                for inner in layer.layers:
                    module, shape = made(inner, shape)
                    modules.append(module)
                return nn.Sequential(*modules), out
            case Residual():
                shortcut = nn.Identity()
                if layer.shortcut is not None:
                    shortcut = made(layer.shortcut, shape)[0]
                return Sum(made(layer.body, shape)[0], shortcut), out
            case Conv1d() | Conv2d() | Conv3d():
                return like(
                    shape[0], layer.filters, layer.window, layer.stride, layer.padding,
                    layer.dilation, layer.groups, layer.bias,
                ), out  # fmt: skip
            case Dense():
                return nn.Linear(shape[0], layer.units, layer.bias), out
            case BatchNorm1d() | BatchNorm2d() | BatchNorm3d():
                return like(shape[0], layer.eps), out
            case MaxPool1d() | MaxPool2d() | MaxPool3d():
                return like(
                    layer.window, layer.stride, layer.padding, ceil_mode=layer.ceil_mode
                ), out
            case AvgPool1d() | AvgPool2d() | AvgPool3d():
                return like(
                    layer.window, layer.stride, layer.padding, layer.ceil_mode,
                    layer.count_include_pad,
                ), out  # fmt: skip
            case LayerNorm():
                return nn.LayerNorm(shape[-layer.axes :], layer.eps), out
            case GroupNorm():
                return nn.GroupNorm(layer.groups, shape[0], layer.eps), out
            case LeakyReLU():
                return nn.LeakyReLU(layer.negative_slope), out
            case Tanh() | SiLU():
                return like(), out
            case ReLU():
                return nn.ReLU(), out
            case Flatten():
                return nn.Flatten(), out
            case Dropout():
                return nn.Dropout(layer.rate), out
            case GlobalAvgPool():
                return GlobalMean(), out

    return made(layer, shape)[0].eval()


def run_torch(module, x):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return module(torch.asarray(x)).numpy()


@each_model
def test_torch_reads_what_is_saved_here(name, tmp_path):
    module = twin(*MODELS[name])
    from safetensors.torch import load_file

    (model, shape), path = MODELS[name], tmp_path / "model.safetensors"
    params = filled(model, shape)
    save_params(path, params)
    assert module.load_state_dict(load_file(path), strict=True).missing_keys == []
    x = images(shape)
    check_equal(run_torch(module, x), run(model, params, x))


@each_model
def test_what_torch_saves_is_read_here(name, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    (model, shape), path = MODELS[name], tmp_path / "model.safetensors"
    torch.manual_seed(SEED)
    module = twin(model, shape).train()
    module(torch.asarray(images(shape, samples=8)))  # which moves the running statistics
    module.eval()
    save_file(module.state_dict(), path)
    params = match_params(model, load_params(path), shape)
    x = images(shape)
    check_equal(run(model, params, x), run_torch(module, x))
    assert list(params) == list(model.init(0, shape)[0])


def test_refuses_parameters_of_another_model():
    model, shape = MODELS["plain"]
    params = filled(model, shape)
    for changed, message in (
        ({k: w for k, w in params.items() if k != "0.bias"}, r"params lacks 0\.bias"),
        (params | {"9.weight": np.ones(1)}, r"params has unknown 9\.weight"),
        (
            params | {"0.bias": np.ones(3, dtype="float32")},
            r"params\['0\.bias'\] must have shape \(6,\) in this model, got \(3,\)",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            match_params(model, changed, shape)


# --- ONNX ----------------------------------------------------------------------------------------

EXPORTED = MODELS | {
    "same, ceil and activation": (
        Sequential(
            Conv2d(3, 4, stride=2, padding="same", activation="relu"),
            MaxPool2d(2, dilation=2, ceil_mode=True),
            Conv2d(2, 2, padding=((0, 1), (2, 0))),
            AvgPool2d(3, stride=2, ceil_mode=True),
            Residual(Conv2d(2, 3, padding="same"), Sequential(ReLU())),
            Flatten(),
        ),
        (1, 15, 14),
    ),
    "one layer": (Dense(3), (4,)),
    "no parameters": (Sequential(MaxPool2d(2), Flatten()), (1, 4, 4)),
}


def kinds(model):
    """Return how many nodes of each kind a model becomes, by the layers that it is written in."""
    names = {
        Dense: "Gemm", Conv2d: "Conv", BatchNorm2d: "BatchNormalization", MaxPool2d: "MaxPool",
        AvgPool2d: "AveragePool", GlobalAvgPool2d: "ReduceMean", Flatten: "Flatten", ReLU: "Relu",
        Dropout: "Dropout", Conv1d: "Conv", BatchNorm1d: "BatchNormalization", MaxPool1d: "MaxPool",
        AvgPool1d: "AveragePool", GlobalAvgPool: "ReduceMean", Conv3d: "Conv",
        BatchNorm3d: "BatchNormalization", MaxPool3d: "MaxPool", AvgPool3d: "AveragePool",
        LayerNorm: "LayerNormalization", Tanh: "Tanh", LeakyReLU: "LeakyRelu",
    }  # fmt: skip
    several = {
        SiLU: ["Sigmoid", "Mul"],
        GroupNorm: [
            "Reshape", "InstanceNormalization", "Reshape", "Reshape", "Mul", "Reshape", "Add"
        ],
    }  # fmt: skip
    match model:
        case Sequential():
            return [kind for layer in model.layers for kind in kinds(layer)]
        case Residual():
            shortcut = kinds(model.shortcut) if model.shortcut is not None else []
            return [*kinds(model.body), *shortcut, "Add"]
        case SiLU() | GroupNorm():
            return several[type(model)]
    return [
        *(["Pad"] if isinstance(model, MaxPool2d) and model.dilation != 1 else []),
        names[type(model)],
        *(["Relu"] if getattr(model, "activation", None) else []),
    ]


def run_onnx(runtime, path, x):
    if runtime == "reference":
        evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator(str(path))
        return evaluator.run(None, {"input": x})[0]
    session = pytest.importorskip("onnxruntime").InferenceSession(path)
    return session.run(None, {"input": x})[0]


@pytest.mark.parametrize("runtime", ["reference", "onnxruntime"])
@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_gives_the_same(name, runtime, tmp_path):
    onnx = pytest.importorskip("onnx")
    (model, shape), path = EXPORTED[name], tmp_path / "model.onnx"
    params = filled(model, shape)
    export_onnx(model, params, path, shape)
    content = onnx.load(path)
    onnx.checker.check_model(content, full_check=True)
    assert [node.op_type for node in content.graph.node] == kinds(model)
    assert params.keys() <= {w.name for w in content.graph.initializer}
    for samples in (1, 3):  # the batch is not fixed
        x = images(shape, samples=samples)
        check_equal(run_onnx(runtime, path, x), run(model, params, x))


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("window", [(2, 3), (3, 2)])
@pytest.mark.parametrize("runtime", ["reference", "onnxruntime"])
def test_onnx_averages_of_partial_windows(runtime, window, count_include_pad, padding, tmp_path):
    pytest.importorskip("onnx")
    options = {"padding": padding, "count_include_pad": count_include_pad, "ceil_mode": True}
    model, path = AvgPool2d(window, **options), tmp_path / "model.onnx"
    export_onnx(model, {}, path, (1, 4, 4))
    x = images((1, 4, 4))
    check_equal(run_onnx(runtime, path, x), run(model, {}, x))


WINDOWS = {  # of an image of 6 x 7 pixels
    "last one would begin behind the image": MaxPool2d(2, stride=3, ceil_mode=True),
    "last one would begin in the margin": MaxPool2d(2, padding=1, ceil_mode=True),
    "means, in the margin": AvgPool2d(3, padding=1, ceil_mode=True),
    "means without padding": AvgPool2d(3, padding=1, ceil_mode=True, count_include_pad=False),
    "one side": AvgPool2d(4, stride=3, padding=((2, 0), (0, 1)), ceil_mode=True),
    "far apart": MaxPool2d(1, stride=4, ceil_mode=True),
    "same": MaxPool2d(3, stride=2, padding="same", ceil_mode=True),
    "same, means": AvgPool2d((2, 3), stride=(3, 2), padding="same"),
    "valid": AvgPool2d(4, stride=3, padding="valid", ceil_mode=True),
    "margins as wide as the window": MaxPool2d((2, 3), stride=2, padding=(1, 2), dilation=3),
    "dilated, partial": MaxPool2d(2, stride=2, padding=1, dilation=(2, 3), ceil_mode=True),
    "without a pixel": MaxPool2d((1, 4), padding="same", dilation=(1, 5), ceil_mode=True),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_onnx_of_pools_whose_windows_reach_over_the_edge(name, tmp_path):
    pytest.importorskip("onnx")
    path, x = tmp_path / "model.onnx", images((2, 6, 7))
    export_onnx(WINDOWS[name], {}, path, (2, 6, 7))
    check_equal(run_onnx("onnxruntime", path, x), run(WINDOWS[name], {}, x))


LAYERS = {
    1: (Conv1d, MaxPool1d, AvgPool1d, BatchNorm1d),
    2: (Conv2d, MaxPool2d, AvgPool2d, BatchNorm2d),
    3: (Conv3d, MaxPool3d, AvgPool3d, BatchNorm3d),
}


def random_layer(rng, channels, rank):
    """Return a layer of signals, images or volumes with options drawn at random."""

    def sizes(least, most):
        found = rng.integers(least, most + 1, rank).tolist()
        return found[0] if rng.random() < 0.5 else tuple(found)

    def margins(most):
        each = tuple((0, most) if i % 2 else (most, 0) for i in range(rank))
        sides = (sizes(0, most), each, "same", "valid")
        return sides[rng.integers(len(sides))]

    window, stride, dilation = sizes(1, 4), sizes(1, 4), sizes(1, 3)
    most, ceil = int(np.min(window)) // 2, bool(rng.random() < 0.7)
    conv, max_pool, avg_pool, batch_norm = LAYERS[rank]
    match rng.integers(4):
        case 0:
            filters, groups = 2 * channels, int(rng.choice([1, channels]))
            return conv(filters, window, stride, margins(2), dilation, groups, activation="relu")
        case 1:
            return max_pool(window, stride, margins(most), dilation, ceil)
        case 2:
            return avg_pool(window, stride, margins(most), ceil, bool(rng.random() < 0.5))
    return batch_norm(eps=0.1)


def test_onnx_of_random_models(tmp_path):
    pytest.importorskip("onnx")
    rng, path, built = np.random.default_rng(SEED), tmp_path / "model.onnx", 0
    for i in range(180):
        rank = (1, 2, 3)[i % 3]
        layers, start = [], (2, *rng.integers(3, 13 if rank < 3 else 9, rank).tolist())
        shape = start
        for _ in range(3):
            layer = random_layer(rng, shape[0], rank)
            with suppress(ValueError):  # its window is larger than what comes in
                shape = layer.init(0, shape)[1]
                layers.append(layer)
        if not layers:
            continue
        model = Sequential(*layers, Flatten())
        params, x = filled(model, start), images(start)
        export_onnx(model, params, path, start)
        check_equal(run_onnx("onnxruntime", path, x), run(model, params, x))
        built += 1
    assert built > 130


def test_onnx_in_float64_from_any_library(row, tmp_path):
    pytest.importorskip("onnx")
    model, shape = Sequential(Flatten(), Dense(3)), (1, 2, 2)
    dtype = row.dtypes[-1]
    params = filled(model, shape, dtype)
    export_onnx(model, {k: row.array(w) for k, w in params.items()}, tmp_path / "m.onnx", shape)
    x = images(shape, dtype)
    check_equal(run_onnx("reference", tmp_path / "m.onnx", x), run(model, params, x))


@pytest.mark.parametrize("name", EXPORTED)
def test_onnx_in_float64_warns_where_onnxruntime_refuses_it(name, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    (model, shape), path = EXPORTED[name], tmp_path / "model.onnx"
    params = filled(model, shape, "float64")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        export_onnx(model, params, path, shape)
    messages = [str(one.message) for one in seen]
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    refusal = ""
    try:
        runtime.InferenceSession(path, options)
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        refusal = str(error)
    if not refusal:
        assert messages == []
        return
    (message,) = messages
    refused = re.search(r"compute (\S+)( and (\S+))? in float64", message)
    assert any(kind in refusal for kind in refused.groups() if kind)
    half = {name: w.astype("float16") for name, w in params.items()}
    export_onnx(model, half, path, shape)
    runtime.InferenceSession(path)


@pytest.mark.parametrize("dtype", ["bfloat16", "int32"])
def test_onnx_of_other_dtypes_is_refused(dtype, tmp_path):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    params = {"weight": np.ones((2, 3), getattr(ml_dtypes, dtype, dtype))}
    expected = f"params must be float16, float32 or float64 in ONNX, got {dtype}"
    with pytest.raises(ValueError, match=expected):
        export_onnx(Dense(2, bias=False), params, tmp_path / "model.onnx", (3,))
    assert list(tmp_path.iterdir()) == []


class Odd(Layer):
    """A layer that does not say how it is written in ONNX."""

    def forward(self, params, x, how):
        return x, lambda dy: (dy, {})


class Refusing(Odd):
    def to_onnx(self, graph, x):
        raise TypeError("Refusing has no node in ONNX, which knows nothing like it")


def check_onnx(layer, shape, path):
    """Check that a layer is exported and gives the same there, or says why it cannot be."""
    name, params = type(layer).__name__, filled(layer, shape)
    with pytest.raises(TypeError) as undefined:
        Layer.to_onnx(layer, None, "x")
    refusal = None
    try:
        export_onnx(layer, params, path, shape)
    except TypeError as error:
        refusal = str(error)
    if refusal is None:
        x = images(shape)
        check_equal(run_onnx("reference", path, x), run(layer, params, x))
        return
    assert name in refusal, f"the refusal has to name {name}"
    assert refusal != str(undefined.value), (
        f"let {name} define to_onnx: append its nodes, or, if ONNX has none, raise a TypeError "
        f"that names {name} and says why; of an OperationLayer, onnx_node may do"
    )


@pytest.mark.parametrize("case", CASES)
def test_every_layer_has_onnx_nodes_or_says_why_not(case, tmp_path):
    pytest.importorskip("onnx")
    check_onnx(*CASES[case][:2], tmp_path / "model.onnx")


def test_a_layer_without_onnx_nodes_has_to_say_why(tmp_path):
    pytest.importorskip("onnx")
    check_onnx(Refusing(), (3,), tmp_path / "model.onnx")
    with pytest.raises(AssertionError, match=r"let Odd define to_onnx: append its nodes, or"):
        check_onnx(Odd(), (3,), tmp_path / "model.onnx")


class Twice(Layer):
    """``y = relu(x) + relu(x)``, of two nodes of one kind."""

    def forward(self, params, x, how):
        y, pullback = ReLU().forward(params, x, how)
        return y + y, lambda dy: pullback(dy + dy)

    def to_onnx(self, graph, x):
        return graph.node("Add", graph.node("Relu", x), graph.node("Relu", x))


class Nothing(Odd):
    """The identity, without a node."""

    def to_onnx(self, graph, x):
        return x


@pytest.mark.parametrize(
    "model", [Twice(), Nothing(), Sequential(Dense(3), Nothing())], ids=["Twice", "one", "last"]
)
def test_onnx_of_layers_with_several_nodes_and_with_none(model, tmp_path):
    pytest.importorskip("onnx")
    check_onnx(model, (3,), tmp_path / "model.onnx")


def test_onnx_refuses_and_leaves_no_file(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    model, shape = MODELS["lenet"]
    params = filled(model, shape)
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"params lacks 0\.weight"):
        export_onnx(model, {k: w for k, w in params.items() if k != "0.weight"}, path, shape)
    mixed = params | {"0.bias": params["0.bias"].astype("float64")}
    with pytest.raises(ValueError, match="params must have one dtype, got float32, float64"):
        export_onnx(model, mixed, path, shape)
    with pytest.raises(TypeError, match=r"Odd does not say .* its class has to define to_onnx"):
        export_onnx(Sequential(Odd()), {}, path, shape)
    imported = builtins.__import__

    def without_onnx(name, *args):
        if name.partition(".")[0] == "onnx":
            raise ImportError(name)
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(ImportError, match=r"export_onnx needs onnx: .* pip install onnx$"):
        export_onnx(model, params, path, shape)
    assert list(tmp_path.iterdir()) == []
