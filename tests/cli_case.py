"""Small data for the command line, and what its errors look like."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import cli
from agnostic_xent.datasets import Dataset
from agnostic_xent.evaluation.folder import Save, Settings
from agnostic_xent.training.history import Epoch


def toy_images(which="embedded", *, folder=None):
    """Two classes that differ in brightness; the name tells what was asked for."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = (rng.random((120, 1, 8, 8)) * 0.2 + y[:, None, None, None] * 0.7).astype(np.float32)
    return Dataset(x[:80], y[:80], x[80:], y[80:], classes=("dark", "light"), name=f"{which}")


def toy_table():
    rng = np.random.default_rng(0)
    y = np.arange(120) % 2
    x = (rng.standard_normal((120, 3)) + 3 * y[:, None]).astype(np.float32)
    return Dataset(x[:80], y[:80], x[80:], y[80:], classes=("ham", "spam"), name="table")


def toy_signals():
    """Windows of 20 recordings of two classes, slow and fast waves, of which 5 are held out."""
    rng = np.random.default_rng(0)
    recording = np.repeat(np.arange(20), 4)  # (80,)
    phase = (
        rng.random((80, 2, 1)) * 6 + np.arange(24) * (0.3 + 0.6 * (recording % 2))[:, None, None]
    )
    x = (np.sin(phase) + 0.2 * rng.standard_normal((80, 2, 24))).astype(np.float32)
    y, test = recording % 2, recording >= 15
    return Dataset(
        x[~test],
        y[~test],
        x[test],
        y[test],
        classes=("slow", "fast"),
        name="signals",
        test_recording=recording[test],
        test_person=np.where(recording[test] < 17, "Ann", "Bob"),
    )


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(cli.data.LOADERS, ("signals", "watch"), toy_signals)
    monkeypatch.setattr(cli.data, "load_fashion_mnist", toy_images)
    monkeypatch.setattr(cli.data, "load_digits", lambda: toy_images("digits"))
    monkeypatch.setattr(cli.data, "load_spambase", toy_table)


def keep_model(folder, model="cnn", shape=(1, 8, 8), classes=("dark", "light"), scale=None):
    """Write the folder of a model that has learned nothing; return it."""
    folder.mkdir()
    settings = Settings(
        model=model,
        data="embedded" if model == "cnn" else "spambase",
        backend="numpy",
        epochs=1,
        batch_size=64,
        learning_rate=0.05,
        seed=0,
        classes=classes,
        input_shape=shape,
        scale=scale,
    )
    params = settings.network().init(0, shape)[0]
    Save(folder, settings).on_epoch(Epoch(1, 0.6, 0.7, 0.05, 1.0, 80.0, 0.5, 0.8), params)
    return folder


@pytest.fixture
def no_report(monkeypatch):
    """Leave out the report, which takes a second to draw."""
    for command in (cli.train, cli.evaluate):
        monkeypatch.setattr(command, "write_report", lambda *arguments: None)


def without_progress(err):
    """Return the lines on standard error that are neither epochs nor of compiling kernels."""
    return [line for line in err.splitlines() if not line.startswith(("epoch ", "compiling "))]


def one_error_line(capsys):
    """Return the only line on standard error, without its start."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("agnostic-xent: error: ")
    return err.removeprefix("agnostic-xent: error: ").rstrip("\n")
