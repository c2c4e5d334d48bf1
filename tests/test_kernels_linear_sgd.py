"""The CPU kernel of linear models' SGD: the same training as step by step, an epoch in a call."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
from conftest import assert_close
from training_case import Recorder

import agnostic_xent.training.linear_epochs
from agnostic_xent import (
    SGD,
    Dense,
    DivergenceError,
    Dropout,
    Flatten,
    ReLU,
    Sequential,
    binary_cross_entropy_with_logits,
    cosine,
    cross_entropy,
    fit,
    kernels,
)
from agnostic_xent.core.operation import ROUTINES, load_kernels
from agnostic_xent.training.proximal import Proximal

pytest.importorskip("numba")

from agnostic_xent.kernels.cpu.linear.sgd import MANY

SEED, SAMPLES, EPOCHS = 5, 83, 3
LOSSES = {"binary": binary_cross_entropy_with_logits, "classes": cross_entropy}
each_loss = pytest.mark.parametrize("loss", LOSSES)
each_dtype = pytest.mark.parametrize("dtype", ["float32", "float64"])
each_batch_size = pytest.mark.parametrize("batch_size", [1, 2, 7, 83, MANY - 1])


def problem(loss, features=9, dtype="float64", units=4):
    """Return a linear model's parameters and noisy data."""
    rng = np.random.default_rng(SEED)
    units = 1 if loss == "binary" else units
    x = rng.standard_normal((SAMPLES, features))
    z = x @ rng.standard_normal((features, units)) + rng.standard_normal((SAMPLES, units))
    y = (z > 0).astype(dtype) if loss == "binary" else z.argmax(axis=1)
    params = {
        "0.weight": rng.standard_normal((units, features)).astype(dtype),
        "0.bias": rng.standard_normal(units).astype(dtype),
    }
    return params, x.astype(dtype), y


def train(kind, params, x, y, mode="auto", **changed):
    """Return parameters, history, and the samples of each report of progress."""
    arguments = {"optimizer": SGD(0.1), "epochs": EPOCHS, "batch_size": 1, "rng": SEED}
    arguments |= {"loss": LOSSES[kind]} | changed
    recorder = arguments.setdefault("recorder", Recorder())
    model = arguments.pop("model", None) or Sequential(Dense(params["0.weight"].shape[0]))
    with kernels(mode):
        trained, history = fit(
            model, params, (x, y), callbacks=[arguments.pop("recorder")], **arguments
        )
    return trained, history, [samples for _, _, samples in recorder.calls("step")]


def agree(loss, params, x, y, **changed):
    """Train by the kernel and step by step."""
    found, history, calls = train(loss, params, x, y, **changed)
    assert calls == [SAMPLES] * EPOCHS  # a call an epoch: the kernel was there
    expected, by_steps, calls = train(loss, params, x, y, "portable", **changed)
    assert len(calls) == EPOCHS * math.ceil(SAMPLES / changed.get("batch_size", 1))
    assert found.keys() == expected.keys()
    for name, w in found.items():
        assert w.shape == expected[name].shape
        assert w.dtype == expected[name].dtype
        assert_close(w, expected[name], str(w.dtype), EPOCHS * SAMPLES)
    terms = EPOCHS * SAMPLES
    assert_close(history.column("loss"), by_steps.column("loss"), str(w.dtype), terms)
    for column in ("accuracy", "learning_rate"):
        assert history.column(column) == by_steps.column(column)
    return found, history


# --- the same as step by step --------------------------------------------------------------------


@each_dtype
@each_batch_size
@each_loss
def test_batches(loss, batch_size, dtype):
    agree(loss, *problem(loss, dtype=dtype), batch_size=batch_size)


@pytest.mark.parametrize("features", [1, 2, 8, 31, 57, 64, 301])
@each_dtype
@each_loss
def test_numbers_of_features(loss, dtype, features):
    for batch_size in (1, 5):
        rate = SGD(0.1 / features)
        agree(loss, *problem(loss, features, dtype), batch_size=batch_size, optimizer=rate)


