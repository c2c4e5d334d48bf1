"""Small data for the command line, and what its errors look like."""

from __future__ import annotations

import numpy as np
import pytest

from agnostic_xent import cli
from agnostic_xent.datasets import Dataset


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


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setattr(cli.recipes, "load_fashion_mnist", toy_images)
    monkeypatch.setattr(cli.recipes, "load_digits", lambda: toy_images("digits"))
    monkeypatch.setattr(cli.recipes, "load_spambase", toy_table)


def one_error_line(capsys):
    """Return the only line on standard error, without its start."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("agnostic-xent: error: ")
    return err.removeprefix("agnostic-xent: error: ").rstrip("\n")
