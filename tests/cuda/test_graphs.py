"""Steps that are captured and replayed, with a stand-in for CuPy's capture."""

from __future__ import annotations

import functools
import inspect
from types import SimpleNamespace

import numpy as np
import pytest
import recorded
import watched

import agnostic_xent as ax
from agnostic_xent.core import plans as core_plans
from agnostic_xent.core.arrays import array_namespace
from agnostic_xent.kernels.cuda import graphs, optimizers
from agnostic_xent.kernels.cuda.conv import dense
from agnostic_xent.kernels.cuda.toolchain import capturing
from agnostic_xent.network.layers import Layer
from agnostic_xent.training import captured as captured_steps
from agnostic_xent.training import schedules

CLASSES, IMAGE = 3, (1, 4, 4)
RESNET = ax.Sequential(
    ax.Conv2d(2, 3, padding=1, bias=False), ax.BatchNorm2d(), ax.ReLU(),
    ax.Residual(ax.Sequential(ax.Conv2d(2, 1, bias=False), ax.BatchNorm2d())),
    ax.GlobalAvgPool2d(), ax.Dense(CLASSES),
)  # fmt: skip
LENET = ax.Sequential(
    ax.Conv2d(2, 3, padding=1), ax.ReLU(), ax.MaxPool2d(2), ax.Flatten(), ax.Dense(CLASSES)
)


class Scale(Layer):
    """A layer of few numbers, without kernels, which keeps a mean of what it saw."""

    def init(self, rng, shape):
        return {
            "weight": np.ones(shape, "float32"),
            "running_mean": np.ones(shape, "float32"),
        }, shape

    def vjp(self, params, x, *, train=True, rng=None, input_grad=True):
        w, mean = params["weight"], params["running_mean"]

        def pullback(dy):
            new = 0.9 * mean + 0.1 * array_namespace(x).mean(x, axis=0)
            return dy * w, {"weight": (dy * x).sum(axis=0), "running_mean": new}

        return x * w + mean, pullback

    def __call__(self, params, x):
        return self.vjp(params, x)[0]


SMALL, FLAT = Scale(), ax.Sequential(ax.Flatten(), ax.Dense(CLASSES))
FALLING = ax.SGD(schedules.cosine(0.1, steps=30), momentum=0.9, weight_decay=0.1, decay_bias=False)
ADAMW = ax.AdamW(schedules.cosine(0.1, steps=30))


@pytest.fixture
def captures(monkeypatch):
    """Install the stand-in; let ordinary steps have the kernels of dense, for the same bits."""
    recorded.install(monkeypatch)
    monkeypatch.setattr(dense, "CAPTURING", SimpleNamespace(now="a capture"))


def train(
    model, optimizer, *, capture, epochs=2, samples=7, options=None, callbacks=(),
    place=lambda w: w, **more,
):  # fmt: skip
    """Return parameters and history after batches of two samples, and a smaller one."""
    shape = IMAGE if isinstance(model, ax.Sequential) else (CLASSES,)
    x = np.random.default_rng(0).standard_normal((samples, *shape), "float32")
    data = place(x), np.arange(samples) % CLASSES
    params = {name: watched.there(place(w)) for name, w in model.init(0, shape)[0].items()}
    before = {name: np.array(w) for name, w in params.items()}
    found = ax.fit(
        model, params, watched.there(data), optimizer=optimizer, epochs=epochs, batch_size=2, rng=0,
        loss=functools.partial(ax.cross_entropy, **(options or {})), callbacks=callbacks,
        capture=capture, **more,
    )  # fmt: skip
    compare(params, before)  # nobody has written there
    return found


class Kept(ax.Callback):
    """Keeps the parameters that each epoch hands out, and copies of them."""

    def __init__(self):
        self.params, self.copies, self.samples = [], [], 0

    def on_step(self, samples):
        self.samples += samples

    def on_epoch(self, epoch, params):
        self.params.append(params)
        self.copies.append({name: np.array(x) for name, x in params.items()})


