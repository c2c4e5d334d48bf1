"""The training loop: the textbook's update, one curve on every library, sources, errors."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
from conftest import PRESENT, ROWS, assert_close

import agnostic_xent.batches
from agnostic_xent import (
    SGD,
    AdamW,
    BatchNorm2d,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    History,
    MaxPool2d,
    ReLU,
    Sequential,
    binary_cross_entropy_with_logits,
    cross_entropy,
    evaluate,
    fit,
    logistic,
    predict,
    step_decay,
)
from agnostic_xent.arrays import to_numpy
from agnostic_xent.training import Callback

# dask is left out: each step would add a layer to one graph that nobody computes, so that its
# cost grows with every step; dask arrays are for data, see test_sources_give_the_same_result
FITTING = [row for row in PRESENT if row.library != "dask"]
each_home = pytest.mark.parametrize(
    "home", [pytest.param(row, id=row.name, marks=row.marks) for row in FITTING]
)

SEED, CLASSES, IMAGE = 3, 3, (1, 6, 6)
CNN = Sequential(
    Conv2d(3, 3, padding=1, bias=False),
    BatchNorm2d(),
    ReLU(),
    MaxPool2d(2),
    Dropout(0.2),
    Flatten(),
    Dense(CLASSES),
)
SOFTMAX = Sequential(Flatten(), Dense(CLASSES))


def images(samples=40, dtype="float32"):
    """Return noisy images of bars at one of three heights, and which height."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(0, CLASSES, samples)
    x = rng.standard_normal((samples, *IMAGE)) / 2
    x[np.arange(samples), 0, 2 * y] += 1
    return x.astype(dtype), y


def start(model=SOFTMAX, dtype="float32"):
    return {k: v.astype(dtype) for k, v in model.init(SEED, IMAGE)[0].items()}


def train(data=None, *, model=SOFTMAX, **changed):
    """Call `fit` on a small problem with some arguments changed."""
    params = changed.pop("params", None)
    arguments = {
        "loss": cross_entropy,
        "optimizer": SGD(0.1, momentum=0.9),
        "epochs": 2,
        "batch_size": 8,
        "rng": SEED,
    }
    params = start(model) if params is None else params
    return fit(model, params, images() if data is None else data, **arguments | changed)


class Recorder(Callback):
    """Write down every call; stop after some epochs, or fail at some step."""

    def __init__(self, name="", log=None, *, stop=None, fail=None):
        self.name, self.stop, self.fail = name, stop, fail
        self.log = [] if log is None else log

    def on_start(self, epochs, samples):
        self.log.append((self.name, "start", epochs, samples))

    def on_step(self, samples):
        self.log.append((self.name, "step", samples))
        if self.fail is not None and len(self.calls("step")) == self.fail:
            raise RuntimeError("out of coffee")

    def on_epoch(self, epoch, params):
        self.log.append((self.name, "epoch", epoch.epoch))
        return epoch.epoch == self.stop

    def on_end(self):
        self.log.append((self.name, "end"))

    def calls(self, kind):
        return [entry for entry in self.log if entry[:2] == (self.name, kind)]


# --- what it computes --------------------------------------------------------------------------


def test_one_sample_steps_are_the_textbooks_update():
    """w <- w - eta (p - y) x, sample by sample in the order of rng.permutation."""
    rng, eta = np.random.default_rng(SEED), 0.3
    x = rng.standard_normal((100, 4))
    y = (x @ [1.0, -2.0, 0.5, 0.0] > 0).astype("float64")
    weight = rng.standard_normal((1, 4))
    bias = np.zeros(1)
    w, b = weight[0].copy(), 0.0
    losses = []
    for i in np.random.default_rng(8).permutation(100):
        p = 1 / (1 + math.exp(-(w @ x[i] + b)))
        losses.append(-math.log(p if y[i] else 1 - p))
        w, b = w - eta * (p - y[i]) * x[i], b - eta * (p - y[i])
    trained, history = fit(
        logistic(),
        {"0.weight": weight, "0.bias": bias},
        (x, y[:, None]),
        loss=binary_cross_entropy_with_logits,
        optimizer=SGD(eta),
        epochs=1,
        batch_size=1,
        rng=8,
    )
    assert_close(trained["0.weight"][0], w, "float64", 100)
    assert_close(trained["0.bias"], [b], "float64", 100)
    assert_close(history.column("loss"), [np.mean(losses)], "float64", 100)
    assert np.abs(w - weight[0]).max() > eta  # it has gone somewhere


