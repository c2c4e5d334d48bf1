"""Predictors: folded models on every backend, and plans of loops on NumPy."""

from __future__ import annotations

import hashlib
import pickle
import threading
from dataclasses import dataclass

import numba
import numpy as np
import pytest
from conftest import assert_close
from layer_samples import CASES, IMAGE
from test_threads import run_python

from agnostic_xent import (
    AvgPool2d,
    BatchNorm2d,
    Callback,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2d,
    GroupNorm,
    LeakyReLU,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    compile_predictor,
    cross_entropy,
    evaluate,
    explain,
    export_onnx,
    fold_batch_norm,
    kernels,
    predict,
    small_cnn,
)
from agnostic_xent.core.plans import PLANNERS
from agnostic_xent.kernels.cpu.plans import LoopPlan
from agnostic_xent.kernels.cpu.pool import pooling
from agnostic_xent.network.layers import Layer

BOUNDS = {"float32": 1e-6, "float64": 1e-12}
"""Of the largest logit: what the answers of a plan and of the layers may differ by."""

WINOGRAD_BOUND = 5e-6
"""The same in float32 where Winograd's algorithms may run."""


def drawn_net(rng):
    """Return a random classifier of images and the shape of a sample."""

    def pick(*values):
        return values[rng.integers(len(values))]

    def convolution(filters, groups=1):
        window = pick(1, 3, 3, 5)
        options = {"stride": pick(1, 1, 2), "padding": window // 2, "groups": groups}
        norm = [BatchNorm2d()] if rng.random() < 0.5 else []
        relu = [ReLU()] if rng.random() < 0.7 else []
        return [Conv2d(filters, window, bias=rng.random() < 0.5, **options), *norm, *relu]

    def block(channels):
        filters, stride = pick(channels, 2 * channels), pick(1, 2)
        body = [Conv2d(filters, 3, stride=stride, padding=1), BatchNorm2d(), ReLU()]
        body += [Conv2d(filters, 3, padding=1), BatchNorm2d()]
        shortcut = Sequential(Conv2d(filters, 1, stride=stride, bias=False), BatchNorm2d())
        plain = filters == channels and stride == 1
        after = [ReLU()] if rng.random() < 0.8 else []
        return [Residual(Sequential(*body), None if plain else shortcut), *after], filters

    channels = pick(4, 8, 12)
    layers = convolution(channels)
    for _ in range(rng.integers(1, 4)):
        kind = pick("conv", "depthwise", "block", "max", "average", "dropout")
        if kind == "block":
            more, channels = block(channels)
            layers += more
        elif kind == "conv":
            channels = pick(8, 16, 20)
            layers += convolution(channels)
        else:
            layers += {
                "depthwise": convolution(channels, groups=channels),
                "max": [MaxPool2d(pick(2, 3), stride=2, padding=pick(0, 1))],
                "average": [AvgPool2d(2)],
                "dropout": [Dropout(0.3)],
            }[kind]
    layers += pick([GlobalAvgPool2d()], [Flatten(), Dense(pick(32, 70)), ReLU()])
    size = pick(16, 20, 24)
    return Sequential(*layers, Dense(10)), (pick(1, 3), size, size)


def drawn_params(model, shape, rng, dtype="float32"):
    """Return parameters whose normalizations are away from their start."""
    params, _ = model.init(rng, shape)
    return {
        name: (w if w.ndim > 1 else w + 0.3 * np.abs(rng.standard_normal(w.shape))).astype(dtype)
        for name, w in params.items()
    }


def check(actual, expected, dtype):
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype == dtype
    assert np.abs(actual - expected).max() <= BOUNDS[dtype] * np.abs(expected).max()


def plans_of(predictor, samples=None):
    """Return the plans of a predictor's first stretch, or those for so many samples."""
    plans = [p for p in predictor._stretches[0].plans.values() if isinstance(p, LoopPlan)]
    return [plan for plan in plans if samples in (None, plan.samples)]


def a_net(dtype="float32", seed=0):
    """Return a net with everything that is folded, its parameters, and samples."""
    rng = np.random.default_rng(seed)
    body = Sequential(Conv2d(8, 3, padding=1, bias=False), BatchNorm2d(), ReLU(), Dropout())
    model = Sequential(
        Conv2d(8, 3, padding=1), BatchNorm2d(), ReLU(), Residual(body), ReLU(), MaxPool2d(2),
        Flatten(), Dense(20), ReLU(), Dense(10),
    )  # fmt: skip
    params = drawn_params(model, (3, 12, 12), rng, dtype)
    return model, params, rng.standard_normal((21, 3, 12, 12)).astype(dtype)


# --- the same answers ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_every_layer(row, case):
    layer, shape, _ = CASES[case]
    for dtype in row.dtypes:
        rng = np.random.default_rng(3)
        params = drawn_params(layer, shape, rng, dtype)
        x = rng.standard_normal((3, *shape)).astype(dtype)
        exact = {k: w.astype("float64") for k, w in params.items()}
        with kernels("portable"):
            expected = layer(exact, x.astype("float64"))
        predictor = compile_predictor(layer, {k: row.array(w) for k, w in params.items()}, shape)
        y = row.call(predictor, row.array(x))
        row.check(y, dtype)
        assert_close(y, expected, dtype, terms=64)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", BOUNDS)
def test_random_nets(seed, dtype):
    rng = np.random.default_rng(seed)
    model, shape = drawn_net(rng)
    params = drawn_params(model, shape, rng, dtype)
    predictor = compile_predictor(model, params, shape)
    for samples in (1, int(rng.integers(2, 9)), int(rng.integers(10, 80))):
        x = rng.standard_normal((samples, *shape)).astype(dtype)
        with kernels("direct"):
            check(predictor(x), model(params, x), dtype)
        np.testing.assert_array_equal(predictor(x), predictor(x))
    assert "layer by layer" not in explain(predictor)


@pytest.mark.parametrize("seed", range(12))
def test_random_nets_by_winograd(seed):
    """A plan chooses Winograd's algorithms, which round more, for fewer samples than layers do."""
    rng = np.random.default_rng(seed)
    model, shape = drawn_net(rng)
    params = drawn_params(model, shape, rng)
    exact = {name: w.astype("float64") for name, w in params.items()}
    predictor = compile_predictor(model, params, shape)
    of_layers, of_plans, apart = [], [], []
    for samples in (1, int(rng.integers(2, 9)), int(rng.integers(10, 80))):
        x = rng.standard_normal((samples, *shape)).astype("float32")
        expected = model(exact, x.astype("float64"))
        scale = np.abs(expected).max()
        layers, plans = model(params, x), predictor(x)
        of_layers.append(np.abs(layers - expected).max() / scale)
        of_plans.append(np.abs(plans - expected).max() / scale)
        apart.append(np.abs(plans - layers).max() / scale)
    assert max(apart) <= WINOGRAD_BOUND
    assert max(of_plans) <= max(1e-6, 1.5 * max(of_layers))


def test_explain_says_why_there_is_no_plan(row):
    model, params, x = a_net()
    predictor = compile_predictor(model, {k: row.array(w) for k, w in params.items()}, x.shape[1:])
    with kernels("portable"):
        assert explain(predictor) == "Sequential: layer by layer (kernels are switched off)"
    if row.name in {"torch", "jax", "dask"}:
        why = f"nothing plans for {row.name} arrays"
        assert explain(predictor, 3) == f"Sequential: layer by layer ({why})"


@pytest.mark.parametrize("mode", ["portable", "direct", "auto", "require"])
def test_modes(mode):
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    with kernels(mode):
        check(predictor(x), model(params, x), "float32")


def test_samples_of_any_layout_and_number():
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    expected = model(params, x)
    check(predictor(np.asfortranarray(x)), expected, "float32")
    check(predictor(x[::-1])[::-1], expected, "float32")
    for samples in range(len(x)):
        assert predictor(x[:samples]).shape == (samples, 10)
        if samples:
            check(predictor(x[:samples]), model(params, x[:samples]), "float32")


def test_memory_mapped_and_read_only_samples(tmp_path):
    model, params, x = a_net()
    np.save(tmp_path / "x.npy", x)
    predictor = compile_predictor(model, params, x.shape[1:])
    stored = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(predictor(stored), predictor(x))


def test_infinities_and_nan_stay():
    model, params, x = a_net()
    x[0, 0, 3, 3], x[1, 0, 0, 0] = np.nan, np.inf
    predictor = compile_predictor(model, params, x.shape[1:])
    assert np.isnan(predictor(x)[0]).any()
    check(predictor(x)[2:], model(params, x)[2:], "float32")


# --- layers that are not known -------------------------------------------------------------------


@dataclass(frozen=True)
class Doubled(Layer):
    """A user's layer, with work of NumPy that no kernel does."""

    def forward(self, params, x, how):
        return x * 2 if float(x.max()) > 1 else x, lambda dy: (dy, {})


@dataclass(frozen=True)
class Backwards(Sequential):
    """A user's container that does something else with its layers."""

    def __init__(self, *layers):
        super().__init__(*layers)

    def __call__(self, params, x):
        return super().__call__(params, x)[::-1]


def test_layers_that_are_not_known_run_as_they_are():
    known = Sequential(Conv2d(4, 3), BatchNorm2d(), ReLU())
    model = Sequential(known, Doubled(), Conv2d(4, 3), Backwards(ReLU(), Flatten()), Dense(10))
    rng = np.random.default_rng(0)
    params = drawn_params(model, IMAGE, rng)
    x = rng.standard_normal((9, *IMAGE)).astype("float32")
    predictor = compile_predictor(model, params, IMAGE)
    for scale in (0.01, 1):
        small = x * np.float32(scale)
        check(predictor(small), model(params, small), "float32")
    lines = explain(predictor).splitlines()
    assert [line for line in lines if "layer by layer" in line] == [
        "Doubled: layer by layer", "Backwards: layer by layer",
    ]  # fmt: skip
    assert len(lines) == 5


def test_branches_around_layers_that_are_not_known():
    """What is known in a residual block, or in one within it, is planned."""
    inner = Residual(Sequential(GroupNorm(2), Conv2d(8, 1), LeakyReLU()), activation="relu")
    body = Sequential(
        Conv2d(8, 3, padding=1), BatchNorm2d(), ReLU(), inner, Conv2d(8, 3, padding=1)
    )
    block = Residual(body, Sequential(Conv2d(8, 1, bias=False), BatchNorm2d()))
    model = Sequential(block, ReLU(), GlobalAvgPool2d(), Dense(10))
    rng = np.random.default_rng(0)
    params = drawn_params(model, IMAGE, rng)
    predictor = compile_predictor(model, params, IMAGE)
    for samples in (1, 9):
        x = rng.standard_normal((samples, *IMAGE)).astype("float32")
        with kernels("direct"):
            check(predictor(x), model(params, x), "float32")
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(predictor))(x), predictor(x))
    names = [line.partition(" ")[0] for line in explain(predictor).splitlines()]
    whole = [name for name in names if name[0].isupper()]
    assert whole == ["GroupNorm:", "LeakyReLU:", "Residual:", "Residual:"]
    assert len(names) > 8


