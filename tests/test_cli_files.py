"""The command line on folders of pictures, tables and arrays: from files to predictions."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from cli_case import no_report as no_report
from cli_case import one_error_line, without_progress

from agnostic_xent import cli

COLOURS = {"red": (220, 40, 30), "green": (50, 200, 60), "blue": (30, 60, 210)}


def photo(name, rng, size=None):
    """Return a noisy picture of a colour, of any size and shape."""
    image = pytest.importorskip("PIL.Image")
    width, height = rng.integers(40, 90, 2) if size is None else size
    x = np.asarray(COLOURS[name]) + rng.normal(0, 30, (height, width, 3))
    return image.fromarray(np.clip(x, 0, 255).astype(np.uint8))


def photos(folder, count=20, suffixes=("jpg", "png", "webp")):
    """Write a folder of pictures for each colour, some of them in a folder of its own."""
    rng = np.random.default_rng(0)
    for name in COLOURS:
        for i in range(count):
            where = folder / name / "more" if i % 5 == 0 else folder / name
            where.mkdir(parents=True, exist_ok=True)
            photo(name, rng).save(where / f"{i}.{suffixes[i % len(suffixes)]}")
    return folder


def run(*arguments, capsys):
    """Return what a command prints, and the lines on standard error that are no epochs."""
    assert cli.main([*map(str, arguments)]) == 0
    out, err = capsys.readouterr()
    return out, without_progress(err)


def table_of(text):
    _, *rows = csv.reader(io.StringIO(text))
    return rows


# --- pictures ------------------------------------------------------------------------------------


def test_a_folder_of_photos(no_report, tmp_path, capsys):
    folder, out = photos(tmp_path / "photos"), tmp_path / "run"
    command = ("train", "--data", folder, "--epochs", 6, "--batch-size", 16, "--out", out)
    accuracy, [line] = run(*command, capsys=capsys)
    assert float(accuracy.split()[-1]) > 0.9
    assert line.startswith("photos: 48 samples to train on and 12 to test on; 3 classes: blue, gre")
    settings = json.loads((out / "run.json").read_text())
    side = settings["input_shape"][1]
    assert f"pictures resized and cropped to {side} x {side}, in colour" in line
    assert settings["resized"] is True
    assert run("evaluate", out, capsys=capsys)[0].endswith(accuracy)
    for again in (folder, f"{folder}/../photos"):  # however the path is written
        assert run("evaluate", out, "--data", again, capsys=capsys)[0]


@pytest.mark.parametrize("suffix", ["jpg", "tif", "ppm", "gif", "bmp"])
def test_one_photo_a_folder_and_a_tree_are_predicted(no_report, tmp_path, capsys, suffix):
    folder, out = photos(tmp_path / "photos"), tmp_path / "run"
    command = ("train", "--data", folder, "--epochs", 6, "--batch-size", 16, "--out", out)
    run(*command, capsys=capsys)
    tree = photos(tmp_path / "tree", 6, (suffix,))
    (tree / "red" / ".hidden").mkdir()
    (tree / "red" / ".hidden" / "a.png").write_bytes(b"no picture")
    (tree / "notes.txt").write_text("no picture")
    rows = table_of(run("predict", out, tree, capsys=capsys)[0])
    assert [row[0] for row in rows] == sorted(
        f"{c}/{'more/' if i % 5 == 0 else ''}{i}.{suffix}" for c in COLOURS for i in range(6)
    )
    assert np.mean([row[0].split("/")[0] == row[1] for row in rows]) > 0.9
    below = table_of(run("predict", out, tree / "red", capsys=capsys)[0])
    reds = [row for row in rows if row[0].startswith("red")]
    assert [row[:2] for row in below] == [[row[0].removeprefix("red/"), row[1]] for row in reds]
    (one,) = table_of(run("predict", out, tree / "red" / f"3.{suffix}", capsys=capsys)[0])
    expected = next(row for row in rows if row[0] == f"red/3.{suffix}")
    assert one[:2] == [f"3.{suffix}", expected[1]]
    np.testing.assert_allclose(
        [*map(float, one[2:])], [*map(float, expected[2:])], rtol=1e-4, atol=1e-30
    )
    assert (
        run("evaluate", out, "--data", tree, capsys=capsys)[0]
        .splitlines()[-1]
        .startswith("test accuracy: ")
    )


def test_a_folder_for_training_and_one_for_testing(no_report, tmp_path, capsys):
    photos(tmp_path / "all" / "Train", 8)
    photos(tmp_path / "all" / "val", 3)
    out = tmp_path / "run"
    command = ("train", "--data", tmp_path / "all", "--epochs", 1, "--out", out)
    accuracy, [line] = run(*command, capsys=capsys)
    assert "all: 24 samples to train on and 9 to test on" in line
    assert run("evaluate", out, capsys=capsys)[0].endswith(accuracy)
    assert run("evaluate", out, "--data", tmp_path / "all" / "val", capsys=capsys)[0].endswith(
        accuracy
    )


def test_classes_of_a_folder_are_those_of_the_training(no_report, tmp_path, capsys):
    out = tmp_path / "run"
    run("train", "--data", photos(tmp_path / "a", 4), "--epochs", 1, "--out", out, capsys=capsys)
    (photos(tmp_path / "b", 4) / "blue").rename(tmp_path / "b" / "violet")
    assert cli.main(["evaluate", str(out), "--data", str(tmp_path / "b")]) == 2
    assert "got 'violet'" in one_error_line(capsys)


@pytest.mark.parametrize("content", ["none", "one class", "no folders", "broken"])
def test_a_folder_without_classes_is_an_error(tmp_path, capsys, content):
    folder = tmp_path / "photos"
    folder.mkdir()
    if content != "none":
        photos(folder, 4)
    if content == "one class":
        for name in ("red", "green"):
            (folder / name).rename(tmp_path / name)
    if content == "no folders":
        for name in COLOURS:
            (folder / name).rename(tmp_path / name)
        photo("red", np.random.default_rng(0)).save(folder / "a.png")
    if content == "broken":
        (folder / "red" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert cli.main(["train", "--data", str(folder)]) == 2
    line = one_error_line(capsys)
    assert line.startswith(f"argument --data: {folder}")
    parts = {"one class": "2 classes", "broken": "red/1.png: "}
    assert parts.get(content, "a folder of pictures for each class") in line


# --- tables --------------------------------------------------------------------------------------


def mail(count=300, seed=0):
    """Return columns of a table whose label depends on a number and a category."""
    rng = np.random.default_rng(seed)
    length, kind = rng.normal(1000, 300, count), rng.choice(["ad", "list", "letter"], count)
    spam = (length - 1000) / 300 + 2 * (kind == "ad") - (kind == "letter") > 0.5
    return {
        "id": [f"m{i}" for i in range(count)],
        "length": length,
        "kind": kind,
        "spam": np.where(spam, "yes", "no"),
    }


def write_table(path, columns, delimiter=","):
    rows = zip(*columns.values(), strict=True)
    text = "\n".join(delimiter.join(map(str, row)) for row in [columns.keys(), *rows])
    path.write_text(text + "\n")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_a_table(no_report, tmp_path, capsys, delimiter):
    pytest.importorskip("pandas")
    columns, out = mail(), tmp_path / "run"
    columns["length"] = [*columns["length"][:-2], "", ""]
    file = write_table(tmp_path / "mail.csv", columns, delimiter)
    command = ("train", "logistic", "--data", file, "--label", "spam", "--out", out)
    accuracy, [line] = run(*command, capsys=capsys)
    assert float(accuracy.split()[-1]) > 0.9
    assert "2 classes: no, yes; 1 columns of numbers, standardised; 1 of categories, one-h" in line
    assert line.endswith("'id' left out: it has 240 different texts")
    assert run("evaluate", out, capsys=capsys)[0].endswith(accuracy)
    new = mail(50, seed=1)
    spam = new.pop("spam")
    new = dict(reversed(new.items()))  # columns go by name
    rows = table_of(run("predict", out, write_table(tmp_path / "n.csv", new), capsys=capsys)[0])
    found = np.mean([row[1] for row in rows] == spam)
    assert found > 0.85
    labelled = write_table(tmp_path / "l.csv", new | {"spam": spam})
    text = run("evaluate", out, "--data", labelled, capsys=capsys)[0]
    assert text.endswith(f"test accuracy: {found:.4f}\n")
    del new["kind"]
    assert cli.main(["predict", str(out), str(write_table(tmp_path / "n.csv", new))]) == 2
    assert "n.csv: it has no column 'kind'" in one_error_line(capsys)


def test_the_column_of_labels(tmp_path, capsys):
    pytest.importorskip("pandas")
    columns = mail(60)
    file = str(write_table(tmp_path / "t.csv", columns))
    assert cli.main(["train", "logistic", "--data", file]) == 2
    assert "t.csv: name the column of its labels by --label: one of 'id', 'l" in one_error_line(
        capsys
    )
    assert cli.main(["train", "logistic", "--data", file, "--label", "ham"]) == 2
    assert "it has no column 'ham' of labels, but 'id'," in one_error_line(capsys)
    assert cli.main(["train", "--data", file, "--label", "spam"]) == 2
    assert "is a table: `train logistic` takes tables" in one_error_line(capsys)
    columns["Target"] = columns.pop("spam")
    write_table(tmp_path / "t.csv", columns)
    assert cli.main(["train", "logistic", "--data", file, "--epochs", "1"]) == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"numbers": {"length": [0.0, 0.0]}},
        {"numbers": {"length": [0.0]}},
        {"numbers": {"length": [None, 1.0]}},
        {"categories": {"kind": [1, 2, 3]}},
        {"categories": {"kind": ["ad"]}},  # fewer than input_shape says
        {"other": 1},
        [],
    ],
)
def test_damaged_columns_are_an_error(no_report, tmp_path, capsys, damage):
    pytest.importorskip("pandas")
    file, out = write_table(tmp_path / "t.csv", mail(60)), tmp_path / "run"
    command = ("train", "logistic", "--data", file, "--label", "spam", "--epochs", 1, "--out", out)
    run(*command, capsys=capsys)
    values = json.loads((out / "run.json").read_text())
    values["columns"] = values["columns"] | damage if damage else damage
    (out / "run.json").write_text(json.dumps(values))
    assert cli.main(["predict", str(out), str(file)]) == 2
    assert one_error_line(capsys).startswith(f"argument DIR: {out / 'run.json'}: ")


# --- arrays --------------------------------------------------------------------------------------


def rows(samples=120):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, samples)
    return rng.standard_normal((samples, 3)) + 2 * y[:, None], y


NAMES = {
    "torch": ("train_images", "train_labels", "test_images", "test_labels"),
    "keras": ("x_train", "y_train", "x_test", "y_test"),
    "scikit-learn": ("X_train", "y_train", "X_test", "y_test"),
    "medmnist": ("train_images", "train_labels", "val_images", "val_labels"),
    "long": ("training_data", "training_targets", "testing_data", "testing_targets"),
}


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
def test_arrays_under_the_names_of_others(tmp_path, kind, folder, one_hot):
    x, y = rows()
    labels = np.eye(2, dtype=np.float32)[y] if one_hot else y
    arrays = (x[:80], labels[:80], x[80:], labels[80:])
    named = dict(zip(NAMES[kind], arrays, strict=True))
    path = tmp_path / ("mine" if folder else "mine.npz")
    if folder:
        path.mkdir()
        for name, array in named.items():
            np.save(path / f"{name}.npy", array)
    else:
        np.savez(path, **named)
    data, _ = cli.data.load("logistic", str(path))
    assert data.classes == ("0", "1")
    assert np.array_equal(data.train_y, y[:80])
    assert np.array_equal(data.test_x, x[80:].astype(np.float32))


@pytest.mark.parametrize(
    "names", [("x", "y"), ("X", "y"), ("data", "target"), ("images", "labels")]
)
def test_a_fifth_of_arrays_without_a_test_part_is_held_out(no_report, tmp_path, capsys, names):
    x, y = rows()
    file, out = tmp_path / "mine.npz", tmp_path / "run"
    np.savez(file, **dict(zip(names, (x, y), strict=True)))
    command = ("train", "logistic", "--data", file, "--epochs", 2, "--out", out)
    accuracy, [line] = run(*command, capsys=capsys)
    assert "mine: 96 samples to train on and 24 to test on" in line
    data, _ = cli.data.load("logistic", str(file))
    seen = {row.tobytes() for row in data.train_x} | {row.tobytes() for row in data.test_x}
    assert seen == {row.tobytes() for row in x.astype(np.float32)}
    assert run("evaluate", out, capsys=capsys)[0].endswith(accuracy)
    np.savez(tmp_path / "new.npz", **dict(zip(names, (x[:7], y[:7]), strict=True)))
    assert run("evaluate", out, "--data", tmp_path / "new.npz", capsys=capsys)[0]
