"""What the training loop is given: sources of samples, and bad input."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from conftest import assert_close
from training_case import (
    SOFTMAX,
    Recorder,
    each_home,
    images,
    start,
    train,
)

import agnostic_xent.training.batches
from agnostic_xent import SGD, binary_cross_entropy_with_logits, cross_entropy, evaluate, predict
from agnostic_xent.core.conversion import to_numpy

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
    fetched, fetch = [], agnostic_xent.training.batches.fetched

    def spy(array):
        fetched.append(array.shape)
        return fetch(array)

    monkeypatch.setattr(agnostic_xent.training.batches, "fetched", spy)
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
    header = whole.replace(b"}", b"(", 1), whole.replace(b"(40,", b"(9999999999999999999999,", 1)
    for content in (b"no array at all", whole[:-1], b"", b"PK\x03\x04 no zip", *header):
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
