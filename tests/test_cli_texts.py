"""The command line on texts: in a column of a table, and in files in a folder for each class."""

from __future__ import annotations

import csv
import io
import json
import sys

import numpy as np
import pytest
from cli_case import no_report as no_report
from cli_case import one_error_line

from agnostic_xent import cli, load_params
from agnostic_xent.core.sparse import LIBRARIES
from agnostic_xent.datasets.words import Words

pytest.importorskip("sklearn")
pandas = pytest.importorskip("pandas")


WORDS = {
    "ham": ["lunch", "meeting", "report", "noon", "tea"],
    "spam": ["pills", "cheap", "offer", "win", "now"],
    "news": ["election", "weather", "score", "market", "film"],
}
COMMON = ["the", "a", "of", "and", "to", "in", "is", "it", "you", "that"]


def drawn(samples=150, classes=2, seed=0):
    """Return texts of which most words are common to all, and their classes."""
    rng = np.random.default_rng(seed)
    labels = np.asarray(list(WORDS)[:classes])[rng.integers(0, classes, samples)]
    texts = [
        " ".join([*rng.choice(COMMON, 8), *rng.choice(WORDS[label], 3), f"only{i}"])
        for i, label in enumerate(labels)
    ]
    return texts, labels


def table(tmp_path, name="mails.csv", **options):
    texts, labels = drawn(**options)
    file = tmp_path / name
    frame = pandas.DataFrame({"body": texts, "kind": labels, "length": [len(t) for t in texts]})
    frame.to_csv(file, index=False)
    return file, texts, labels


def folders(tmp_path, name="mails", **options):
    texts, labels = drawn(**options)
    for i, (text, label) in enumerate(zip(texts, labels, strict=True)):
        folder = tmp_path / name / label
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(text)
    return tmp_path / name, texts, labels


