"""The command line on data of one's own: what it trains on, and what is wrong with a file."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from cli_case import one_error_line

from agnostic_xent import cli

COLOURS = np.array(["red", "green", "blue"])


def images(samples=120, dtype="uint8"):
    """Return pictures of (3, 8, 8), each brightest in one channel, and that channel's name."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, samples)
    x = rng.integers(0, 100, (samples, 3, 8, 8))
    x[np.arange(samples), y] += 100
    return (x / 255 if dtype == "float32" else x).astype(dtype), COLOURS[y]


def rows(samples=120):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, samples)
    return rng.standard_normal((samples, 3)) + 2 * y[:, None], 10 * y


def parts(x, y):
    return {"train_x": x[:80], "train_y": y[:80], "test_x": x[80:], "test_y": y[80:]}


def saved(tmp_path, arrays, name="mine.npz"):
    np.savez(tmp_path / name, **arrays)
    return str(tmp_path / name)


def trained(*arguments):
    return cli.main(["train", *arguments, "--learning-rate", "0.1", "--epochs", "5"])


def test_images(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    x, y = images()
    file, out = saved(tmp_path, parts(x, y)), str(tmp_path / "run")
    assert trained("--data", file, "--out", out) == 0
    accuracy = capsys.readouterr().out
    assert float(accuracy.split()[-1]) > 0.9
    assert "cnn on mine, numpy" in (tmp_path / "run" / "report.html").read_text("utf-8")
    assert cli.main(["evaluate", out]) == 0
    assert capsys.readouterr().out.endswith(accuracy)
    assert cli.main(["predict", out, saved(tmp_path, {"x": x[80:]}, "new.npz")]) == 0
    header, *table = csv.reader(io.StringIO(capsys.readouterr().out))
    assert header[2:] == ["blue", "green", "red"]
    right = [row[1] == name for row, name in zip(table, y[80:], strict=True)]
    assert accuracy == f"test accuracy: {np.mean(right):.4f}\n"


def test_images_of_one_channel_and_of_fractions(tmp_path, capsys):
    _, y = images()
    gray = 200 * np.ones((120, 8, 8), np.uint8) * (y == "red")[:, None, None]
    outputs = []
    for arrays in (parts(gray, y == "red"), parts((gray / 255)[:, None], y == "red")):
        assert trained("--data", saved(tmp_path, arrays)) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == "test accuracy: 1.0000\n"


def test_rows_of_two_classes(tmp_path, capsys):
    assert trained("logistic", "--data", saved(tmp_path, parts(*rows()))) == 0
    assert float(capsys.readouterr().out.split()[-1]) > 0.9


GOOD = parts(*images())
BAD = {
    "it has no test_y": {name: GOOD[name] for name in ("train_x", "train_y", "test_x")},
    "train_x must have shape (N, C, H, W) or (N, H, W)": parts(*rows()),
    "samples of one shape": GOOD | {"test_x": GOOD["test_x"][:, :, :7]},
    "train_y must hold a label for each": GOOD | {"train_y": GOOD["train_y"][:-1]},
    "shape (40,), got (40, 2)": GOOD | {"test_y": np.stack([GOOD["test_y"]] * 2, axis=1)},
    "of one-hot labels, save y.argmax(axis=1)": GOOD | {"train_y": np.eye(3)[np.arange(80) % 3]},
    "test_x must hold a sample": GOOD | {n: GOOD[n][:0] for n in ("test_x", "test_y")},
    "at least 2 classes": GOOD | {"train_y": GOOD["train_x"][:, 0, 0, 0] * 0},
    "test_y must hold labels of the training, got 'violet'": GOOD
    | {"test_y": np.full(40, "violet")},
    "must be of numbers": GOOD | {"train_x": GOOD["train_x"].astype(str)},
}


@pytest.mark.parametrize("message", BAD)
def test_arrays_that_do_not_fit_are_an_error(tmp_path, capsys, message):
    file, out = saved(tmp_path, BAD[message]), tmp_path / "run"
    assert trained("--data", file, "--out", str(out)) == 2
    line = one_error_line(capsys)
    assert "argument --data" in line
    assert message in line
    assert list(out.iterdir()) == []


def test_logistic_takes_two_classes(tmp_path, capsys):
    x, _ = rows()
    file = saved(tmp_path, parts(x, np.arange(120) % 3))
    assert trained("logistic", "--data", file) == 2
    assert "train_y must hold 2 classes for logistic" in one_error_line(capsys)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04", b"text", "npy", "pickle"])
def test_a_file_that_is_none_is_an_error(tmp_path, capsys, content):
    file = tmp_path / "mine.npz"
    if content == "npy":
        np.save(tmp_path / "mine.npy", np.ones(3))
        (tmp_path / "mine.npy").rename(file)
    elif content == "pickle":
        np.savez(file, **GOOD | {"train_y": np.array([{}] * 80)})
    elif content is not None:
        file.write_bytes(content)
    assert trained("--data", str(file)) == 2
    assert f"argument --data: {file}: " in one_error_line(capsys)
