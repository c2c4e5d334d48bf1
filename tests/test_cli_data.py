"""The command line on data of one's own: what it trains on, and what is wrong with a file."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from cli_case import no_report as no_report
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
        assert cli.main(["train", "--data", saved(tmp_path, arrays), "--epochs", "20"]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] == "test accuracy: 1.0000\n"


def test_a_model_finds_its_data_from_every_folder(no_report, tmp_path, capsys, monkeypatch):
    """Also a file whose name is no UTF-8; a known name stays one beside a folder of that name."""
    pytest.importorskip("sklearn")
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    saved(tmp_path, parts(*rows()), "\udce9.npz")
    assert trained("logistic", "--data", "\udce9.npz", "--out", "run") == 0
    accuracy = capsys.readouterr().out
    monkeypatch.chdir(tmp_path / "digits")
    assert cli.main(["evaluate", "../run"]) == 0
    assert capsys.readouterr().out.endswith(accuracy)
    monkeypatch.chdir(tmp_path)
    assert cli.data.lasting_name("cnn", "digits") == "digits"
    assert len(cli.data.load("cnn", "digits")[0].classes) == 10


def test_rows_of_two_classes(tmp_path, capsys):
    assert trained("logistic", "--data", saved(tmp_path, parts(*rows()))) == 0
    assert float(capsys.readouterr().out.split()[-1]) > 0.9


LABELS = {
    "column": lambda y: y[:, None],
    "floats": lambda y: y.astype(float),
    "bytes": lambda y: y.astype("S"),
    "texts": lambda y: y.astype(str),
    "truth values": lambda y: y > 0,
    "dates": lambda y: y.astype("M8[D]"),
    "big-endian": lambda y: y.astype(">u8"),
    "signs": lambda y: 2 * y // 10 - 1,
}
"""Ways to write the labels 0 and 10."""


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("keys", ["{part}_{array}", "{array}_{part}", "{big}_{part}"])
def test_labels_of_any_type_under_the_names_that_others_use(tmp_path, kind, keys):
    x, y = rows()
    expected, _ = cli.data.load("logistic", saved(tmp_path, parts(x, y), "plain.npz"))
    assert expected.classes == ("0", "10")
    arrays = {}
    for name, array in parts(x, LABELS[kind](y)).items():
        part, letter = name.split("_")
        big = letter.upper() if letter == "x" else letter
        arrays[keys.format(part=part, array=letter, big=big)] = array
    found, _ = cli.data.load("logistic", saved(tmp_path, arrays))
    if kind in ("column", "floats", "bytes", "texts", "big-endian"):
        assert found.classes == expected.classes
    for part in ("train_x", "train_y", "test_x", "test_y"):
        assert np.array_equal(getattr(found, part), getattr(expected, part))


@pytest.mark.parametrize("kind", ["floats", "texts", "bytes"])
def test_labels_of_the_test_part_may_be_of_another_type(tmp_path, kind):
    arrays = parts(*rows())
    expected, _ = cli.data.load("logistic", saved(tmp_path, arrays))
    arrays["test_y"] = LABELS[kind](arrays["test_y"])
    found, _ = cli.data.load("logistic", saved(tmp_path, arrays))
    assert np.array_equal(found.test_y, expected.test_y)


def test_evaluate_goes_by_the_names_of_classes(no_report, tmp_path, capsys):
    x, y = images()
    file, out = saved(tmp_path, parts(x, y)), str(tmp_path / "run")
    assert trained("--data", file, "--out", out) == 0
    assert cli.main(["evaluate", out]) == 0
    expected = capsys.readouterr().out.splitlines()[-2:]
    reds = y[80:] == "red"
    scores = []
    for which in (reds, ~reds):  # neither part has all classes, nor their indices
        part = {"test_x": x[80:][which], "test_y": y[80:][which]}
        assert cli.main(["evaluate", out, "--data", saved(tmp_path, part, "part.npz")]) == 0
        scores.append(float(capsys.readouterr().out.split()[-1]))
    mean = np.average(scores, weights=[reds.sum(), (~reds).sum()])
    assert expected[-1] == f"test accuracy: {mean:.4f}"
    part = {"test_x": x[80:], "test_y": np.full(40, "violet")}
    assert cli.main(["evaluate", out, "--data", saved(tmp_path, part, "part.npz")]) == 2
    assert "'green', 'red'; got 'violet'" in one_error_line(capsys)
    part = {"test_x": x[80:, :, :7], "test_y": y[80:]}
    assert cli.main(["evaluate", out, "--data", saved(tmp_path, part, "part.npz")]) == 2
    assert "test_x must hold samples of shape (3, 8, 8)" in one_error_line(capsys)


GOOD = parts(*images())
BAD = {
    "test_y has no label for sample 3: nan": GOOD
    | {"train_y": np.arange(80) % 2, "test_y": np.where(np.arange(40) == 3, np.nan, 1)},
    "got fractions such as 0.5": GOOD | {"train_y": np.arange(80) / 2},
    "got shape (0, 3, 8, 8)": GOOD | {n: GOOD[n][:0] for n in ("train_x", "train_y")},
    "when allow_pickle=False: save texts as x.astype(str), and": GOOD
    | {"train_y": GOOD["train_y"].astype(object)},
    "must hold integers or texts": GOOD | {"train_y": np.arange(80) * 1j},
    "it has no test_y (or y_test)": {name: GOOD[name] for name in ("train_x", "train_y", "test_x")},
    "train_x must have shape (N, C, H, W), (N, H, W) or (N, C, D, H, W), got": parts(*rows()),
    "samples of one shape": GOOD | {"test_x": GOOD["test_x"][:, :, :7]},
    "train_y must hold a label for each": GOOD | {"train_y": GOOD["train_y"][:-1]},
    "shape (40,), or rows of a 1 and zeros, got (40, 2)": GOOD
    | {"test_y": np.stack([GOOD["test_y"]] * 2, axis=1)},
    "test_x must hold a sample": GOOD | {n: GOOD[n][:0] for n in ("test_x", "test_y")},
    "at least 2 classes": GOOD | {"train_y": GOOD["train_x"][:, 0, 0, 0] * 0},
    "'green', 'red'; got 'violet'": GOOD | {"test_y": np.full(40, "violet")},
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


def test_logistic_takes_more_than_two_classes(no_report, tmp_path, capsys):
    """One of its classes is learnt by no line through two of them."""
    y = np.arange(120) % 3
    x = np.random.default_rng(0).standard_normal((120, 2)) + 5 * np.eye(3)[y][:, :2]
    file, out = saved(tmp_path, parts(x, y)), str(tmp_path / "run")
    assert trained("logistic", "--data", file, "--out", out) == 0
    accuracy = capsys.readouterr().out
    assert float(accuracy.split()[-1]) > 0.9
    assert cli.main(["evaluate", out]) == 0
    assert capsys.readouterr().out.endswith(accuracy)
    assert cli.main(["predict", out, saved(tmp_path, {"x": x[80:]}, "new.npz")]) == 0
    _, *table = csv.reader(io.StringIO(capsys.readouterr().out))
    assert accuracy == f"test accuracy: {np.mean([int(row[1]) for row in table] == y[80:]):.4f}\n"


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
