"""Every layer x every backend, against slopes of its own value, plain oracles, and torch.nn."""

from __future__ import annotations

import importlib
import math
import pickle
import pkgutil
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import oracles
import pytest
from conftest import assert_close, tolerance
from layer_samples import CASES, IMAGE, NET, SEED

from agnostic_xent import (
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    kernels,
    network,
    to_backend,
)
from agnostic_xent.core.arrays import array_namespace
from agnostic_xent.core.checks import float_namespace
from agnostic_xent.core.conversion import to_numpy
from agnostic_xent.core.operation import Operation, repeatable
from agnostic_xent.network.layers import STATISTICS, Layer, OperationLayer, split_statistics

each_case = pytest.mark.parametrize("case", CASES)
each_mode = pytest.mark.parametrize(
    ("case", "train"),
    [(case, True) for case in CASES]
    + [(c, False) for c in ("batch-norm", "dropout", "sequential", "product")],
)


def problem(case, samples=3):
    """Return float64 parameters away from their start, images without ties, and a cotangent."""
    layer, shape, out = CASES[case]
    rng = np.random.default_rng(SEED)
    params, _ = layer.init(rng, shape)
    params = {
        k: np.abs(v + 0.2 * rng.standard_normal(v.shape))
        if v.ndim in (1, 3)
        else v.astype("float64")
        for k, v in params.items()
    }
    x = rng.permutation(samples * math.prod(shape)).reshape(samples, *shape) / 50.0 - 1.003
    return layer, params, x, rng.standard_normal((samples, *out))


def forward_and_back(layer, params, x, dy, **options):
    y, pullback = layer.vjp(params, x, rng=SEED, **options)
    return (y, *pullback(dy))


def reference(case, dtype="float64", **options):
    """Return NumPy's float64 answer for the arguments as ``dtype`` rounds them."""
    layer, *arguments = problem(case)
    rounded = to_dtype(arguments, dtype)
    with kernels("portable"):
        return forward_and_back(layer, *to_dtype(rounded, "float64"), **options)


def to_dtype(arguments, dtype):
    return [
        {k: v.astype(dtype) for k, v in a.items()} if isinstance(a, dict) else a.astype(dtype)
        for a in arguments
    ]


def shapes(params):
    return {name: tuple(x.shape) for name, x in params.items()}


# --- the table of samples ------------------------------------------------------------------------


def layer_classes(base=Layer):
    """Return the names of the package's layer classes that are not private, by class."""
    for module in pkgutil.walk_packages(network.__path__, f"{network.__name__}."):
        importlib.import_module(module.name)
    classes = {}
    for cls in base.__subclasses__():
        of_package = cls.__module__.partition(".")[0] == "agnostic_xent"
        if of_package and not cls.__name__.startswith("_") and cls is not OperationLayer:
            classes[cls] = cls.__name__
        classes |= layer_classes(cls)
    return classes


def check_samples(classes):
    missing = classes.keys() - {type(layer) for layer, _, _ in CASES.values()}
    names = ", ".join(sorted(classes[cls] for cls in missing))
    assert not names, f"add a case of {names} to CASES in tests/layer_samples.py"


def test_every_layer_class_has_a_case():
    check_samples(layer_classes())


def test_a_layer_class_without_a_case_is_named():
    with pytest.raises(AssertionError, match=r"add a case of Cube to CASES in tests/layer_samples"):
        check_samples(layer_classes() | {Cube: "Cube"})


# --- start, value, gradients ---------------------------------------------------------------------


@each_case
def test_init(case):
    layer, shape, out = CASES[case]
    params, found = layer.init(SEED, shape)
    again, _ = layer.init(np.random.default_rng(SEED), shape)
    assert found == out
    assert layer(params, np.zeros((2, *shape), "float32")).shape == (2, *out)
    for name, value in params.items():
        assert type(value) is np.ndarray
        assert value.dtype == "float32"
        np.testing.assert_array_equal(value, again[name])


def test_init_draws_he_normal_weights_and_no_bias():
    params, _ = Sequential(Conv2d(64, 3), Flatten(), Dense(64)).init(SEED, (16, 5, 5))
    for name, fan_in in (("0.weight", 144), ("2.weight", 576)):
        weight, scale = params[name].astype("float64"), math.sqrt(2 / fan_in)
        deviation = 5 / math.sqrt(weight.size)  # five standard errors of a mean
        assert abs(weight.mean()) < deviation * scale
        assert abs((weight**2).mean() / scale**2 - 1) < deviation * math.sqrt(2)
    assert not params["0.bias"].any()
    assert not params["2.bias"].any()


