"""Checkpoints of another run, damaged or foreign: refused, with nothing changed."""

from __future__ import annotations

import errno
import functools
import os

import numpy as np
import pytest
from training_case import SEED, SOFTMAX, Recorder, images, same, start, train

from agnostic_xent import (
    SGD,
    AdamW,
    Dense,
    Flatten,
    Sequential,
    cosine,
    cross_entropy,
    fit,
    load_checkpoint,
    save_params,
    warmup,
)
from agnostic_xent.network.checkpoints import save_record
from agnostic_xent.training.runs import FILE, KIND


class Odd(SGD):
    """An optimizer whose state is more than arrays and numbers."""

    def init(self, params):
        return super().init(params) | {"names": list(params)}


class Plain:
    """An optimizer that shows its address."""

    def __init__(self, rate):
        self.inner = SGD(rate)
        self.init, self.rate, self.update = self.inner.init, self.inner.rate, self.inner.update


X, Y = images()
OTHERS = {
    "model": (
        {"model": Sequential(Flatten(), Dense(3, bias=False))},
        r"its model has bias=True \(here False\)",
    ),
    "start": (
        {"params": {k: w + 1 for k, w in start().items()}},
        "its start is of other parameters, such as of another seed",
    ),
    "dtype": (
        {"params": start(dtype="float64"), "data": (X.astype("float64"), Y)},
        r"its data is x \(40, 1, 6, 6\) float32.*, here x \(40, 1, 6, 6\) float64",
    ),
    "loss": (
        {"loss": functools.partial(cross_entropy, label_smoothing=0.1)},
        r"its loss is \{'cross_entropy': \{\}\}, here .*'label_smoothing': 0.1",
    ),
    "optimizer": ({"optimizer": AdamW()}, r"its optimizer is SGD\(.*\), here AdamW"),
    "rate": (
        {"optimizer": SGD(0.2, momentum=0.8)},
        r"its optimizer has learning_rate=0.1 \(here 0.2\), momentum=0.9 \(here 0.8\)",
    ),
    "batch size": ({"batch_size": 7}, "its batch_size is 8, here 7"),
    "rng": ({"rng": 4}, "its rng is another one, such as of another seed"),
    "no rng": ({"rng": None}, "its rng is .*, here None"),
    "samples": ({"data": (X[1:], Y[1:])}, r"its data is x \(40, .*, here x \(39, "),
    "iterable": ({"data": [(X, Y)]}, "its data is x .*, here an iterable"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_run(name, tmp_path):
    changed, message = OTHERS[name]
    train((X, Y), checkpoint=tmp_path)
    content = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match=f"{FILE} is of another run: .*{message}"):
        train(**{"data": (X, Y), "checkpoint": tmp_path} | changed)
    assert (tmp_path / FILE).read_bytes() == content
    assert len(train((X, Y), epochs=3, checkpoint=tmp_path)[1]) == 3


def test_another_schedule(tmp_path):
    train(optimizer=SGD(cosine(0.1, steps=20)), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"run: its optimizer has steps=20 \(here 30\)$"):
        train(optimizer=SGD(cosine(0.1, steps=30)), checkpoint=tmp_path)
    train(optimizer=SGD(cosine(0.1, steps=20)), checkpoint=tmp_path, epochs=3)
    with pytest.raises(ValueError, match=r"has steps=20 \(here 10\); its epochs are 3, here 2$"):
        train(optimizer=SGD(cosine(0.1, steps=10)), checkpoint=tmp_path, epochs=2)
    with pytest.raises(ValueError, match=r"its optimizer has rate=0.1 \(here 0.2\), steps="):
        train(optimizer=SGD(cosine(0.2, steps=30)), checkpoint=tmp_path, epochs=4)


def test_more_epochs_go_on_with_the_schedule_of_a_longer_run(tmp_path):
    """The steps that are still to come have its rates; the file is then one of the longer run."""

    def schedule(epochs):
        return warmup(cosine(0.1, steps=5 * epochs), steps=epochs)

    def longer(epochs, **options):
        optimizer = AdamW(schedule(epochs))
        return train(optimizer=optimizer, epochs=epochs, checkpoint=tmp_path, **options)

    longer(2)
    with pytest.raises(RuntimeError, match="out of coffee"):
        longer(4, callbacks=[Recorder(fail=7)])
    found, history = longer(4)
    expected, at_once = train(
        optimizer=AdamW(lambda step: schedule(2 if step < 10 else 4)(step)), epochs=4
    )
    same(found, expected)
    assert history.column("learning_rate") == at_once.column("learning_rate")
    with pytest.raises(ValueError, match="its epochs are 4, here 3"):
        longer(3)


def test_another_schedule_of_a_function(tmp_path):
    """Of a function nothing is kept but what it said."""

    def rate(part):
        return lambda step: 0.1 * part**step

    train(optimizer=SGD(rate(0.9)), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"its learning rate at step 1 was 0\.09.*, here 0\.08"):
        train(optimizer=SGD(rate(0.8)), checkpoint=tmp_path)
    train(optimizer=SGD(rate(0.9)), checkpoint=tmp_path, epochs=3)


def test_addresses_in_memory_tell_no_runs_apart(tmp_path):
    assert repr(Plain(0.1)) != repr(Plain(0.1))
    train(optimizer=Plain(0.1), checkpoint=tmp_path)
    train(optimizer=Plain(0.1), checkpoint=tmp_path, epochs=3)
    with pytest.raises(ValueError, match=r"learning rate at step 0 was 0.1, here 0.2"):
        train(optimizer=Plain(0.2), checkpoint=tmp_path, epochs=3)


def test_a_state_that_no_file_holds(tmp_path):
    with pytest.raises(TypeError, match=r"nested dicts, arrays and numbers, got \[.*state:names"):
        train(optimizer=Odd(0.1), checkpoint=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "is no whole safetensors file"),
        (lambda whole: b"", "is no whole safetensors file"),
        (lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "is damaged"),
        (lambda whole: whole.replace(b'"ended', b'"ENDED'), "is (damaged|no whole)"),
        (lambda whole: whole.replace(b"version 1", b"version 9"), "version 1: it says .*version 9"),
    ],
    ids=["half", "empty", "number", "record", "version"],
)
def test_a_damaged_file_changes_nothing(damage, message, tmp_path):
    train(checkpoint=tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(damage(whole))
    assert (tmp_path / FILE).read_bytes() != whole
    rng, log = np.random.default_rng(SEED), Recorder()
    before = rng.bit_generator.state
    with pytest.raises(ValueError, match=message):
        train(rng=rng, checkpoint=tmp_path, callbacks=[log], epochs=3)
    assert rng.bit_generator.state == before
    assert log.log == []
    assert (tmp_path / FILE).read_bytes() == damage(whole)


def test_a_foreign_file(tmp_path):
    save_params(tmp_path / FILE, start())
    with pytest.raises(ValueError, match=r"is no checkpoint of agnostic_xent"):
        train(checkpoint=tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(checkpoint=tmp_path / "file")


def test_the_write_that_fails_leaves_the_last_epoch(tmp_path, monkeypatch):
    """Such as on a full disk."""
    expected, _ = train(epochs=3)
    train(epochs=1, checkpoint=tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", full)
        with pytest.raises(OSError, match=FILE):
            train(epochs=3, checkpoint=tmp_path)
    assert os.listdir(tmp_path) == [FILE]
    assert len(load_checkpoint(tmp_path)[1]) == 1
    same(train(epochs=3, checkpoint=tmp_path)[0], expected)


def test_fit_by_itself_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = SOFTMAX
    fit(model, start(model), images(), loss=cross_entropy, optimizer=SGD(0.1), epochs=1)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "record",
    [
        None, 1, "text", [], {}, {"params": ["nobody"]}, {"params": 1}, {"history": [{}]},
        {"history": [{"epoch": 1, "more": 2}]}, {"settings": 1}, {"rates": [[1]]}, {"rng": None},
    ],
)  # fmt: skip
def test_a_record_that_no_run_wrote(tmp_path, record):
    """Its checksum is right: somebody made it by hand."""
    whole = {"settings": {}, "rates": [], "params": [], "state": {}, "rng": {}, "history": []}
    if isinstance(record, dict) and record:
        record = whole | {"ended": False} | record
    save_record(tmp_path / FILE, KIND, record, {"params:w": np.ones(2)})
    for act in (lambda: load_checkpoint(tmp_path), lambda: train(checkpoint=tmp_path)):
        with pytest.raises(ValueError, match=f"{FILE} is damaged: its record is not one of fit"):
            act()
    assert os.listdir(tmp_path) == [FILE]
