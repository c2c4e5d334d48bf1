"""Runs that are interrupted and go on: the same bits, on every library."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from training_case import CNN, Recorder, each_home, images, same, start, train

from agnostic_xent import (
    SGD,
    AdamW,
    Callback,
    ClipByNorm,
    EarlyStopping,
    JsonLines,
    KeepBest,
    binary_cross_entropy_with_logits,
    cli,
    cosine,
    load_checkpoint,
    load_params,
    logistic,
    step_decay,
)
from agnostic_xent.core.conversion import to_numpy
from agnostic_xent.training.runs import FILE

OPTIMIZERS = {
    "sgd": SGD(0.1),
    "momentum": SGD(step_decay(0.1, every=7), momentum=0.9, weight_decay=0.01),
    "adamw": AdamW(cosine(0.01, steps=30)),
    "clipped": ClipByNorm(SGD(0.1, momentum=0.9), norm=0.25),
}


def results(history):
    """Return what of a history does not depend on the time that it took."""
    return [
        (e.epoch, e.loss, e.accuracy, e.learning_rate, e.validation_loss, e.validation_accuracy)
        for e in history
    ]


# --- the same bits -------------------------------------------------------------------------------


@each_home
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_interrupted_run_ends_as_one_that_was_not(home, optimizer, tmp_path):
    """Interrupted in the middle of epochs and at their ends, with dropout and statistics."""
    data = tuple(home.array(a) for a in images())
    own = {k: home.array(v) for k, v in start(CNN).items()}
    options = {"model": CNN, "params": own, "optimizer": OPTIMIZERS[optimizer]}
    expected, history = train(data, epochs=5, validation=data, **options)
    options |= {"checkpoint": tmp_path / "new" / "folder", "validation": data}
    for step in (3, 12, 4):
        with pytest.raises(RuntimeError, match="out of coffee"):
            train(data, epochs=5, callbacks=[Recorder(fail=step)], **options)
    _, part = train(data, epochs=3, **options)
    assert len(part) == 3
    found, again = train(data, epochs=5, **options)
    for name, w in found.items():
        home.check(w, str(to_numpy(own[name]).dtype))
    same(found, expected)
    assert results(again) == results(history)
    assert again[:3] == part  # their seconds too
    assert os.listdir(tmp_path / "new" / "folder") == [FILE]


def test_steps_of_a_kernel(tmp_path):
    x = np.random.default_rng(0).standard_normal((50, 4))
    task = {
        "model": logistic(),
        "params": {"0.weight": np.zeros((1, 4)), "0.bias": np.zeros(1)},
        "loss": binary_cross_entropy_with_logits,
        "optimizer": SGD(cosine(0.3, steps=200)),
        "batch_size": 1,
    }
    data = x, (x[:, :1] > 0) * 1.0
    expected, _ = train(data, epochs=4, **task)
    train(data, epochs=2, checkpoint=tmp_path, **task)
    same(train(data, epochs=4, checkpoint=tmp_path, **task)[0], expected)


@pytest.mark.parametrize(
    "bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64]
)
def test_every_kind_of_random_numbers(bits, tmp_path):
    options = {"model": CNN, "optimizer": SGD(0.1)}
    expected, _ = train(epochs=3, rng=np.random.Generator(bits(4)), **options)
    train(epochs=1, rng=np.random.Generator(bits(4)), checkpoint=tmp_path, **options)
    rng = np.random.Generator(bits(4))
    same(train(epochs=3, rng=rng, checkpoint=tmp_path, **options)[0], expected)
    whole = np.random.Generator(bits(4))
    train(epochs=3, rng=whole, **options)
    assert rng.random() == whole.random()  # the caller's own generator goes on likewise


def test_random_numbers_that_nobody_chose(tmp_path):
    """They are those of the file, from the first step on."""
    with pytest.raises(RuntimeError, match="out of coffee"):
        train(rng=None, callbacks=[Recorder(fail=1)], checkpoint=tmp_path)
    content = (tmp_path / FILE).read_bytes()
    found, _ = train(rng=None, checkpoint=tmp_path)
    (tmp_path / FILE).write_bytes(content)
    same(train(rng=None, checkpoint=tmp_path)[0], found)


def test_parameters_in_fortran_order(tmp_path):
    """All runs with a checkpoint start from what the file gives."""
    params = {name: np.asfortranarray(w) for name, w in start(CNN).items()}
    options = {"model": CNN, "params": params, "optimizer": AdamW()}
    expected, _ = train(epochs=3, checkpoint=tmp_path / "whole", **options)
    train(epochs=1, checkpoint=tmp_path / "parts", **options)
    same(train(epochs=3, checkpoint=tmp_path / "parts", **options)[0], expected)


def test_on_another_library(tmp_path):
    torch = pytest.importorskip("torch")
    x, y = images()
    train((x, y), epochs=1, checkpoint=tmp_path)
    params = {name: torch.asarray(w.copy()) for name, w in start().items()}
    data = torch.asarray(x), torch.asarray(y)
    found, history = train(data, params=params, epochs=2, checkpoint=tmp_path)
    assert len(history) == 2
    assert all(isinstance(w, torch.Tensor) for w in found.values())


# --- how a run ends, and what its callbacks see --------------------------------------------------


def test_a_run_that_has_ended_is_returned(tmp_path):
    expected, history = train(epochs=3, checkpoint=tmp_path)
    log = Recorder()
    found, again = train(epochs=3, checkpoint=tmp_path, callbacks=[log])
    same(found, expected)
    assert again == history
    assert [entry[1] for entry in log.log] == ["start", "end"]
    with pytest.raises(ValueError, match=r"epochs must be at least the 3 that .* got 2"):
        train(epochs=2, checkpoint=tmp_path)


def test_what_a_callback_has_ended_stays_ended(tmp_path):
    expected, _ = train(epochs=9, checkpoint=tmp_path, callbacks=[Recorder(stop=2)])
    found, history = train(epochs=9, checkpoint=tmp_path)
    same(found, expected)
    assert len(history) == 2


def test_callbacks_go_on_too(tmp_path):
    """Early stopping counts, the best is kept, and the log is whole, as without interruption."""

    def callbacks(folder):
        folder.mkdir(exist_ok=True)
        return [
            KeepBest(folder / "best"),
            EarlyStopping(6),
            JsonLines(folder / "log"),
        ]

    x, y = images()
    y[::3] = np.random.default_rng(5).integers(0, 3, len(y[::3]))
    options = {"optimizer": SGD(0.3, momentum=0.1), "epochs": 60, "validation": (x[20:], y[20:])}
    data, seen = (x[:20], y[:20]), []

    class Spy(Callback):
        def on_resume(self, history, params):
            seen.append(len(history))

    _, expected = train(data, callbacks=callbacks(tmp_path / "whole"), **options)
    options |= {"checkpoint": tmp_path / "run"}
    for step in (4, 8, 5):  # of 3 an epoch
        parts = [*callbacks(tmp_path / "parts"), Spy(), Recorder(fail=step)]
        with pytest.raises(RuntimeError, match="out of coffee"):
            train(data, callbacks=parts, **options)
    _, history = train(data, callbacks=[*callbacks(tmp_path / "parts"), Spy()], **options)
    assert seen == [1, 3, 4]
    assert results(history) == results(expected)
    assert 5 < len(history) < 60
    same(load_params(tmp_path / "parts" / "best"), load_params(tmp_path / "whole" / "best"))
    lines = (tmp_path / "parts" / "log").read_text().splitlines()
    assert lines == [epoch.to_json() for epoch in history]


def test_the_command_line_goes_on(tmp_path, monkeypatch, capsys):
    """Also with the files of ``--out``, into a new folder too."""
    command = ["train", "logistic", "--epochs", "3", "--out"]
    assert cli.main([*command, str(tmp_path / "whole")]) == 0
    expected = capsys.readouterr().out
    parts = [*command, str(tmp_path / "parts"), "--checkpoint", str(tmp_path / "run")]

    class Interrupted(cli.train.Progress):
        def on_epoch(self, epoch, params):
            if epoch.epoch == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cli.train, "Progress", Interrupted)
        assert cli.main(parts) == 130
    for out in ("parts", "new"):
        parts[5] = str(tmp_path / out)
        assert cli.main(parts) == 0
        assert capsys.readouterr().out == expected
        same(*(load_params(tmp_path / name / "model.safetensors") for name in (out, "whole")))
        assert len(json.loads((tmp_path / out / "history.json").read_text())) == 3
    assert cli.main([*parts, "--batch-size", "2"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is of another run: its optimizer has steps=" in error
    assert "; its batch_size is 1, here 2" in error
    for name, value in (("--learning-rate", "0.5"), ("--seed", "9")):
        assert cli.main([*parts, name, value]) == 2
        error = capsys.readouterr().err
        assert ("has rate=0.02 (here 0.5)" if value == "0.5" else "of another seed") in error
    parts[3] = "4"
    assert cli.main(parts) == 0
    history = json.loads((tmp_path / "new" / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3, 4]


def test_load_checkpoint(tmp_path):
    found, history = train(epochs=2, checkpoint=tmp_path, optimizer=AdamW())
    params, again = load_checkpoint(str(tmp_path))
    same(params, found)
    assert again == history