@each_mode
def test_vjp_on_every_row(row, case, train):
    layer, params, x, dy = problem(case)

    def run(*arrays):
        return forward_and_back(layer, *arrays, train=train)

    for dtype in row.dtypes:
        own = {k: row.array(v, dtype) for k, v in params.items()}
        y, dx, grads = row.call(run, own, row.array(x, dtype), row.array(dy, dtype))
        y0, dx0, grads0 = reference(case, dtype, train=train)
        assert grads.keys() == grads0.keys() == (params.keys() if layer.trained else set())
        pairs = [(y, y0, 20), (dx, dx0, 80), *((grads[k], grads0[k], 80) for k in grads)]
        for found, expected, terms in pairs:
            row.check(found, dtype)
            assert_close(found, expected, dtype, terms)


@each_mode
def test_gradients_are_slopes(case, train):
    """<dy, change of y along v> = <gradient, v> for the input and for each parameter alone."""
    layer, params, x, dy = problem(case)
    _, dx, grads = reference(case, train=train)
    grads, _ = split_statistics(grads)
    rng, step = np.random.default_rng(SEED), 1e-4
    for name, gradient in {"x": dx, **grads}.items():
        v = rng.standard_normal(gradient.shape)

        def value(h, name=name, v=v):
            own = params if name == "x" else params | {name: params[name] + h * v}
            moved = x + h * v if name == "x" else x
            return np.sum(dy * layer.vjp(own, moved, train=train, rng=SEED)[0])

        def difference(h, value=value):
            return (value(h) - value(-h)) / (2 * h)

        slope = (4 * difference(step / 2) - difference(step)) / 3
        scale = max(1.0, np.sum(np.abs(gradient * v)), np.sum(np.abs(dy)))
        assert abs(slope - np.sum(gradient * v)) < scale * tolerance("float64", 20) / step, name


@each_mode
def test_without_input_grad(case, train):
    _, dx, grads = reference(case, train=train)
    _, none, same = reference(case, train=train, input_grad=False)
    assert dx is not None
    assert none is None
    assert same.keys() == grads.keys()
    for name in grads:
        np.testing.assert_array_equal(same[name], grads[name])


@each_case
def test_inference_equals_vjp_outside_training(case):
    layer, params, x, _ = problem(case)
    np.testing.assert_array_equal(layer(params, x), layer.vjp(params, x, train=False)[0])


@each_case
def test_nothing_is_written_to_or_stored(case):
    layer, params, x, dy = problem(case)
    for array in (x, dy, *params.values()):
        array.flags.writeable = False
    before = repr(layer)
    first = forward_and_back(layer, params, x, dy)
    forward_and_back(layer, params, x - 1, dy)
    second = forward_and_back(layer, params, x, dy)
    assert repr(layer) == before
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])


# --- a layer of an operation ---------------------------------------------------------------------


@Operation
def cube(x, *, factor=1.0):
    float_namespace(x=x)
    return repeatable(x, factor=factor)


@cube.definition
def _(x, *, factor):
    return factor * x**3


@cube.pullback
def _(x, *, factor):
    return factor * x**3, lambda dy: (3 * factor * x**2 * dy,)


class Cube(OperationLayer):
    operation = cube


@dataclass(frozen=True)
class ScaledCube(OperationLayer):
    operation = cube
    factor: float = 2.0


def test_a_layer_of_an_operation(row):
    x = np.linspace(-1, 1, 12).reshape(3, 4)
    for layer, factor in ((Cube(), 1), (ScaledCube(), 2), (ScaledCube(factor=-3.0), -3)):

        def run(x, layer=layer):
            return (layer({}, x), *forward_and_back(layer, {}, x, array_namespace(x).ones_like(x)))

        inference, y, dx, grads = row.call(run, row.array(x, "float32"))
        for found, expected in (
            (inference, factor * x**3), (y, factor * x**3), (dx, 3 * factor * x**2)
        ):  # fmt: skip
            row.check(found, "float32")
            assert_close(found, expected, "float32")
        assert grads == {}
        assert layer.init(SEED, (4,)) == ({}, (4,))


def test_a_layer_of_an_operation_is_a_value():
    assert repr(Cube()) == "Cube()"
    assert repr(ScaledCube(3.0)) == "ScaledCube(factor=3.0)"
    assert Cube() == Cube() != ReLU()
    assert ScaledCube(3.0) == ScaledCube(3.0) != ScaledCube()
    assert hash(ScaledCube(3.0)) == hash(ScaledCube(3.0))
    for layer in (Cube(), ScaledCube(3.0)):
        assert pickle.loads(pickle.dumps(layer)) == layer