@pytest.mark.parametrize("batch_size", [1, 5])
@each_loss
def test_float64_to_twelve_digits(loss, batch_size):
    for optimizer in (SGD(0.1), SGD(0.1, weight_decay=0.01)):
        arguments = {"optimizer": optimizer, "batch_size": batch_size}
        params, x, y = problem(loss)
        found, history = agree(loss, params, x, y, **arguments)
        expected, by_steps, _ = train(loss, params, x, y, "portable", **arguments)
        pairs = [(found[name], expected[name]) for name in found]
        pairs += [(np.array(h.column("loss")) for h in (history, by_steps))]
        for a, b in pairs:
            assert np.abs(a - b).max() <= 1e-12 * np.abs(b).max()


@pytest.mark.parametrize("weight_decay", [0, 0.05])
@pytest.mark.parametrize("rate", [0.2, cosine(0.5, steps=150)], ids=["constant", "cosine"])
@pytest.mark.parametrize("bias", [True, False])
@each_loss
def test_options(loss, bias, rate, weight_decay):
    params, x, y = problem(loss)
    if not bias:
        del params["0.bias"]
    for decay_bias in (True, False):
        optimizer = SGD(rate, weight_decay=weight_decay, decay_bias=decay_bias)
        for batch_size in (1, 5):
            agree(loss, params, x, y, optimizer=optimizer, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 5])
@each_dtype
@each_loss
def test_an_l1_penalty(loss, dtype, batch_size):
    params, x, y = problem(loss, dtype=dtype)
    for sgd in (SGD(0.1), SGD(cosine(0.5, steps=150), weight_decay=0.05, decay_bias=False)):
        changed = {"optimizer": Proximal(sgd, 0.2), "batch_size": batch_size}
        agree(loss, params, x, y, **changed)


@pytest.mark.parametrize("units", [1, 2, 3, 17, 100])
def test_numbers_of_classes(units):
    params, x, y = problem("classes", units=units)
    for label_type in ("int64", "uint8", ">i4"):
        agree("classes", params, x, y.astype(label_type))


def test_targets_between_0_and_1():
    params, x, y = problem("binary")
    soft = np.random.default_rng(SEED).random(y.shape)
    for batch_size in (1, 5):
        agree("binary", params, x, soft, batch_size=batch_size)


def memory_mapped(x, folder):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def readonly(x, folder):
    x.flags.writeable = False
    return x


LAYOUTS = {
    "fortran": lambda x, folder: np.asfortranarray(x),
    "columns": lambda x, folder: np.repeat(x, 2, axis=1)[:, ::2],
    "rows": lambda x, folder: np.repeat(x, 3, axis=0)[1::3],
    "backwards": lambda x, folder: x[::-1, ::-1],
    "readonly": readonly,
    "memory-mapped": memory_mapped,
}


@pytest.mark.parametrize("layout", LAYOUTS)
@each_loss
def test_layouts(loss, layout, tmp_path):
    params, x, y = problem(loss)
    for batch_size in (1, 5):
        agree(loss, params, LAYOUTS[layout](x, tmp_path), y, batch_size=batch_size)


def test_models():
    """With and without `Sequential` and `Flatten`."""
    params, x, y = problem("classes", features=12)
    w, b = params.values()
    plain, _ = agree("classes", params, x, y)
    for model, prefix, shape in (
        (Dense(4), "", (12,)),
        (Sequential(Flatten(), Dense(4)), "1.", (3, 2, 2)),
        (Sequential(Flatten(), Flatten(), Dense(4)), "2.", (12,)),
    ):
        own = {f"{prefix}weight": w, f"{prefix}bias": b}
        found, _, calls = train("classes", own, x.reshape(SAMPLES, *shape), y, model=model)
        assert calls == [SAMPLES] * EPOCHS
        np.testing.assert_array_equal(found[f"{prefix}weight"], plain["0.weight"])