def compare(found, expected):
    assert found.keys() == expected.keys()
    for name, x in found.items():
        np.testing.assert_array_equal(x, expected[name], err_msg=name)


def check(model, optimizer, *, launches=None, **options):
    """Compare with ordinary steps: parameters bit for bit, losses but for the order of sums.

    What callbacks were given has to stay as it was.
    """
    expected, history = train(model, optimizer, capture=False, **options)
    recorded.Graph.launches = 0
    kept = Kept()
    found, of_captured = train(model, optimizer, capture=True, callbacks=[kept], **options)
    assert launches in (None, recorded.Graph.launches)
    compare(found, expected)
    for epoch, other in zip(of_captured, history, strict=True):
        assert epoch.loss == pytest.approx(other.loss, rel=1e-6)
        assert (epoch.accuracy, epoch.learning_rate) == (other.accuracy, other.learning_rate)
    for params, copies in zip(kept.params, kept.copies, strict=True):
        compare(params, copies)
    assert kept.samples == options.get("epochs", 2) * options.get("samples", 7)


@pytest.mark.parametrize(
    ("model", "optimizer"), [(LENET, ADAMW), (RESNET, FALLING)], ids=["LeNet", "ResNet"]
)
def test_watched_networks(captures, model, optimizer):
    """Each shape's first step is an ordinary one, and the second is recorded while it is taken."""
    check(model, optimizer, epochs=3, launches=1 + 3 + 4)


@pytest.mark.parametrize("optimizer", [ax.SGD(0.1), ADAMW], ids=["SGD", "AdamW"])
def test_watched_options_and_handing_out(captures, monkeypatch, optimizer):
    """What counts is known on the device alone, and steps are left and entered on the way."""
    monkeypatch.setattr(captured_steps, "TOGETHER", 2)
    options = {"ignore_index": 0, "weight": watched.there(np.arange(1, 4, dtype="float32"))}
    check(SMALL, optimizer, samples=14, options=options)


@pytest.mark.parametrize("options", [{}, {"ignore_index": 0, "on_empty": "zero"}])
def test_watched_steps_of_several_batches(captures, options):
    check(SMALL, FALLING, epochs=3, accumulate=2, options=options)


@pytest.mark.parametrize(("mix", "accumulate"), [(ax.Mixup(0.4), 1), (ax.CutMix(), 2)])
def test_watched_steps_of_mixtures(captures, mix, accumulate):
    """Batches are mixed before a step is replayed on them."""
    check(FLAT, FALLING, samples=4 * accumulate + 1, mix=mix, accumulate=accumulate)


def test_watched_steps_of_a_frozen_network(captures):
    check(LENET, FALLING, epochs=3, trainable=["4"], launches=1 + 3 + 4)


def test_watched_shapes_of_batches_are_few(captures, monkeypatch):
    monkeypatch.setattr(captured_steps, "SHAPES", 1)
    check(SMALL, FALLING, epochs=3, launches=1 + 3 + 3)


@pytest.mark.parametrize(("optimizer", "numbers"), [(FALLING, 1), (ADAMW, 3)])
def test_watched_replays_ask_little_of_the_host(captures, monkeypatch, optimizer, numbers):
    """The host copies a batch, writes the numbers that change, and launches the graph."""
    take, asked = captured_steps.CapturedStep.take, []

    def noted(step, *batch):
        before = recorded.Recording.asked, recorded.Graph.launches
        take(step, *batch)
        after = recorded.Recording.asked, recorded.Graph.launches
        asked.append(tuple(np.subtract(after, before)))

    monkeypatch.setattr(captured_steps.CapturedStep, "take", noted)
    train(SMALL, optimizer, capture=True)
    assert set(asked) == {(2 + numbers, 1)}