def test_a_layer_that_is_a_kind_of_relu_is_not_run_as_relu():
    class Shifted(ReLU):
        def forward(self, params, x, how):
            y, pullback = super().forward(params, x, how)
            return y + 1, pullback

        def __call__(self, params, x):
            return super().__call__(params, x) + 1

    model = Sequential(Conv2d(2, 3), Shifted())
    params, _ = model.init(SEED, IMAGE)
    x = np.ones((1, *IMAGE), "float32")
    np.testing.assert_array_equal(model(params, x), Sequential(Conv2d(2, 3), ReLU())(params, x) + 1)


# --- layers that do something else in training -------------------------------------------------


def test_dropout(row):
    x = np.random.default_rng(SEED).standard_normal((40, 50))
    layer = Dropout(0.25)
    found = row.call(lambda x: layer.vjp({}, x, rng=SEED)[0], row.array(x, "float32"))
    assert_close(found, oracles.dropout(x.astype("float32"), rate=0.25, rng=SEED), "float32")
    dropped = np.count_nonzero(to_numpy(found) == 0) / x.size
    assert abs(dropped - 0.25) < 5 * math.sqrt(0.25 * 0.75 / x.size)
    np.testing.assert_array_equal(to_numpy(layer({}, row.array(x, "float32"))), x.astype("float32"))


def test_dropout_layers_of_a_sequence_draw_from_one_generator():
    x = np.ones((4, 30))
    y, _ = Sequential(Dropout(0.5), Dropout(0.5)).vjp({}, x, rng=SEED)
    rng = np.random.default_rng(SEED)
    expected = 4.0 * ((rng.random(x.shape) >= 0.5) & (rng.random(x.shape) >= 0.5))
    np.testing.assert_array_equal(y, expected)


def test_running_statistics_follow_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(SEED)
    layer, theirs = BatchNorm2d(momentum=0.3), torch.nn.BatchNorm2d(4, momentum=0.3).double()
    params = {k: v.astype("float64") for k, v in layer.init(rng, IMAGE)[0].items()}
    for _ in range(3):
        x = rng.standard_normal((3, *IMAGE)) * 2 + 1
        y, pullback = layer.vjp(params, x)
        gradients, statistics = split_statistics(pullback(np.ones_like(y))[1])
        assert gradients.keys() == {"weight", "bias"}
        params |= statistics
        assert_close(y, theirs(torch.asarray(x)).detach(), "float64", 20)
        for name in STATISTICS:
            assert_close(params[name], getattr(theirs, name), "float64", 20)
    theirs.eval()
    assert_close(layer(params, x), theirs(torch.asarray(x)).detach(), "float64", 20)


# --- layers made of layers ---------------------------------------------------------------------


def torch_net():
    nn = pytest.importorskip("torch").nn
    return nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 3, 2, stride=(1, 2)),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6, 5),
    ).double()


@pytest.mark.parametrize("train", [True, False])
def test_sequential_is_torchs(train):
    """The same names, and from the same weights the same output and gradients."""
    torch = pytest.importorskip("torch")
    _, params, x, dy = problem("sequential")
    theirs = torch_net().train(train)
    names = [name for name in theirs.state_dict() if not name.endswith("num_batches_tracked")]
    assert sorted(names) == sorted(params)
    theirs.load_state_dict(to_backend(params, torch), strict=False)
    leaf = torch.asarray(x.copy()).requires_grad_()
    out = theirs(leaf)
    out.backward(torch.asarray(dy))
    y, dx, grads = reference("sequential", train=train)
    assert_close(y, out.detach(), "float64", 40)
    assert_close(dx, leaf.grad, "float64", 80)
    grads, statistics = split_statistics(grads)
    for name, parameter in theirs.named_parameters():
        assert_close(grads[name], parameter.grad, "float64", 80)
    for name, value in statistics.items():
        assert_close(value, theirs.state_dict()[name], "float64", 40)