@each_home
def test_every_library_follows_the_same_curve(home):
    optimizer = SGD(0.05, momentum=0.9, nesterov=True)
    for dtype in home.dtypes:
        x, y = images(dtype=dtype)
        options = {"model": CNN, "optimizer": optimizer, "epochs": 10}
        params, expected = train((x, y), params=start(CNN, dtype), **options)
        own = {k: home.array(v) for k, v in start(CNN, dtype).items()}
        trained, history = train((home.array(x), home.array(y)), params=own, **options)
        assert len(history) == 10  # of 5 steps
        # terms: the rounding of 50 steps, 2e-5 in float32 and 5e-14 in float64
        assert_close(np.log(history.column("loss")), np.log(expected.column("loss")), dtype, 50)
        assert history.column("accuracy") == expected.column("accuracy")
        assert expected[-1].loss < expected[0].loss / 2
        assert trained.keys() == own.keys()
        for name, w in trained.items():
            home.check(w, dtype)
            assert_close(w, params[name], dtype, 100)


def test_history_means_are_over_samples():
    """Recompute an epoch's loss and accuracy with the weights as they moved; 40 = 2 * 16 + 8."""
    x, y = images()
    seen = []

    class Watch(SGD):
        def update(self, params, grads, state):
            seen.append(params)
            return super().update(params, grads, state)

    _, (epoch,) = train((x, y), optimizer=Watch(0.1), epochs=1, batch_size=16)
    order = np.random.default_rng(SEED).permutation(40)
    total = correct = 0.0
    for params, rows in zip(seen, (order[:16], order[16:32], order[32:]), strict=True):
        z = x[rows].reshape(len(rows), -1) @ params["1.weight"].T + params["1.bias"]
        log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
        total -= log_p[np.arange(len(rows)), y[rows]].sum()
        correct += (z.argmax(axis=1) == y[rows]).sum()
    assert_close([epoch.loss, epoch.accuracy], [total / 40, correct / 40], "float32", 20)
    assert 0 < epoch.accuracy < 1
    assert epoch.seconds > 0
    assert_close(epoch.images_per_second * epoch.seconds, 40, "float64")


def test_soft_targets_and_an_option_of_the_loss():
    x, y = images()
    hard, _ = train((x, y))
    soft, history = train((x, np.eye(CLASSES, dtype="float32")[y]))
    last, _ = train((x, y), loss=functools.partial(cross_entropy, axis=1))
    for name in hard:
        assert_close(soft[name], hard[name], "float32", 20)
        np.testing.assert_array_equal(last[name], hard[name])
    assert history[-1].accuracy == train((x, y))[1][-1].accuracy


def test_the_learning_rate_follows_the_steps():
    _, history = train(optimizer=SGD(step_decay(1.0, every=5, factor=0.5)), epochs=3)
    assert history.column("learning_rate") == [1.0, 0.5, 0.25]  # 5 steps an epoch


def test_running_statistics_are_updated_and_used():
    x, y = images()
    before = start(CNN)
    trained, history = train((x, y), model=CNN, validation=(x, y))
    for name in ("1.running_mean", "1.running_var"):
        assert (trained[name] != before[name]).all()
    scores = evaluate(CNN, trained, (x, y), loss=cross_entropy)
    assert_close(history[-1].validation_loss, scores[0], "float32", 8)
    assert history[-1].validation_accuracy == scores[1]


def test_arguments_are_not_written_to():
    x, y = images()
    params = start(CNN)
    for array in (x, y, *params.values()):
        array.flags.writeable = False
    names = list(params)
    trained, _ = train((x, y), model=CNN, params=params, validation=(x, y))
    assert list(params) == names
    np.testing.assert_equal(params, start(CNN))
    assert all((trained[name] != params[name]).any() for name in names)


def test_rng():
    x, y = images()
    one, _ = train((x, y), model=CNN, rng=5)
    same, _ = train((x, y), model=CNN, rng=np.random.default_rng(5))
    other, _ = train((x, y), model=CNN, rng=6)
    fresh, _ = train((x, y), model=CNN, rng=None)
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert (one[name] != other[name]).any()
        assert (one[name] != fresh[name]).any()


# --- evaluate and predict ----------------------------------------------------------------------