# --- values --------------------------------------------------------------------------------------


def test_a_confident_answer_keeps_its_digits():
    """p - t of a logit of 40 is -exp(-40), which p rounded to 1 would lose."""
    one = {"0.weight": np.array([[40.0]])}, np.ones((1, 1)), np.ones((1, 1))
    trained, history, _ = train("binary", *one, epochs=1, optimizer=SGD(1e18))
    assert_close(trained["0.weight"][0, 0] - 40, 1e18 * math.exp(-40), "float64", 30)
    np.testing.assert_allclose(history[0].loss, math.exp(-40), rtol=1e-14)
    two = {"0.weight": np.array([[40.0], [0.0]])}, np.ones((1, 1)), np.zeros(1, int)
    trained, history, _ = train("classes", *two, epochs=1, optimizer=SGD(1e18))
    assert_close(trained["0.weight"][0, 0] - 40, 1e18 * math.exp(-40), "float64", 30)
    np.testing.assert_allclose(history[0].loss, math.exp(-40), rtol=1e-14)


@each_loss
def test_of_equal_logits_the_first_is_the_prediction(loss):
    params, x, y = problem(loss)
    zeros = {name: 0 * w for name, w in params.items()}
    _, history = agree(loss, zeros, x, y, optimizer=SGD(0.0))
    assert_close(history[-1].accuracy, np.mean(y == 0), "float64")


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("spoil", [math.nan, math.inf, 1e200, 1e4])
@each_loss
def test_values_out_of_all_bounds(loss, spoil, batch_size):
    """Both ways end with the same parameters, or stop at the same step for the same reason."""
    params, x, y = problem(loss)
    x[40:, 3] = spoil
    outcomes = []
    for mode in ("auto", "portable"):
        try:
            w, history, _ = train(loss, params, x, y, mode, batch_size=batch_size, epochs=1)
            outcomes.append({**w, "loss": np.asarray(history[0].loss)})
        except DivergenceError as error:
            outcomes.append({"error": str(error)})
    found, expected = outcomes
    assert ("error" in found) == (spoil != 1e4)
    assert found.keys() == expected.keys()
    for name, w in found.items():
        if name == "error":
            assert w == expected[name]
        else:
            assert_close(w, expected[name], "float64", terms=1000)


def test_labels_that_changed_meanwhile_stay_within_the_arrays():
    """`fit` has checked them; the kernel makes NaN of those that are out of range."""
    load_kernels("numpy")
    params, x, y = problem("classes")
    w, b = params.values()
    options = {"loss": "cross_entropy", "batch_size": 1, "weight_decay": 0.0, "decay_bias": True}
    run = ROUTINES["linear_sgd"].kernel(w, b, x, y, **options).value
    for label in (-1, 4, 2**40):
        y[:] = label
        new_w, new_b, loss, correct = run(w, b, x, y, np.arange(3), np.ones(3), **options)
        assert np.isnan(new_w).all()
        assert np.isnan(new_b).all()
        assert math.isnan(loss)
        assert correct == 0


@each_batch_size
@each_loss
def test_the_same_bits_each_time(loss, batch_size):
    data = problem(loss, 57, "float32")
    runs = [train(loss, *data, batch_size=batch_size) for _ in range(3)]
    assert len({run[0]["0.weight"].tobytes() for run in runs}) == 1
    assert len({tuple(run[1].column("loss")) for run in runs}) == 1


@each_loss
def test_nothing_is_written_to(loss):
    params, x, y = problem(loss)
    given = [*params.values(), x, y]
    before = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    for batch_size in (1, 5):
        train(loss, params, x, y, batch_size=batch_size)
    for array, kept in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, kept)