def test_work_of_numpy_in_a_kernel_is_noticed(monkeypatch):
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    kernel = pooling.max_value
    monkeypatch.setattr(pooling, "maxima", lambda x, geometry: (x[:, :, ::2, ::2] * 2, None, None))
    assert kernel(x, window=2).shape == (21, 3, 6, 6)
    expected = model(params, x)
    why = "compiled loops alone do not make the value"
    assert explain(predictor) == f"Sequential: layer by layer ({why})"
    check(predictor(x), expected, "float32")


# --- calls in several threads, memory, pickles ---------------------------------------------------


def test_several_threads_at_a_time():
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    expected = [predictor(x[: n + 1]) for n in range(8)]
    right = []

    def ask(n):
        answers = [predictor(x[: n + 1]) for _ in range(50)]
        right.append(all(np.array_equal(y, expected[n]) for y in answers))

    threads = [threading.Thread(target=ask, args=(n % 8,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 16


THREADS = 4


def print_bits():
    """Print hashes of the answers by so many threads; of plans made for one, then run by more."""
    model = Sequential(*(Conv2d(24, 3, padding=1, activation="relu") for _ in range(4)))
    rng = np.random.default_rng(0)
    params = drawn_params(model, (24, 32, 32), rng)
    x = rng.standard_normal((50, 24, 32, 32)).astype("float32")
    found = set()
    first = compile_predictor(model, params, (24, 32, 32))
    for count in range(1, THREADS + 1):
        numba.set_num_threads(count)
        for predictor in (first, compile_predictor(model, params, (24, 32, 32))):
            for _ in range(3):
                answers = [predictor(x), predictor(x[:3]), predictor(x[:1])]
                found.add(hashlib.sha256(b"".join(y.tobytes() for y in answers)).hexdigest())
            parts = [step.parts for step in plans_of(predictor, 1)[0].steps(x[:1])]
            assert max(parts) == (1 if predictor is first else count), parts
    print(*found)


def test_bits_do_not_depend_on_threads():
    program = "import test_inference as t; t.print_bits()"
    done = run_python(program, NUMBA_NUM_THREADS=str(THREADS))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 1


@pytest.mark.parametrize("samples", [1, 3, 16])
def test_memory_may_hold_anything_before(samples):
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    expected = predictor(x[:samples])
    for plan in plans_of(predictor):
        for room in (room for rooms in plan.free.values() for room in rooms):
            room.space[:] = 255  # NaN
    np.testing.assert_array_equal(predictor(x[:samples]), expected)


def test_arrays_share_memory():
    def size_of(layers):
        model = Sequential(*(Conv2d(8, 3, padding=1, activation="relu") for _ in range(layers)))
        params = drawn_params(model, (8, 16, 16), np.random.default_rng(0))
        predictor = compile_predictor(model, params, (8, 16, 16))
        predictor(np.ones((8, 8, 16, 16), "float32"))
        return plans_of(predictor, 4)[0].size

    assert size_of(3) == size_of(9)


def test_parameters_are_copied():
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    expected = model(params, x)
    for w in params.values():
        w[...] = 0
    check(predictor(x), expected, "float32")


def test_pickled():
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    expected = predictor(x)
    again = pickle.loads(pickle.dumps(predictor))
    np.testing.assert_array_equal(again(x), expected)


def test_plans_of_all_numbers_share_weights():
    model = Sequential(Flatten(), Dense(300), ReLU(), Dense(300))
    params = drawn_params(model, (300,), np.random.default_rng(0))
    predictor = compile_predictor(model, params, (300,))
    for samples in range(1, 5):
        predictor(np.ones((samples, 300), "float32"))
    total = sum(x.nbytes for kept in predictor._stretches[0].constants.values() for x in kept)
    assert total < 1.2 * sum(w.nbytes for w in params.values())


def test_few_plans_are_kept(monkeypatch):
    monkeypatch.setitem(PLANNERS, "numpy", PLANNERS["numpy"]._replace(kept=4))
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    for samples in range(1, 21):
        check(predictor(x[:samples]), model(params, x[:samples]), "float32")
    assert len(predictor._stretches[0].plans) <= 4


# --- bad input -----------------------------------------------------------------------------------


def test_bad_input():
    model, params, x = a_net()
    predictor = compile_predictor(model, params, x.shape[1:])
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, 12, 12\), got \(21, 3, 12\)"):
        predictor(x[..., 0])
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, 12, 12\)"):
        predictor(x[:, :, :8])
    with pytest.raises(TypeError, match=r"x must be an array"):
        predictor([1.0])
    with pytest.raises(TypeError, match=r"float64"):
        predictor(x.astype("float64"))
    with pytest.raises(ValueError, match=r"params lacks 0\.bias"):
        compile_predictor(model, {k: w for k, w in params.items() if k != "0.bias"}, x.shape[1:])
    with pytest.raises(TypeError, match="model must be a layer"):
        compile_predictor(None, params, x.shape[1:])


# --- what is built on it -------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [5, 600])
def test_predict_and_evaluate(samples):
    rng = np.random.default_rng(0)
    model = small_cnn()
    params = drawn_params(model, (1, 16, 16), rng)
    x = rng.standard_normal((samples, 1, 16, 16)).astype("float32")
    y = rng.integers(0, 10, samples)
    logits = model(params, x)
    check(predict(model, params, x), logits, "float32")
    loss, accuracy = evaluate(model, params, (x, y), loss=cross_entropy)
    assert loss == pytest.approx(float(cross_entropy(logits, y)), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == y).mean())


