"""What users of the command line meet: help, versions, words on waiting, results as JSON."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import numpy as np
import pytest
from cli_case import keep_model, without_progress
from cli_case import no_report as no_report
from cli_case import toys as toys

import agnostic_xent
from agnostic_xent import cli, load_params
from agnostic_xent.cli.compiling import LOGGER, told_of_compiling
from agnostic_xent.datasets.scale import Scale


def shown(*arguments):
    """Return what a command prints that ends by itself."""
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments])
    assert ended.value.code == 0


def test_an_empty_call_shows_the_help(capsys):
    shown()
    empty = capsys.readouterr()
    shown("--help")
    assert empty == capsys.readouterr()
    assert all(command.__name__.rpartition(".")[2] in empty.out for command in cli.COMMANDS)


def test_version(capsys):
    shown("--version")
    assert capsys.readouterr() == (f"agnostic-xent {agnostic_xent.__version__}\n", "")


# --- the first seconds ---------------------------------------------------------------------------


def test_one_line_tells_that_kernels_are_compiled(capsys):
    handlers, level = [*LOGGER.handlers], LOGGER.level
    with told_of_compiling():
        assert LOGGER.isEnabledFor(logging.INFO)
        for name in ("relu", "dense"):
            LOGGER.info("compiling %s for the first time on this machine", name)
        LOGGER.warning("another thing")
    LOGGER.info("compiling more")
    assert without_progress(capsys.readouterr().err) == []
    assert (LOGGER.handlers, LOGGER.level) == (handlers, level)


def test_a_new_machine_is_told_before_the_first_epoch(tmp_path):
    x, y = np.zeros((4, 2), "f4"), np.arange(4) % 2
    np.savez(tmp_path / "d.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    code = (
        "import os, sys; os.environ['NUMBA_CACHE_DIR'] = sys.argv[1]; sys.argv[1:2] = []\n"
        "from agnostic_xent import cli; sys.exit(cli.main())"
    )
    train = ["train", "logistic", "--epochs", "1", "--data", str(tmp_path / "d.npz")]
    errors = [
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "cache"), *train],
            capture_output=True, text=True, check=True,
        ).stderr.splitlines()
        for _ in range(2)
    ]  # fmt: skip
    (first, second), told = errors, "compiling kernels, once on this machine"
    assert [line.startswith(told) for line in first] == [False, True, False]
    assert first[2].startswith("epoch 1/1  loss ")
    assert len(second) == 2  # what was decided about the data, and the epoch


# --- results -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("toys", "no_report")
def test_results_as_json(tmp_path, capsys):
    """One line, which has the numbers that the files have."""
    out = tmp_path / "run"
    assert cli.main(["train", "logistic", "--epochs", "2", "--out", str(out), "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    last = json.loads((out / "history.json").read_text())[-1]
    assert trained == {f"test_{name}": last[f"validation_{name}"] for name in ("loss", "accuracy")}
    assert cli.main(["evaluate", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == pytest.approx(trained)
    assert cli.main(["info", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["versions"]["numpy"] == np.__version__


def test_what_is_not_finite_is_null(capsys):
    options = type("Options", (), {"json": True})
    results = {"loss": float("nan"), "most": float("inf"), "accuracy": 0.5, "name": "a"}
    cli.output.print_results(options, results, [])
    found = json.loads(capsys.readouterr().out)
    assert found == {"loss": None, "most": None, "accuracy": 0.5, "name": "a"}


def test_predictions_as_json(tmp_path, capsys):
    """An object a line, with the numbers of the table."""
    model = keep_model(tmp_path / "run", classes=("=A1", "naïve"))
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((3, 1, 8, 8), "f4"))
    predict = ["predict", str(model), str(tmp_path / "x.npy")]
    assert cli.main(predict) == 0
    _, *table = capsys.readouterr().out.splitlines()
    assert cli.main([*predict, "--json"]) == 0
    lines = capsys.readouterr().out
    assert cli.main([*predict, "--json", "--out", str(tmp_path / "p.jsonl")]) == 0
    assert (tmp_path / "p.jsonl").read_text() == lines
    for line, row in zip(map(json.loads, lines.splitlines()), table, strict=True):
        sample, best, *shares = row.split(",")
        assert line["probabilities"] == dict(zip(("=A1", "naïve"), map(float, shares), strict=True))
        assert (line["sample"], line["class"]) == (sample, best.removeprefix("'"))


@pytest.mark.parametrize(
    ("scale", "takes"),
    [
        (Scale(255, 0, 200, whole=True), "numbers from 0 to 200"),
        (Scale(1, -1.5, 2, whole=False), "numbers from -1.5 to 2"),
        (None, "numbers as in the training"),
    ],
)
def test_export_says_what_it_wrote(scale, takes, tmp_path, capsys):
    reference = pytest.importorskip("onnx.reference")
    model, file = keep_model(tmp_path / "run", scale=scale), tmp_path / "m.onnx"
    assert cli.main(["export", str(model), str(file)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}: {file.stat().st_size:,} bytes",
        f"input: float32 (batch, 1, 8, 8), {takes}",
        "probabilities: float32 (batch, 2) of dark, light",
    ]
    x = np.random.default_rng(0).integers(0, 200, (3, 1, 8, 8)).astype("f4")
    (found,) = reference.ReferenceEvaluator(str(file)).run(None, {"input": x})
    network = cli.recipes.NETWORKS["cnn"](2, (1, 8, 8))
    logits = network(load_params(model / "model.safetensors"), x / (scale.divisor if scale else 1))
    np.testing.assert_allclose(found, cli.recipes.probabilities(logits), atol=1e-5)


def test_export_of_a_table_names_its_columns(no_report, tmp_path, capsys):
    """Also their order: with it the file computes what predict does."""
    pandas, runtime = pytest.importorskip("pandas"), pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    kind = rng.choice(["red", "blue"], 60)
    frame = pandas.DataFrame({"size": rng.normal(5, 3, 60), "kind": kind, "y": kind == "red"})
    frame.to_csv(tmp_path / "t.csv", index=False)
    out, file = tmp_path / "run", tmp_path / "m.onnx"
    train = ["train", "logistic", "--data", str(tmp_path / "t.csv"), "--epochs", "1"]
    assert cli.main([*train, "--out", str(out)]) == 0
    capsys.readouterr()
    assert cli.main(["export", str(out), str(file)]) == 0
    said = "the columns of a table: size (standardised), kind = blue, kind = red"
    assert f"input: float32 (batch, 3), {said}\n" in capsys.readouterr().out
    size = frame["size"].to_numpy()
    mean, std = json.loads((out / "run.json").read_text())["columns"]["numbers"]["size"]
    x = np.stack([(size - mean) / std, kind == "blue", kind == "red"], axis=1).astype("f4")
    session = runtime.InferenceSession(str(file))
    (found,) = session.run(None, {"input": x})
    assert cli.main(["predict", str(out), str(tmp_path / "t.csv")]) == 0
    table = capsys.readouterr().out.splitlines()[1:]
    expected = [list(map(float, line.split(",")[2:])) for line in table]
    np.testing.assert_allclose(found, expected, atol=1e-5)


# --- completion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_and_options(shell, capsys):
    pytest.importorskip("shtab")
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    wanted = ("train", "export") if shell == "tcsh" else ("train", "export", "--learning-rate")
    assert all(word in script for word in wanted)


def test_bash_completes(capsys, tmp_path):
    """In a true shell: commands, options, choices and files."""
    pytest.importorskip("shtab")
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "c.bash").write_text(capsys.readouterr().out)
    (tmp_path / "photos").mkdir()
    asked = {
        "agnostic-xent tr": "train",
        "agnostic-xent train --learning": "--learning-rate",
        "agnostic-xent train --backend j": "jax",
        "agnostic-xent evaluate pho": "photos",
        "agnostic-xent train --data pho": "photos",
    }
    for line, expected in asked.items():
        program = (
            f"source c.bash; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
            "$(complete -p agnostic-xent | sed 's/.*-F \\([^ ]*\\).*/\\1/') 2>/dev/null\n"
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == [expected], done.stderr


def test_completion_without_its_package(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 2
    assert "completion needs shtab: python -m pip install shtab" in capsys.readouterr().err