@pytest.mark.parametrize("mode", ["portable", "auto"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_inside_a_convolution_changes_no_bit(dtype, mode):
    conv, rng = Conv2d(4, 3, padding=1), np.random.default_rng(SEED)
    x = rng.standard_normal((2, *IMAGE)).astype(dtype)
    own = {k: v.astype(dtype) for k, v in conv.init(rng, IMAGE)[0].items()}
    params = {f"0.{k}": v for k, v in own.items()}
    dy = rng.standard_normal((2, *IMAGE)).astype(dtype)
    with kernels(mode):
        y, dx, grads = forward_and_back(Sequential(conv, ReLU()), params, x, dy)
        z, back = conv.vjp(own, x)
        expected, back_relu = ReLU().vjp({}, z)
        dx0, grads0 = back(back_relu(dy)[0])
        np.testing.assert_array_equal(Sequential(conv, ReLU())(params, x), expected)
    assert (z < 0).any()  # so that there is something to cut
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, dx0)
    for name, gradient in grads0.items():
        np.testing.assert_array_equal(grads[f"0.{name}"], gradient)


def test_sequential_asks_for_no_gradient_below_the_first_parameters():
    """Without input_grad, the pools below the first weights are not pulled back through."""
    asked = []

    class Spy(AvgPool2d):
        def vjp(self, params, x, **options):
            asked.append(options["input_grad"])
            return super().vjp(params, x, **options)

    model = Sequential(Spy(2), Spy(1), Conv2d(2, 3, padding=1), Spy(3), Flatten(), Dense(2))
    params, _ = model.init(SEED, IMAGE)
    y, pullback = model.vjp(params, np.zeros((1, *IMAGE), "float32"), input_grad=False)
    dx, grads = pullback(np.ones_like(y))
    assert asked == [False, False, True]
    assert dx is None
    assert shapes(grads) == shapes(params)


def test_residual_adds_the_branches():
    layer, params, x, dy = problem("residual-shortcut")
    parts = {
        prefix: {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        for prefix in ("body.", "shortcut.")
    }
    body = forward_and_back(layer.body, parts["body."], x, dy)
    shortcut = forward_and_back(layer.shortcut, parts["shortcut."], x, dy)
    y, dx, grads = reference("residual-shortcut")
    assert_close(y, body[0] + shortcut[0], "float64")
    assert_close(dx, body[1] + shortcut[1], "float64")
    for prefix, found in (("body.", body[2]), ("shortcut.", shortcut[2])):
        for name, gradient in found.items():
            assert_close(grads[prefix + name], gradient, "float64")


def test_init_of_one_seed_gives_every_layer_its_own_numbers():
    params, _ = Sequential(Dense(8), Residual(Dense(8), Dense(8)), Dense(8)).init(SEED, (8,))
    weights = sorted(float(v[0, 0]) for k, v in params.items() if k.endswith("weight"))
    assert all(a < b for a, b in pairwise(weights))


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Dense(3).init(0, IMAGE), ValueError, r"Dense .*\(4, 6, 6\).*Flatten\(\)"),
        (lambda: Dense(0), ValueError, r"units .* got 0"),
        (lambda: Conv2d(0, 3), ValueError, r"filters .* got 0"),
        (lambda: Dense(2.5), ValueError, r"units .* got 2.5"),
        (lambda: Conv2d(True, 3), ValueError, r"filters .* got True"),
        (lambda: Conv2d(3, 3).init(0, (36,)), ValueError, r"Conv2d .*\(C, H, W\).*\(36,\)"),
        (lambda: Conv2d(3, 9).init(0, IMAGE), ValueError, r"window"),
        (lambda: Conv2d(4, 0).init(0, IMAGE), ValueError, r"window .* 0"),
        (lambda: Conv2d(3, 3, groups=3).init(0, IMAGE), ValueError, r"groups"),
        (lambda: Conv2d(4, 3, groups=0).init(0, IMAGE), ValueError, r"groups .* 0"),
        (lambda: Conv2d(4, 3, activation="tanh").init(0, IMAGE), ValueError, r"activation"),
        (lambda: MaxPool2d(2, stride=0).init(0, IMAGE), ValueError, r"stride"),
        (lambda: BatchNorm2d().init(0, (5,)), ValueError, r"\(N, C, H, W\)"),
        (lambda: Dropout(1.0).vjp({}, np.ones((2, 2))), ValueError, r"rate .* 1.0"),
        (lambda: Sequential(), ValueError, r"layers"),
        (lambda: Sequential(Dense(2), "relu"), TypeError, r"layers .* 'relu'"),
        (lambda: Sequential(Dense), TypeError, r"layers"),
        (lambda: Residual(ReLU(), "relu"), TypeError, r"shortcut .* 'relu'"),
        (lambda: Residual(None), TypeError, r"body .* None"),
        (
            lambda: Residual(Conv2d(6, 3, padding=1)).init(0, IMAGE),
            ValueError,
            r"body .*\(6, 6, 6\).* shortcut .*\(4, 6, 6\)",
        ),
        (lambda: NET.init("seven", IMAGE), TypeError, r"rng .* 'seven'"),
    ],
)
def test_errors_name_the_argument(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_what_a_layer_has_to_define_is_named():
    class Empty(Layer):
        pass

    class Pair(Empty):
        def children(self):
            return {"first": Dense(3)}

    with pytest.raises(NotImplementedError, match="Empty has to define forward"):
        Empty().vjp({}, np.ones((2, 3)))
    with pytest.raises(NotImplementedError, match="Pair has to define rebuilt"):
        Pair().rebuilt(Pair().children())


def test_inner_lists_as_shapes_are_taken():
    assert Residual(ReLU()).init(0, [4, 6, 6])[1] == IMAGE