# --- progress ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3])
@each_loss
def test_a_long_epoch_goes_in_parts(loss, batch_size, monkeypatch):
    params, x, y = problem(loss)
    whole, history, _ = train(loss, params, x, y, batch_size=batch_size)
    monkeypatch.setattr(agnostic_xent.training.linear_epochs, "CHUNK", 31 * params["0.weight"].size)
    parts, again, calls = train(loss, params, x, y, batch_size=batch_size)
    size = 31 // batch_size * batch_size
    assert calls == [size, size, SAMPLES - 2 * size] * EPOCHS
    for name, w in parts.items():
        assert_close(w, whole[name], "float64", EPOCHS * SAMPLES)
    assert_close(again.column("loss"), history.column("loss"), "float64", SAMPLES)


def test_a_callback_can_end_it(monkeypatch):
    monkeypatch.setattr(agnostic_xent.training.linear_epochs, "CHUNK", 9 * 31)
    params, x, y = problem("binary")
    recorder = Recorder(fail=2)
    with pytest.raises(RuntimeError, match="out of coffee"):
        train("binary", params, x, y, recorder=recorder)
    assert [entry[1] for entry in recorder.log] == ["start", "step", "step", "end"]


# --- what goes step by step ----------------------------------------------------------------------


class OwnSGD(SGD):
    pass


BY_STEPS = {
    "momentum": {"optimizer": SGD(0.1, momentum=0.5)},
    "own-optimizer": {"optimizer": OwnSGD(0.1)},
    "smoothing": {"loss": functools.partial(cross_entropy, label_smoothing=0.1)},
    "ignored": {"loss": functools.partial(cross_entropy, ignore_index=1)},
    "probabilities": {"y": lambda y: np.eye(4)[y]},
    "another-layer": {"model": Sequential(Dense(4), ReLU())},
    "dropout": {"model": Sequential(Dense(4), Dropout(0.1))},
    "big-batches": {"batch_size": MANY},
}


@pytest.mark.parametrize("name", BY_STEPS)
def test_other_trainings_go_step_by_step(name):
    params, x, y = problem("classes")
    changed = dict(BY_STEPS[name])
    _, _, calls = train("classes", params, x, changed.pop("y", lambda y: y)(y), **changed)
    assert calls == ([SAMPLES] if name == "big-batches" else [1] * SAMPLES) * EPOCHS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: x.astype("float16"), "float32 and float64 in native byte order, not <f2"),
        (lambda x: x.astype(">f8"), "native byte order, not >f8"),
        (lambda x: x.view(np.recarray), "numpy.ndarray, not recarray"),
        (lambda x: x[:, None] if x.ndim == 2 and len(x) == SAMPLES else x, "one dimension, not 2"),
    ],
)
def test_what_is_declined(change, reason):
    params, x, y = problem("classes")
    w, b, x = (change(array) for array in (*params.values(), x))
    options = {"loss": "cross_entropy", "batch_size": 1, "weight_decay": 0.0, "decay_bias": True}
    with kernels("require"), pytest.raises(RuntimeError, match=reason):
        ROUTINES["linear_sgd"].kernel(w, b, x, y, **options)
    assert ROUTINES["linear_sgd"].kernel(w, b, x, y, **options) is None


def test_outputs_of_several_logits_go_step_by_step():
    _, x, _ = problem("binary")
    params, y = {"0.weight": np.zeros((2, 9))}, np.zeros((SAMPLES, 2))
    assert train("binary", params, x, y)[2] == [1] * SAMPLES * EPOCHS


def test_batches_that_somebody_else_makes_go_step_by_step():
    params, x, y = problem("classes")
    recorder = Recorder()
    fit(
        Sequential(Dense(4)), params, [(x, y)], loss=cross_entropy, optimizer=SGD(0.1), epochs=1,
        batch_size=1, callbacks=[recorder],
    )  # fmt: skip
    assert recorder.calls("step") == [("", "step", SAMPLES)]