class Told(Callback):
    """Notes what it is told."""

    def __init__(self):
        self.notes = []

    def on_start(self, epochs, samples):
        self.notes.append(("start", epochs, samples))

    def on_step(self, samples):
        self.notes.append(samples)

    def on_end(self):
        self.notes.append("end")


@pytest.mark.parametrize("kind", ["path", "memory map", "dask"])
def test_predict_reads_piece_by_piece_and_tells(kind, tmp_path):
    rng, told = np.random.default_rng(0), Told()
    model = small_cnn()
    params = drawn_params(model, (1, 12, 12), rng)
    x = rng.integers(0, 255, (300, 1, 12, 12)).astype("uint8")
    np.save(tmp_path / "x.npy", x)
    stored = {
        "path": lambda: tmp_path / "x.npy",
        "memory map": lambda: np.load(tmp_path / "x.npy", mmap_mode="r"),
        "dask": lambda: pytest.importorskip("dask.array").from_array(x, chunks=(70, 1, 12, 12)),
    }[kind]()
    y = predict(model, params, stored, batch_size=128, callbacks=[told])
    check(y, model(params, x.astype("float32")), "float32")
    assert told.notes == [("start", 1, 300), 128, 128, 44, "end"]
    with pytest.raises(TypeError, match=r"callbacks must be instances of Callback"):
        predict(model, params, stored, callbacks=[print])


def test_onnx_of_the_folded_model(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    model, params, x = a_net()
    export_onnx(*fold_batch_norm(model, params), tmp_path / "m.onnx", x.shape[1:])
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"input": x})
    assert_close(y, model(params, x), "float32", terms=64)
    kinds = export_kinds(tmp_path / "m.onnx")
    assert "BatchNormalization" not in kinds
    assert "Dropout" not in kinds


def export_kinds(path):
    onnx = pytest.importorskip("onnx")
    return {node.op_type for node in onnx.load(path).graph.node}