def predicted(capsys, *arguments):
    assert cli.main(["predict", *map(str, arguments)]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    return header, rows


@pytest.mark.parametrize("classes", [2, 3])
def test_a_column_of_texts(no_report, tmp_path, capsys, classes):
    file, _, labels = table(tmp_path, classes=classes)
    out = tmp_path / "run"
    train = ["train", "logistic", "--data", str(file), "--text", "body", "--label", "kind"]
    assert cli.main([*train, "--out", str(out)]) == 0
    accuracy, said = capsys.readouterr()
    assert "texts of column 'body', rows of" in said
    assert float(accuracy.split()[-1]) > 0.9
    assert cli.main(["evaluate", str(out)]) == 0
    assert capsys.readouterr().out.endswith(accuracy)
    header, rows = predicted(capsys, out, file)
    assert header == ["sample", "class", *sorted(set(labels))]
    assert np.mean([row[1] == label for row, label in zip(rows, labels, strict=True)]) > 0.9
    words = json.loads((out / "words.json").read_text())
    assert {"pills", "the"} <= words.keys()
    assert not [word for word in words if word.startswith("only")]  # in one text alone
    assert json.loads((out / "run.json").read_text())["columns"] == {
        "text": "body",
        "label": "kind",
    }


def test_a_folder_of_texts_for_each_class(no_report, tmp_path, capsys):
    folder, _, _ = folders(tmp_path, classes=3)
    out = tmp_path / "run"
    assert cli.main(["train", "logistic", "--data", str(folder), "--out", str(out)]) == 0
    accuracy = capsys.readouterr().out
    assert float(accuracy.split()[-1]) > 0.9
    assert cli.main(["evaluate", str(out)]) == 0
    assert capsys.readouterr().out.endswith(accuracy)
    other, _, _ = folders(tmp_path, "later", seed=1)
    assert cli.main(["evaluate", str(out), "--data", str(other)]) == 0
    assert float(capsys.readouterr().out.split()[-1]) > 0.9
    _, rows = predicted(capsys, out, folder)
    assert all(name.split("/")[0] == label for name, label, *_ in rows)
    _, rows = predicted(capsys, out, folder / "spam" / rows[-1][0].split("/")[1])
    assert [row[:2] for row in rows] == [[rows[0][0], "spam"]]


def test_folders_of_the_parts(no_report, tmp_path, capsys):
    folders(tmp_path / "all", "train")
    folders(tmp_path / "all", "test", samples=30, seed=2)
    assert cli.main(["train", "logistic", "--data", str(tmp_path / "all")]) == 0
    assert "150 samples to train on and 30 to test on" in capsys.readouterr().err


def test_a_report(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    folder, _, _ = folders(tmp_path, samples=60)
    out = tmp_path / "run"
    train = ["train", "logistic", "--data", str(folder), "--epochs", "2"]
    assert cli.main([*train, "--out", str(out)]) == 0
    page = (out / "report.html").read_text("utf-8")
    assert "logistic on mails, numpy" in page
    assert "words by TF-IDF" in page


def test_it_becomes_onnx(no_report, tmp_path, capsys):
    pytest.importorskip("onnx")
    folder, _, _ = folders(tmp_path, samples=60)
    out, file = tmp_path / "run", tmp_path / "model.onnx"
    assert cli.main(["train", "logistic", "--data", str(folder), "--out", str(out)]) == 0
    assert cli.main(["export", str(out), str(file)]) == 0
    assert file.exists()


def test_a_run_goes_on(no_report, tmp_path, capsys):
    file, _, _ = table(tmp_path)
    train = ["train", "logistic", "--data", str(file), "--text", "body", "--label", "kind"]
    assert cli.main([*train, "--out", str(tmp_path / "whole")]) == 0
    options = ["--checkpoint", str(tmp_path / "kept"), "--out", str(tmp_path / "parts")]
    assert cli.main([*train, *options]) == 0
    assert cli.main([*train, *options]) == 0  # nothing is left to do
    both = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert both[0] == both[1]


def test_rows_are_those_of_scikit_learn():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts, _ = drawn()
    words = Words.of(texts)
    expected = TfidfVectorizer(min_df=2, dtype=np.float32).fit(texts)
    np.testing.assert_allclose(
        words.rows_of(texts[:9]).matrix.toarray(),
        expected.transform(texts[:9]).toarray(),
        rtol=1e-6,
    )
    assert words.rows_of(["nothing known", ""]).entries == 0


def damaged(out, change):
    words = json.loads((out / "words.json").read_text())
    (out / "words.json").write_text(json.dumps(change(words)))


DAMAGED = {
    "a word less": (lambda w: dict(list(w.items())[1:]), "do not fit"),
    "a text for a number": (lambda w: w | {"pills": "many"}, "words.json"),
    "infinity": (lambda w: w | {"pills": float("inf")}, "there are no such words"),
    "a list": (lambda w: [*w], "words.json"),
}


def test_what_is_damaged(no_report, tmp_path, capsys):
    folder, _, _ = folders(tmp_path, samples=40)
    out = tmp_path / "run"
    assert cli.main(["train", "logistic", "--data", str(folder), "--out", str(out)]) == 0
    whole = (out / "words.json").read_text()
    for change, message in DAMAGED.values():
        damaged(out, change)
        capsys.readouterr()
        assert cli.main(["predict", str(out), str(folder)]) == 2
        assert message in one_error_line(capsys)
        (out / "words.json").write_text(whole)
    (out / "words.json").unlink()
    assert cli.main(["predict", str(out), str(folder)]) == 2
    assert "words.json" in one_error_line(capsys)


REFUSED = {
    "no such column": (lambda t: [str(table(t)[0]), "--text", "subject"], "no column 'subject'"),
    "a folder": (lambda t: [str(folders(t)[0]), "--text", "body"], "argument --text"),
    "no files": (lambda t: [str(t)], "it must hold a folder of texts for each class"),
    "one class": (lambda t: [str(folders(t, classes=1)[0])], "at least 2 classes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(tmp_path, capsys, name):
    make, message = REFUSED[name]
    assert cli.main(["train", "logistic", "--data", *make(tmp_path), "--label", "kind"]) == 2
    assert message in one_error_line(capsys)


@pytest.mark.parametrize("classes", [2, 3])
def test_another_library_that_has_sparse_matrices(classes, no_report, tmp_path, monkeypatch):
    """As CuPy has: a stand-in trains, tests and predicts the same."""
    xp = pytest.importorskip("array_api_strict")
    sparse_stand_in = pytest.importorskip("sparse_stand_in")
    folder, _, _ = folders(tmp_path, samples=60, classes=classes)
    train = ["train", "logistic", "--data", str(folder), "--epochs", "1", "--out"]
    assert cli.main([*train, str(tmp_path / "numpy")]) == 0
    monkeypatch.setattr(sparse_stand_in, "DEVICE", xp.Device("CPU_DEVICE"))
    monkeypatch.setitem(LIBRARIES, "array_api_strict", "a_stand_in")
    monkeypatch.setitem(sys.modules, "a_stand_in", sparse_stand_in.MODULE)
    for command in (cli.train, cli.evaluate, cli.predict):
        monkeypatch.setattr(command, "working_backend", lambda name: xp)
    assert cli.main([*train, str(tmp_path / "strict")]) == 0
    both = [load_params(tmp_path / name / "model.safetensors") for name in ("numpy", "strict")]
    for name, w in both[0].items():
        np.testing.assert_allclose(both[1][name], w, rtol=1e-4, atol=1e-6)
    assert cli.main(["evaluate", str(tmp_path / "strict")]) == 0
    assert cli.main(["predict", str(tmp_path / "strict"), str(folder)]) == 0


def test_no_text_and_other_libraries(no_report, tmp_path, capsys):
    pytest.importorskip("torch")
    folder, _, _ = folders(tmp_path, samples=40)
    train = ["train", "logistic", "--data", str(folder)]
    assert cli.main([*train, "--backend", "torch"]) == 2
    assert "must be numpy or cupy for texts, got 'torch'" in capsys.readouterr().err
    (folder / "ham" / "picture.png").write_bytes(b"\x89PNG\0\0")
    assert cli.main(train) == 2
    assert "picture.png: it is no text: it has a zero byte" in one_error_line(capsys)
    for file in folder.rglob("*.*"):
        file.write_text(file.stem)
    capsys.readouterr()
    assert cli.main(train) == 2
    assert "its texts have no words in common" in one_error_line(capsys)
