"""What the command line does with a trained model: evaluate, predict, export; and bench."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from cli_case import keep_model, one_error_line, toy_images, toy_table
from cli_case import toys as toys

from agnostic_xent import cli, load_params, predict

TOYS = {"cnn": toy_images, "logistic": toy_table}


@pytest.fixture(params=["cnn", "logistic"])
def trained(request, toys, tmp_path, capsys):
    """Train a model; return its name and its folder."""
    folder = tmp_path / "run"
    command = ["train", request.param, "--learning-rate", "0.1", "--epochs", "2"]
    assert cli.main([*command, "--out", str(folder)]) == 0
    capsys.readouterr()
    return request.param, folder


@pytest.fixture
def cnn(toys, tmp_path):
    """Return the folder of a model after one epoch."""
    return keep_model(tmp_path / "run")


def probabilities(model, folder, x):
    """Return what the saved parameters say, in float64 from the logits."""
    network = cli.recipes.RECIPES[model].network(2, x.shape[1:])
    logits = predict(network, load_params(folder / "model.safetensors"), x).astype(np.float64)
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


# --- evaluate ------------------------------------------------------------------------------------


def test_evaluate_says_what_training_said_and_writes_the_report_again(trained, capsys):
    _, folder = trained
    pictures = {path: path.read_bytes() for path in folder.glob("report.*")}
    last = json.loads((folder / "history.json").read_text())[-1]
    for path in pictures:
        path.unlink()
    assert cli.main(["evaluate", str(folder)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"test loss: {last['validation_loss']:.4g}",
        f"test accuracy: {last['validation_accuracy']:.4f}",
    ]
    assert len(pictures) == 2
    assert (folder / "report.png").read_bytes() == pictures[folder / "report.png"]
    # what is measured anew may differ: the rows of the layers' times
    old, new = (
        [line for line in text.splitlines() if 'data-name="forward' not in line]
        for text in (
            pictures[folder / "report.html"].decode(),
            (folder / "report.html").read_text(encoding="utf-8"),
        )
    )
    assert old == new


def test_evaluate_on_another_library_says_so(trained, capsys):
    pytest.importorskip("torch")
    _, folder = trained
    assert cli.main(["evaluate", str(folder)]) == 0
    assert cli.main(["evaluate", str(folder), "--backend", "torch"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1] == out[3]
    assert "portable (no kernel for torch arrays)" in (folder / "report.html").read_text("utf-8")


def test_the_report_of_linear_models_says_that_epochs_are_one_kernel(trained):
    model, folder = trained
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert ("whole epochs of this model run in one kernel" in text) == (model == "logistic")


def test_data_of_another_kind_is_an_error(cnn, capsys, monkeypatch):
    other = toy_images()
    object.__setattr__(other, "classes", ("day", "night"))
    monkeypatch.setattr(cli.data, "load_digits", lambda: other)
    assert cli.main(["evaluate", str(cnn), "--data", "digits"]) == 2
    assert "digits has samples of shape (1, 8, 8) in the classes day, night, but" in one_error_line(
        capsys
    )


@pytest.mark.parametrize("missing", ["run.json", "model.safetensors", "history.json"])
def test_a_folder_without_a_model_is_an_error(cnn, capsys, missing):
    (cnn / missing).unlink()
    assert cli.main(["evaluate", str(cnn)]) == 2
    line = one_error_line(capsys)
    assert "must be a folder that train --out or save_classifier has written" in line
    assert line.endswith(missing)


@pytest.mark.parametrize("damaged", ["run.json", "model.safetensors", "history.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"model": "no"}', b"\xff\xfe"])
def test_a_damaged_file_is_an_error(cnn, capsys, damaged, content):
    (cnn / damaged).write_bytes(content)
    assert cli.main(["evaluate", str(cnn)]) == 2
    assert one_error_line(capsys).startswith(f"argument DIR: {cnn / damaged}: ")


# --- predict -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["npy", "npz", "out"])
def test_predict_writes_the_probabilities(trained, tmp_path, capsys, kind):
    model, folder = trained
    x = TOYS[model]().test_x[:7]
    file, out = tmp_path / f"x.{'npz' if kind == 'npz' else 'npy'}", tmp_path / "new" / "p.csv"
    np.savez(file, x=x, y=np.zeros(7)) if kind == "npz" else np.save(file, x)
    command = ["predict", str(folder), str(file)]
    assert cli.main([*command, *(["--out", str(out)] if kind == "out" else [])]) == 0
    text = capsys.readouterr().out
    if kind == "out":
        assert text == ""
        text = out.read_text()
    header, *rows = csv.reader(io.StringIO(text))
    classes = TOYS[model]().classes
    assert header == ["sample", "class", *classes]
    assert [row[0] for row in rows] == [str(i) for i in range(7)]
    expected = probabilities(model, folder, x)
    assert [row[1] for row in rows] == [classes[i] for i in expected.argmax(axis=1)]
    found = np.asarray([row[2:] for row in rows], float)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-30)  # six digits are written


def test_predict_takes_tables(toys, tmp_path, capsys):
    folder, table = tmp_path / "run", tmp_path / "x.csv"
    assert cli.main(["train", "logistic", "--epochs", "1", "--out", str(folder)]) == 0
    np.savetxt(table, toy_table().test_x[:1], delimiter=",")
    capsys.readouterr()
    assert cli.main(["predict", str(folder), str(table)]) == 0
    (row,) = list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:]
    (expected,) = probabilities("logistic", folder, toy_table().test_x[:1])
    np.testing.assert_allclose(np.asarray(row[2:], float), expected, rtol=2e-5)
    named = tmp_path / "named.csv"
    header = ",".join(f"column {i}" for i in range(toy_table().test_x.shape[1]))
    named.write_text(f"{header}\n{table.read_text()}")
    assert cli.main(["predict", str(folder), str(named)]) == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1:] == [row]
    table.write_text("a,b,3\n1,2,3\n")
    assert cli.main(["predict", str(folder), str(table)]) == 2
    line = one_error_line(capsys)
    assert line.startswith(f"argument SAMPLES: {table}: it must be of numbers")
    assert "below at most a line of names; line 1, column 1 is 'a'" in line


def test_predict_takes_images(cnn, tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8), dtype=np.uint8)
    folder = tmp_path / "images"
    folder.mkdir()
    for name, pixels in zip("ba", x, strict=True):
        image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "notes.txt").write_text("no image")
    np.save(tmp_path / "x.npy", x[::-1])  # (N, H, W), in the order of the names
    tables = []
    for samples in (folder, tmp_path / "x.npy"):
        assert cli.main(["predict", str(cnn), str(samples)]) == 0
        tables.append(list(csv.reader(io.StringIO(capsys.readouterr().out))))
    assert [row[0] for row in tables[0]] == ["sample", "a.png", "b.png"]
    assert [row[1:] for row in tables[0]] == [row[1:] for row in tables[1]]
    scaled = np.asarray(x[::-1, None], np.float32) / np.float32(255)
    expected = probabilities("cnn", cnn, scaled)
    found = np.asarray([row[2:] for row in tables[0][1:]], float)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-30)
    image.fromarray(x[0][:4]).save(folder / "c.png")
    assert cli.main(["predict", str(cnn), str(folder)]) == 2
    assert "c.png: it has 8 x 4 pixels, but the model takes 8 x 8" in one_error_line(capsys)


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("x.npy", None, "No such file"),
        ("x.npy", b"text", "EOF"),
        ("x.npz", b"PK\x03\x04", "it is no .npz file"),
        ("x.npz", b"", "it is no .npz file"),
        ("x.txt", b"1 2 3", ".npy, .npz or .csv"),
        ("x.npy", np.zeros((2, 3, 8, 8)), "must have shape (N, 1, 8, 8), got (2, 3, 8, 8)"),
        ("x.npy", np.zeros((0, 1, 8, 8)), "got (0, 1, 8, 8)"),
        ("x.npy", np.zeros(4), "got (4,)"),
        ("x.npy", np.zeros((8, 8)), "got (8, 8)"),
        ("x.npy", np.zeros((2, 8, 8), "S3"), "must be of numbers"),
        ("x.npy", np.asarray([{}]), "Python objects"),
        ("x.npz", {"a": np.zeros(2), "b": np.zeros(2)}, "must hold an array called x"),
    ],
)
def test_samples_that_cannot_be_read_are_an_error(cnn, tmp_path, capsys, name, content, part):
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(file, **content)
    elif content is not None:
        np.save(file, content, allow_pickle=True)
    assert cli.main(["predict", str(cnn), str(file)]) == 2
    line = one_error_line(capsys)
    assert line.startswith(f"argument SAMPLES: {file}: ")
    assert part in line


@pytest.mark.parametrize("shape", [(3, 8, 8), (5,)])
def test_one_sample_without_an_axis_of_samples_is_an_error(tmp_path, capsys, shape):
    model = "cnn" if len(shape) == 3 else "logistic"
    folder, file = keep_model(tmp_path / "run", model, shape), tmp_path / "x.npy"
    np.save(file, np.zeros(shape))
    assert cli.main(["predict", str(folder), str(file)]) == 2
    assert one_error_line(capsys).endswith(f"got {shape}: of one sample, save x[None]")


def test_predict_leaves_no_half_file(cnn, tmp_path, capsys, monkeypatch):
    np.save(tmp_path / "x.npy", toy_images().test_x)
    out = tmp_path / "p.csv"
    out.write_text("old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    command = ["predict", str(cnn), str(tmp_path / "x.npy"), "--out", str(out)]
    assert cli.main(command) == 2
    assert "No space left on device" in one_error_line(capsys)
    assert out.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.csv", "run", "x.npy"]


# --- export and bench ----------------------------------------------------------------------------


def test_export_computes_the_same(trained, tmp_path, capsys):
    pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    model, folder = trained
    file = tmp_path / "new" / "model.onnx"
    assert cli.main(["export", str(folder), str(file)]) == 0
    x = TOYS[model]().test_x[:5]
    (found,) = reference.ReferenceEvaluator(str(file)).run(None, {"input": x})
    network = cli.recipes.RECIPES[model].network(2, x.shape[1:])
    logits = predict(network, load_params(folder / "model.safetensors"), x)
    expected = cli.recipes.probabilities(logits)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    capsys.readouterr()
    assert cli.main(["export", str(folder), str(tmp_path / "model.pt")]) == 2
    assert "FILE: must end in .onnx" in one_error_line(capsys)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A folder with benchmarks: one that tells its arguments, and one that fails."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "good.py").write_text('"""What is good.\n\nAnd why."""\nimport nowhere\n')
    (folder / "bad.py").write_text("")
    (folder / "__main__.py").write_text(
        "import sys\nNAMES = ('good', 'bad')\n"
        "if __name__ == '__main__':\n"
        "    open('told', 'a').write(' '.join(sys.argv[1:]) + ';')\n"
        "    sys.exit('bad' in sys.argv)\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield tmp_path
    for name in ("benchmarks", "benchmarks.__main__"):
        sys.modules.pop(name, None)


def test_bench(repository, capsys):
    assert cli.main(["bench"]) == 0
    assert capsys.readouterr().out == "good  What is good.\nbad   \n"
    assert cli.main(["bench", "good", "good", "--quick"]) == 0
    assert (repository / "told").read_text() == "good --quick;good --quick;"
    assert cli.main(["bench", "good", "none"]) == 2
    assert "NAME: must be one of good, bad; got 'none'" in one_error_line(capsys)
    assert (repository / "told").read_text().count(";") == 2
    assert cli.main(["bench", "bad"]) == 2
    assert one_error_line(capsys) == "benchmark bad ended with exit code 1"


def test_bench_elsewhere_is_an_error(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench"]) == 2
    assert "go to the repository's folder" in one_error_line(capsys)


@pytest.mark.parametrize("command", [[], *([c.__name__.rpartition(".")[2]] for c in cli.COMMANDS)])
def test_help_fits_a_terminal(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, "--help"])
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("usage: agnostic-xent")