def test_watched_divergence_is_told(captures):
    told = []
    for capture in (True, False):
        with np.errstate(all="ignore"), pytest.raises(ax.DivergenceError) as error:
            train(SMALL, ax.SGD(3e38), capture=capture)
        told.append(str(error.value))
    assert told[0] == told[1]


# --- steps that are not captured -----------------------------------------------------------------


def declined(model, optimizer, **options):
    """Check that training falls back to ordinary steps; return the one warning."""
    expected, _ = train(model, optimizer, capture=False, **options)
    recorded.Graph.launches = 0
    with pytest.warns(UserWarning, match="not captured") as warned:
        found, _ = train(model, optimizer, capture=True, **options)
    assert recorded.Graph.launches == 0
    assert recorded.Recording.log is None
    compare(found, expected)
    (warning,) = warned
    return str(warning.message)


def test_watched_dropout_is_declined(captures):
    model = ax.Sequential(ax.Flatten(), ax.Dropout(0.5), ax.Dense(CLASSES))
    assert "draws random numbers" in declined(model, FALLING)


def test_watched_matrix_products_of_cupy_are_declined(captures, monkeypatch):
    monkeypatch.setattr(dense, "CAPTURING", SimpleNamespace(now=None))
    assert "NotImplementedError: calling cuBLAS" in declined(FLAT, FALLING)


def test_watched_reads_are_declined(captures):
    assert "D2H transfers are disallowed" in declined(
        SMALL, FALLING, options={"ignore_index": -1, "on_empty": "raise"}
    )


class Sending(Scale):
    """A layer that sends numbers to the GPU in each step."""

    def vjp(self, params, x, **options):
        sent = recorded.Namespace(np).asarray(np.ones(CLASSES, "float32"))
        return super().vjp(params, x + sent, **options)


def test_watched_copies_from_the_host_are_declined(captures):
    assert "H2D transfers are disallowed" in declined(Sending(), FALLING)


def test_watched_steps_of_other_optimizers_are_declined(captures):
    class Own(ax.SGD):
        pass

    for optimizer in (
        Own(0.1),
        ax.MovingAverage(ax.SGD(0.1)),
        ax.LayerRates(ax.SGD(0.1), {"weight": 0.1}),
    ):
        assert "neither SGD nor AdamW" in declined(SMALL, optimizer)


def test_watched_steps_without_a_kernel_are_declined(captures):
    half = {"place": lambda w: w.astype("float16")}
    assert "made new arrays" in declined(SMALL, FALLING, **half)


def test_watched_a_capture_that_fails_at_its_end_changes_nothing(captures, monkeypatch):
    def fail(stream):
        recorded.Recording.log = None
        raise RuntimeError("cudaErrorStreamCaptureInvalidated")

    monkeypatch.setattr(recorded.Stream, "end_capture", fail)
    assert "cudaErrorStreamCaptureInvalidated" in declined(SMALL, FALLING)


# --- predictions ---------------------------------------------------------------------------------


@pytest.fixture
def planned(captures, monkeypatch):
    """Let what plans for NumPy, in the simulator, plan for watched arrays."""
    current = SimpleNamespace(ptr=0)
    monkeypatch.setattr(graphs, "SIMULATED", False)
    monkeypatch.setattr(graphs.xp.cuda, "get_current_stream", lambda: current, raising=False)
    monkeypatch.setitem(core_plans.PLANNERS, "cupy", core_plans.PLANNERS["numpy"])
    return current


def predictor_of(model):
    params = {name: watched.there(w) for name, w in model.init(0, IMAGE)[0].items()}
    return ax.compile_predictor(model, params, IMAGE), params


def samples(count):
    return watched.there(np.random.default_rng(count).standard_normal((count, *IMAGE), "float32"))