@each_home
def test_evaluate_and_predict(home):
    x, y = images(10)
    params = start()
    z = x.reshape(10, -1) @ params["1.weight"].T + params["1.bias"]
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    own = {k: home.array(v) for k, v in params.items()}
    for batch_size in (4, 512):
        size = {"batch_size": batch_size}
        found = predict(SOFTMAX, own, home.array(x), **size)
        home.check(found, "float32")
        assert_close(found, z, "float32", 36)
        data = home.array(x), home.array(y)
        loss, accuracy = evaluate(SOFTMAX, own, data, loss=cross_entropy, **size)
        assert_close(loss, -log_p[np.arange(10), y].mean(), "float32", 36)
        assert_close(accuracy, (z.argmax(axis=1) == y).mean(), "float64")


def test_evaluate_of_one_logit_counts_its_sign():
    params = {"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1)}
    x, y = np.array([[0.2], [-1.0], [3.0], [-3.0]]), np.array([[1.0], [1.0], [0.0], [0.0]])
    loss, accuracy = evaluate(logistic(), params, (x, y), loss=binary_cross_entropy_with_logits)
    terms = [math.log1p(math.exp(s * v)) for s, v in ((-1, 0.2), (-1, -1), (1, 3), (1, -3))]
    assert_close(loss, np.mean(terms), "float64")
    assert accuracy == 0.5


# --- where the samples come from ---------------------------------------------------------------


class Batches:
    """Fixed batches that start anew each epoch."""

    def __init__(self, x, y, size=8):
        self.x, self.y, self.size = x, y, size

    def __iter__(self):
        for i in range(0, len(self.x), self.size):
            yield self.x[i : i + self.size], self.y[i : i + self.size]


def memory_mapped(folder, x, y):
    mapped = []
    for name, array in (("x", x), ("y", y)):
        out = np.memmap(folder / f"{name}.bin", array.dtype, "w+", shape=array.shape)
        out[:] = array
        mapped.append(out)
    return tuple(mapped)


def npy_paths(folder, x, y):
    np.save(folder / "x.npy", x)
    np.save(folder / "y.npy", y)
    return folder / "x.npy", str(folder / "y.npy")


def dask_arrays(folder, x, y):
    dask = pytest.importorskip("dask.array")
    return dask.from_array(x, chunks=7), dask.from_array(y, chunks=9)


@pytest.mark.parametrize("stored", [memory_mapped, npy_paths, dask_arrays])
@each_home
def test_sources_give_the_same_result(home, stored, tmp_path):
    x, y = images()
    own = {k: home.array(v) for k, v in start().items()}
    arrays = home.array(x), home.array(y)
    source = stored(tmp_path, x, y)
    expected, history = train(arrays, params=own, validation=arrays)
    found, again = train(source, params=own, validation=source)
    for name, w in found.items():
        home.check(w, "float32")
        np.testing.assert_array_equal(to_numpy(w), to_numpy(expected[name]))
    for column in ("loss", "accuracy", "validation_loss", "validation_accuracy"):
        assert again.column(column) == history.column(column)
    if stored is not npy_paths:
        np.testing.assert_array_equal(
            to_numpy(predict(SOFTMAX, found, source[0])),
            to_numpy(predict(SOFTMAX, found, arrays[0])),
        )


def test_stored_images_are_fetched_batch_by_batch(monkeypatch, tmp_path):
    x, y = images()
    fetched, fetch = [], agnostic_xent.batches.to_backend

    def spy(array, *place):
        fetched.append(array.shape)
        return fetch(array, *place)

    monkeypatch.setattr(agnostic_xent.batches, "to_backend", spy)
    train(memory_mapped(tmp_path, x, y), validation=memory_mapped(tmp_path, x, y))
    pictures = [shape for shape in fetched if len(shape) == len(x.shape)]
    assert len(pictures) > 20
    assert max(shape[0] for shape in pictures) == 8


@pytest.mark.parametrize("kind", [Batches, lambda x, y: list(Batches(x, y))])
def test_iterables_of_batches(kind):
    x, y = images()
    recorder = Recorder()
    found, history = train(kind(x, y), validation=kind(x, y), callbacks=[recorder])
    assert recorder.log[0] == ("", "start", 2, None)
    assert recorder.calls("step") == [("", "step", 8)] * 10
    params, state, sgd = start(), SGD(0.1, momentum=0.9).init({}), SGD(0.1, momentum=0.9)
    for x_batch, y_batch in [*Batches(x, y), *Batches(x, y)]:
        output, pull_model = SOFTMAX.vjp(params, x_batch)
        value, pull_loss = cross_entropy.vjp(output, y_batch)
        grads = pull_model(pull_loss(np.ones_like(value))[0])[1]
        params, state = sgd.update(params, grads, state)
    for name, w in found.items():
        assert_close(w, params[name], "float32", 20)
    expected = evaluate(SOFTMAX, found, (x, y), loss=cross_entropy)
    assert_close(history[-1].validation_loss, expected[0], "float32", 8)


@pytest.mark.parametrize("name", ["data", "validation"])
def test_a_generator_lasts_for_one_epoch(name):
    """With more epochs it is refused before the first step, and not yet started."""
    x, y = images()
    arguments = {"data": (x, y), "validation": (x, y)}
    used, recorder = iter(Batches(x, y)), Recorder()
    train(**arguments | {name: used}, epochs=1)
    generator = iter(Batches(x, y))
    with pytest.raises(ValueError, match=rf"{name} is an iterator.*__iter__, not a generator"):
        train(**arguments | {name: generator}, callbacks=[recorder])
    assert recorder.log == []
    assert len(list(generator)) == 5
    with pytest.raises(ValueError, match=rf"{name} yielded no batch.*not a generator"):
        train(**arguments | {name: used}, epochs=1)


# --- history and callbacks ---------------------------------------------------------------------


def test_history():
    x, y = images()
    _, history = train((x, y), epochs=3, validation=(x, y))
    assert isinstance(history, History)
    assert history.column("epoch") == [1, 2, 3]
    assert json.loads(history.to_json()) == [vars(epoch) for epoch in history]
    assert set(map(type, vars(history[0]).values())) == {int, float}
    _, without = train((x, y), epochs=3)
    assert without.column("loss") == history.column("loss")
    assert without.column("validation_loss") == without.column("validation_accuracy") == [None] * 3


def test_callbacks_are_called_in_order():
    log = []
    x, y = images(20)
    train((x, y), callbacks=[Recorder("a", log), Recorder("b", log)], epochs=2)
    both = [("start", 2, 20), ("step", 8), ("step", 8), ("step", 4), ("epoch", 1)]
    both += [("step", 8), ("step", 8), ("step", 4), ("epoch", 2), ("end",)]
    assert log == [(name, *entry) for entry in both for name in "ab"]


def test_a_callback_sees_the_parameters_and_ends_the_training():
    seen = []

    class Keep(Callback):
        def on_epoch(self, epoch, params):
            seen.append(params)

    log = []
    callbacks = [Recorder("a", log, stop=2), Keep(), Recorder("b", log)]
    trained, history = train(epochs=9, callbacks=callbacks)
    assert history.column("epoch") == [1, 2]
    assert log[-3:] == [("b", "epoch", 2), ("a", "end"), ("b", "end")]
    two, _ = train(epochs=2)
    np.testing.assert_equal(seen[-1], trained)
    np.testing.assert_equal(two, trained)


def test_on_end_is_called_when_an_exception_flies():
    log = []
    with pytest.raises(RuntimeError, match="out of coffee"):
        train(callbacks=[Recorder("a", log, fail=3), Recorder("b", log)])
    assert log[-3:] == [("a", "step", 8), ("a", "end"), ("b", "end")]


# --- reads from the device ---------------------------------------------------------------------

READS = ("__float__", "__bool__", "__int__", "__index__", "__complex__", "__array__", "__buffer__")
READS += ("item", "tolist", "numpy", "cpu", "get")


@pytest.mark.parametrize("optimizer", [SGD(0.1, momentum=0.9), AdamW()], ids=["sgd", "adamw"])
@pytest.mark.parametrize("library", ["torch", "array_api_strict"])
def test_no_read_from_the_device_within_an_epoch(library, optimizer, monkeypatch):
    """How often an array's value is read does not depend on the number of steps."""
    pytest.importorskip(library)
    row = next(row for row in ROWS if row.library == library)
    x, y = images()
    data = row.array(x), row.array(y)
    params = {k: row.array(v) for k, v in start(CNN).items()}
    reads = []

    def counted(name, method):
        def read(self, *args, **kwargs):
            reads.append(name)
            return method(self, *args, **kwargs)

        return read

    kind = type(data[0])
    for name in READS:
        if hasattr(kind, name):
            monkeypatch.setattr(kind, name, counted(name, getattr(kind, name)))

    def count(batch_size, epochs):
        reads.clear()
        train(
            data,
            model=CNN,
            params=params,
            optimizer=optimizer,
            batch_size=batch_size,
            epochs=epochs,
        )
        return reads.count("__float__"), len(reads)

    one_step, eight_steps, again = count(40, 1), count(5, 1), count(40, 3)
    assert one_step == eight_steps
    assert (one_step[0], again[0]) == (2, 6)  # loss and accuracy of each epoch


# --- bad input -----------------------------------------------------------------------------------


def spoiled(**changed):
    """Return images and labels, one of them changed by a function."""
    x, y = images()
    return changed.get("x", lambda x: x)(x), changed.get("y", lambda y: y)(y)


def at(position, label):
    def change(y):
        y[position] = label
        return y

    return change


BAD = {
    "no-epochs": ({"epochs": 0}, ValueError, r"epochs .* 0"),
    "bool-epochs": ({"epochs": True}, ValueError, r"epochs .* True"),
    "half-an-epoch": ({"epochs": 1.5}, ValueError, r"epochs .* 1.5"),
    "no-batch": ({"batch_size": 0}, ValueError, r"batch_size .* 0"),
    "bool-batch": ({"batch_size": True}, ValueError, r"batch_size .* True"),
    "negative-batch": ({"batch_size": -8}, ValueError, r"batch_size .* -8"),
    "rng": ({"rng": "seven"}, TypeError, r"rng .* 'seven'"),
    "negative-rng": ({"rng": -1}, TypeError, r"rng .* -1"),
    "model": ({"model": "resnet", "params": start()}, TypeError, r"model .* 'resnet'"),
    "no-params": ({"params": {}}, TypeError, r"params .* \{\}"),
    "params-list": ({"params": [1.0]}, TypeError, r"params .* \[1.0\]"),
    "params-number": ({"params": {"1.weight": 1.0}}, TypeError, r"params\['1.weight'\]"),
    "loss": ({"loss": "mse"}, TypeError, r"loss .* 'mse'"),
    "loss-function": ({"loss": lambda z, t: z}, TypeError, r"loss .*<lambda>"),
    "loss-sum": (
        {"loss": functools.partial(cross_entropy, reduction="sum")},
        ValueError,
        r'loss .*reduction="mean"',
    ),
    "loss-of-floats": ({"loss": binary_cross_entropy_with_logits}, TypeError, r"target .* int64"),
    "optimizer": ({"optimizer": 0.1}, TypeError, r"optimizer .* 0.1"),
    "optimizer-none": ({"optimizer": None}, TypeError, r"optimizer .* None"),
    "optimizer-class": ({"optimizer": SGD}, TypeError, r"optimizer .*SGD'"),
    "loss-none": ({"loss": None}, TypeError, r"loss .* None"),
    "callback": ({"callbacks": [print]}, TypeError, r"callbacks .* print"),
    "data-number": ({"data": 7}, TypeError, r"data .* int"),
    "data-array": ({"data": images()[0]}, TypeError, r"data .* ndarray"),
    "data-triple": ({"data": [(*images(), 1)]}, TypeError, r"data must yield pairs"),
    "data-list": ({"data": (images()[0], 3)}, TypeError, r"data .* its y is int"),
    "no-batches": ({"data": []}, ValueError, r"data yielded no batch"),
    "empty": ({"data": spoiled(x=lambda x: x[:0], y=lambda y: y[:0])}, ValueError, r"data .*one"),
    "unequal": ({"data": spoiled(y=lambda y: y[:-1])}, ValueError, r"data .*40.*39"),
    "0-d": ({"data": spoiled(y=lambda y: y[0])}, ValueError, r"data .*40.*\(\)"),
    "label-high": ({"data": spoiled(y=at(37, 3))}, ValueError, r"target\[37\] is 3.* \[0, 3\)"),
    "label-low": ({"data": spoiled(y=at(0, -1))}, ValueError, r"target\[0\] is -1"),
    "float-labels": ({"data": spoiled(y=lambda y: y * 1.0)}, TypeError, r"target .* float64"),
    "labels-2d": ({"data": spoiled(y=lambda y: y[:, None])}, ValueError, r"target .* shape"),
    "dtype": ({"data": spoiled(x=lambda x: x.astype("f8"))}, TypeError, r"w has dtype float32"),
    "shape": ({"data": spoiled(x=lambda x: x[:, :, 1:])}, ValueError, r"x must have shape"),
    "validation": ({"validation": 7}, TypeError, r"validation .* int"),
    "validation-unequal": (
        {"validation": spoiled(x=lambda x: x[1:])},
        ValueError,
        r"validation .*39.*40",
    ),
    "validation-label": ({"validation": spoiled(y=at(5, 9))}, ValueError, r"target\[5\] is 9"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_found_before_the_first_step(bad):
    changed, error, words = BAD[bad]
    recorder = Recorder()
    changed = {"params": start(), "callbacks": [recorder]} | changed
    before = {k: v.copy() for k, v in start().items()}
    with pytest.raises(error, match=words):
        train(**changed)
    assert not recorder.calls("step")
    if bad.startswith(("label", "validation", "float", "shape")):
        np.testing.assert_equal(changed["params"], before)
        assert recorder.log == []


@each_home
def test_a_label_out_of_range_is_found_on_every_library(home):
    x, y = spoiled(y=at(37, 3))
    own = {k: home.array(v) for k, v in start().items()}
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"target\[37\] is 3, but labels must be in \[0, 3\)"):
        train((home.array(x), home.array(y)), params=own, callbacks=[recorder])
    assert recorder.log == []


def test_libraries_and_devices_do_not_mix():
    xp = pytest.importorskip("array_api_strict")
    x, y = images()
    strict = xp.asarray(x), xp.asarray(y)
    elsewhere = xp.asarray(x, device=xp.Device("device1"))
    own = {k: xp.asarray(v) for k, v in start().items()}
    for data, error, words in (
        ((x, y), TypeError, r"data \(x\) is an array of numpy but params .* array_api_strict"),
        ((strict[0], y), TypeError, r"data \(y\) is an array of numpy"),
        ((elsewhere, strict[1]), ValueError, r"data \(x\) is on device .*device1.* params"),
    ):
        with pytest.raises(error, match=words):
            train(data, params=own)
        with pytest.raises(error, match=words.replace("data", "validation")):
            train(strict, params=own, validation=data)
    mixed = own | {"1.bias": start()["1.bias"]}
    with pytest.raises(TypeError, match=r"params\['1.bias'\] is an array of numpy"):
        train(strict, params=mixed)


def test_paths(tmp_path):
    x, y = npy_paths(tmp_path, *images())
    with pytest.raises(FileNotFoundError, match=r"missing\.npy"):
        train((x, tmp_path / "missing.npy"))
    whole = x.read_bytes()
    for content in (b"no array at all", whole[:-1], b""):
        x.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npy is no whole \.npy file"):
            train((x, y))


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"batch_size": 0}, ValueError, r"batch_size .* 0"),
        ({"params": {}}, TypeError, r"params"),
        ({"model": None}, TypeError, r"model .* None"),
        ({"x": images()}, TypeError, r"x must be an array .* tuple"),
        ({"x": 3.0}, TypeError, r"x .* float"),
        ({"x": images()[0][:0]}, ValueError, r"x must hold at least one sample"),
    ],
)
def test_predict_errors(changed, error, words):
    arguments = {"model": SOFTMAX, "params": start(), "x": images()[0]} | changed
    with pytest.raises(error, match=words):
        predict(**arguments)


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"batch_size": False}, ValueError, r"batch_size .* False"),
        ({"loss": None}, TypeError, r"loss .* None"),
        ({"data": spoiled(y=at(1, 3))}, ValueError, r"target\[1\] is 3"),
        ({"data": iter(())}, ValueError, r"data yielded no batch"),
    ],
)
def test_evaluate_errors(changed, error, words):
    arguments = {"model": SOFTMAX, "params": start(), "data": images(), "loss": cross_entropy}
    with pytest.raises(error, match=words):
        evaluate(**arguments | changed)


def test_ignored_labels_do_not_count_in_the_accuracy():
    params = {"0.weight": np.array([[-1.0], [1.0]])}
    data = (np.array([[1.0], [1.0], [-1.0]]), np.array([1, 255, 1]))
    loss = functools.partial(cross_entropy, ignore_index=255)
    model = Sequential(Dense(2, bias=False))
    assert evaluate(model, params, data, loss=loss)[1] == 0.5