@pytest.mark.parametrize("model", [LENET, RESNET], ids=["LeNet", "ResNet"])
def test_watched_predictions_are_a_graph_a_number_of_samples(planned, model):
    predictor, params = predictor_of(model)
    batches = [samples(n) for n in (2, 3, 2)]
    expected = [np.array(model(params, x)) for x in batches]
    found = [predictor(x) for x in batches]
    for y, other in zip(found, expected, strict=True):  # nobody has written over the first one
        np.testing.assert_allclose(np.asarray(y), other, rtol=1e-6, atol=1e-6)
    before = recorded.Recording.asked, recorded.Graph.launches
    predictor(batches[0])
    after = recorded.Recording.asked, recorded.Graph.launches
    assert tuple(np.subtract(after, before)) == (2, 1)  # copies of samples and value
    assert ax.explain(predictor).startswith("CUDA graph: ")


def test_watched_predictions_on_another_stream_have_a_graph_of_their_own(planned):
    predictor, _ = predictor_of(LENET)
    x = samples(2)
    first = predictor(x)
    planned.ptr = 1
    np.testing.assert_array_equal(predictor(x), first)
    (plan,) = predictor._stretches[0].plans.values()
    assert plan.graphs.keys() == {0, 1}


def test_watched_predictions_that_cannot_be_captured_run_layer_by_layer(planned, monkeypatch):
    monkeypatch.setattr(dense, "CAPTURING", SimpleNamespace(now=None))  # so cuBLAS multiplies
    predictor, params = predictor_of(FLAT)
    x = samples(2)
    launches = recorded.Graph.launches
    monkeypatch.setattr(graphs, "_told", set())
    with pytest.warns(RuntimeWarning, match=r"layer by layer; .*calling cuBLAS") as warned:
        y = predictor(x)
    np.testing.assert_allclose(np.asarray(y), np.asarray(FLAT(params, x)), rtol=1e-6)
    predictor(samples(3))  # which is not told again
    assert len(warned) == 1
    assert recorded.Graph.launches == launches
    why = "no CUDA graph was captured: NotImplementedError: calling cuBLAS"
    assert ax.explain(predictor).startswith(f"Sequential: layer by layer ({why}")


# --- mistakes are caught -------------------------------------------------------------------------

MISTAKES = {
    "batch": ("written(self._group, [[*batch] for batch in group])", "None"),
    "rate": ("rate(step)", "rate(self._first)"),
    "corrections": ("step - self._first)", "0)"),
    "steps": ("copied(self._state, count)", "copied(self._state)"),
    "statistics": ("self._params[name][...] = new", "pass"),
    "parameters on entering": ("written(self._params, params)", "None"),
    "state on entering": ("self._state = written(self._state, state)", "self._state = state"),
    "handed out": ("return copied(self._params),", "return self._params,"),
    "sums": (
        "written(self._sums, [",
        "list([",
    ),
    "sums of one step": ("place[...] = place + x", "place[...] = x"),
    "samples": ("count * sum(x.shape[0]", "sum(x.shape[0]"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_caught(captures, monkeypatch, mistake):
    old, new = MISTAKES[mistake]
    text = inspect.getsource(captured_steps)
    text = text[text.index("class CapturedStep:") :]
    assert text.count(old) == 1
    made = vars(captured_steps) | {}
    exec(compile(text.replace(old, new), mistake, "exec"), made)
    monkeypatch.setattr(captured_steps, "CapturedStep", made["CapturedStep"])
    with pytest.raises(AssertionError):
        check(SMALL, ADAMW, epochs=3)


KERNELS = {
    "numbers that stay": (capturing.Capture, "write", lambda *args: None),
    "new arrays": (
        optimizers, "results",
        lambda arrays, like: [optimizers.xp.empty(w.shape, w.dtype) for w in like],
    ),
    "a step of its own": (
        optimizers, "adamw_numbers",
        lambda *args, made=optimizers.adamw_numbers: made(*args[:-1], 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", KERNELS)
def test_mistakes_of_kernels_are_caught(captures, monkeypatch, mistake):
    monkeypatch.setattr(*KERNELS[mistake])
    with pytest.raises((AssertionError, UserWarning)):
        check(SMALL, ADAMW)
