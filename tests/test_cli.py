"""The command line: what it prints and writes, how it ends, and that no error is a traceback."""

import json
import os
import re
import signal
import subprocess
import sys
import types
from subprocess import PIPE

import numpy as np
import pytest
from cli_case import one_error_line, toy_images, without_progress
from cli_case import toys as toys

import agnostic_xent
from agnostic_xent import cli

LAST_LINE = re.compile(r"test accuracy: [01]\.\d{4}")
KEPT = ["history.json", "model.safetensors", "run.json"]
RUN = [sys.executable, "-m", "agnostic_xent"]


@pytest.fixture
def settings(monkeypatch):
    """Record what the training is called with."""
    calls = []
    fit = cli.train.fit

    def spy(model, params, data, **options):
        calls.append(types.SimpleNamespace(model=model, params=params, data=data, **options))
        return fit(model, params, data, **options)

    monkeypatch.setattr(cli.train, "fit", spy)
    return calls


def blocked(tmp_path, *modules):
    """Return an environment in which Python cannot import some modules."""
    for module in modules:
        (tmp_path / f"{module}.py").write_text(f"raise ImportError('no {module}')")
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path[1:]])}


# --- train ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cnn", "logistic"])
def test_train_learns_and_reports(toys, capsys, model):
    assert cli.main(["train", model, "--learning-rate", "0.1", "--epochs", "8"]) == 0
    out, err = capsys.readouterr()
    assert LAST_LINE.fullmatch(out.rstrip("\n"))
    assert float(out.split()[-1]) > 0.9
    assert err.count("epoch ") == 8


def test_defaults_are_what_help_says(toys, settings, capsys):
    for arguments in ([], ["signals"], ["logistic"]):
        assert cli.main(["train", *arguments]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    cnn, signals, logistic = settings
    sizes = f"cnn {cnn.batch_size}, signals {signals.batch_size}, logistic {logistic.batch_size}"
    assert f"(default: {sizes})" in text
    most = f"cnn and signals 3 to {cnn.epochs}, fewer for more samples, logistic 5"
    assert f"(default: {most})" in text
    assert signals.epochs == cnn.epochs
    assert (logistic.epochs, cli.recipes.RECIPES["cnn"].epochs_of(10_000)) == (5, 5)
    steps = range(cnn.epochs * 2)  # 80 samples are 2 batches
    greatest = max(map(cnn.optimizer.rate, steps)), logistic.optimizer.rate(0)
    assert "(default: cnn {0:.3f}, signals {0:.3f}, logistic {1})".format(*greatest) in text
    assert "cnn embedded, signals watch, logistic spambase" in text
    assert logistic.batch_size == 1


def test_options_reach_the_training(toys, settings):
    options = ["--epochs", "2", "--batch-size", "7", "--learning-rate", "0.3", "--seed", "5"]
    assert cli.main(["train", "cnn", *options]) == 0
    (run,) = settings
    assert (run.epochs, run.batch_size, run.rng) == (2, 7, 5)
    assert run.optimizer.rate(0) == 0.3  # a twentieth of 24 steps is one
    last_step = 2 * 12 - 1  # 80 samples are 12 batches of 7
    assert 0 < run.optimizer.rate(last_step) < 0.01
    assert run.optimizer.rate(last_step + 1) == 0
    start = run.model.init(5, (1, 8, 8))[0]
    learnt = [name for name in start if name not in ("0.mean", "0.std")]
    assert all(np.array_equal(run.params[name], start[name]) for name in learnt)


def test_targets_fit_the_loss(toys, settings):
    for model in ("cnn", "logistic"):
        assert cli.main(["train", model, "--epochs", "1"]) == 0
    cnn, logistic = ((run.data[1], run.validation[1]) for run in settings)
    assert {(y.dtype.name, y.ndim) for y in cnn} == {("int32", 1)}
    assert {(y.dtype.name, y.shape[1:]) for y in logistic} == {("float32", (1,))}


@pytest.mark.parametrize("data", ["embedded", "full", "digits", "folder"])
def test_data_names(toys, capsys, tmp_path, monkeypatch, data):
    asked = []

    def load(which="embedded", *, folder=None):
        asked.append((which, folder))
        return toy_images(which)

    monkeypatch.setattr(cli.data, "load_fashion_mnist", load)
    value = str(tmp_path) if data == "folder" else data
    (tmp_path / "t10k-labels-idx1-ubyte.gz").touch()
    out = tmp_path / "out"
    assert cli.main(["train", "--data", value, "--epochs", "1", "--out", str(out)]) == 0
    expected = {
        "embedded": [("embedded", None)],
        "full": [("full", None)],
        "digits": [],
        "folder": [("full", str(tmp_path))],
    }
    assert asked == expected[data]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("cupy", marks=pytest.mark.gpu),
        *sorted({*cli.options.BACKENDS} - {"numpy", "cupy"}),
    ],
)
def test_backends_train_like_numpy(toys, settings, capsys, name):
    library = pytest.importorskip(name)
    if name == "cupy" and not library.cuda.is_available():
        pytest.skip("no CUDA device")
    few = ["--epochs", "3", "--batch-size", "40", "--learning-rate", "0.1"]  # shapes, for JAX
    for backend in ("numpy", name):
        assert cli.main(["train", *few, "--backend", backend]) == 0
    assert agnostic_xent.core.arrays.library(settings[1].params["1.weight"]) == name
    first, second = capsys.readouterr().out.splitlines()
    assert first == second != "test accuracy: 0.5000"  # what guessing reaches


# --- what --out writes ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["cnn", "logistic"])
def test_out_holds_model_history_and_report(toys, settings, capsys, tmp_path, model):
    pytest.importorskip("matplotlib")
    out = tmp_path / "new" / "folder"
    assert cli.main(["train", model, "--epochs", "2", "--out", str(out)]) == 0
    files = sorted(path.name for path in out.iterdir())
    assert files == [*KEPT[:2], "report.html", "report.png", "run.json"]
    history = json.loads((out / "history.json").read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2]
    (run,) = settings
    accuracy = agnostic_xent.evaluate(
        run.model,
        agnostic_xent.load_params(out / "model.safetensors"),
        run.validation,
        loss=run.loss,
    )[1]
    assert capsys.readouterr().out == f"test accuracy: {accuracy:.4f}\n"
    assert history[-1]["validation_accuracy"] == pytest.approx(accuracy)


def test_picture_shows_the_probabilities_of_the_model(toys, settings, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(cli.result, "save_picture", lambda path, **shown: drawn.append(shown))
    monkeypatch.setattr(cli.result, "save_page", lambda path, **shown: None)
    for model in ("cnn", "logistic"):
        assert cli.main(["train", model, "--epochs", "3", "--out", str(tmp_path)]) == 0
    for shown, has_images in zip(drawn, (True, False), strict=True):
        assert shown["probabilities"].shape == (40, 2)
        np.testing.assert_allclose(shown["probabilities"].sum(axis=1), np.ones(40), atol=1e-6)
        hits = np.mean(shown["probabilities"].argmax(axis=1) == shown["labels"])
        assert hits == pytest.approx(shown["history"][-1].validation_accuracy)
        assert (shown["images"] is not None) == has_images


def test_files_are_written_after_every_epoch_before_its_line(toys, tmp_path, monkeypatch):
    seen = []

    class Watch(cli.train.Progress):
        def on_epoch(self, epoch, params):
            saved = agnostic_xent.load_params(tmp_path / "model.safetensors")
            same = all(np.array_equal(saved[name], params[name]) for name in params)
            seen.append((same, len(json.loads((tmp_path / "history.json").read_text()))))

    monkeypatch.setattr(cli.train, "Progress", Watch)
    assert cli.main(["train", "logistic", "--epochs", "3", "--out", str(tmp_path)]) == 0
    assert seen == [(True, 1), (True, 2), (True, 3)]


def test_without_matplotlib_one_line_says_how_to_get_it(toys, capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli.main(["train", "logistic", "--epochs", "1", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert LAST_LINE.fullmatch(out.rstrip("\n"))
    (line,) = without_progress(err)
    assert "pip install matplotlib jinja2" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == KEPT


# --- errors: one line, exit code 2 ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "0"),
        ("--epochs", "1.5"),
        ("--batch-size", "0"),
        ("--batch-size", "many"),
        ("--learning-rate", "0"),
        ("--learning-rate", "nan"),
        ("--learning-rate", "inf"),
        ("--learning-rate", "fast"),
        ("--seed", "1.0"),
        ("--backend", "tensorflow"),
        ("--data", "nowhere"),
        ("--data", "spambase"),
    ],
)
def test_bad_value_names_its_option(toys, capsys, option, value):
    assert cli.main(["train", option, value]) == 2
    line = one_error_line(capsys)
    assert option in line
    assert repr(value) in line


def test_negative_values_name_their_option(toys, capsys):
    for option in ("--epochs", "--batch-size", "--learning-rate", "--seed"):
        assert cli.main(["train", f"{option}=-1"]) == 2
        assert f"{option}: must be" in one_error_line(capsys)


@pytest.mark.parametrize("data", ["embedded", "digits"])
def test_logistic_takes_spambase_only(toys, capsys, data):
    assert cli.main(["train", "logistic", "--data", data]) == 2
    assert "must be spambase, a .csv" in one_error_line(capsys)


@pytest.mark.parametrize("arguments", [["fly"], ["train", "transformer"], ["info", "--fast"]])
def test_bad_command_is_one_line(capsys, arguments):
    assert cli.main(arguments) == 2
    assert one_error_line(capsys)


def test_missing_backend_says_what_to_install(toys, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    assert cli.main(["train", "--backend", "jax"]) == 2
    line = one_error_line(capsys)
    assert "'jax' is not installed" in line
    assert "pip install jax" in line


def test_backend_without_a_device_is_one_line(toys, capsys, monkeypatch):
    def zeros(shape):
        raise RuntimeError("cudaErrorNoDevice:\nno CUDA-capable device is detected")

    monkeypatch.setattr(cli.options, "backend", lambda name: types.SimpleNamespace(zeros=zeros))
    assert cli.main(["train", "--backend", "cupy"]) == 2
    line = one_error_line(capsys)
    assert line.startswith("backend 'cupy' has no working device")
    assert line.endswith("no CUDA-capable device is detected")


@pytest.mark.parametrize("below", [".", "folder"])
def test_unwritable_out_is_an_error_before_training(toys, settings, capsys, tmp_path, below):
    file = tmp_path / "file"
    file.write_text("a file, not a folder")
    assert cli.main(["train", "--out", str(file / below)]) == 2
    assert "--out" in one_error_line(capsys)
    assert settings == []


def test_folder_that_takes_no_files_is_an_error_before_training(
    toys, settings, capsys, tmp_path, monkeypatch
):
    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(cli.options.tempfile, "TemporaryFile", refuse)
    assert cli.main(["train", "--out", str(tmp_path)]) == 2
    assert one_error_line(capsys).endswith(f"cannot write to {tmp_path}: Permission denied")
    assert settings == []


# --- info ----------------------------------------------------------------------------------------


def test_info_is_aligned(capsys, monkeypatch):
    sections = {"versions": {"a": "1", "long-name": "2"}, "environment": {"B": "not set"}}
    monkeypatch.setattr(cli.info, "info", lambda: sections)
    assert cli.main(["info"]) == 0
    expected = "versions\n  a          1\n  long-name  2\nenvironment\n  B          not set\n"
    assert capsys.readouterr().out == expected


# --- true processes ------------------------------------------------------------------------------


def test_process_trains_and_info_shows(tmp_path):
    """Without optional packages: neither matplotlib nor other array libraries can be imported."""
    hidden = blocked(tmp_path, "matplotlib", "torch", "jax", "cupy", "dask", "sklearn")
    out = str(tmp_path / "out")
    command = [*RUN, "train", "logistic", "--epochs", "1", "--out", out]
    done = subprocess.run(command, env=hidden, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert float(done.stdout.split()[-1]) > 0.9
    assert "pip install matplotlib jinja2" in done.stderr
    info = subprocess.run([*RUN, "info"], env=hidden, capture_output=True, text=True)
    assert (info.returncode, info.stderr) == (0, "")
    assert re.search(r"^  numpy +\S*\d", info.stdout, re.MULTILINE)
    assert re.search(r"^  torch +not installed$", info.stdout, re.MULTILINE)


def test_interrupt_leaves_whole_files_of_finished_epochs(tmp_path):
    # a shell that starts tests in the background has SIGINT ignored, and children inherit that
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from agnostic_xent.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", "logistic", "--epochs", "1000", "--batch-size", "64"]
    command = [sys.executable, "-c", code, *arguments, "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=PIPE, stderr=PIPE, text=True) as process:
        lines = [process.stderr.readline() for _ in range(2)]
        if lines[0].startswith("compiling"):
            lines = [lines[1], process.stderr.readline()]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert [line.split()[1] for line in lines] == ["1/1000", "2/1000"]
    assert process.returncode == 130
    assert out == ""
    assert without_progress(err) == ["agnostic-xent: interrupted"]
    assert sorted(path.name for path in tmp_path.iterdir()) == KEPT
    epochs = [epoch["epoch"] for epoch in json.loads((tmp_path / "history.json").read_text())]
    assert epochs[:2] == [1, 2]
    assert epochs == list(range(1, len(epochs) + 1))
    weight = agnostic_xent.load_params(tmp_path / "model.safetensors")["0.weight"]
    assert weight.shape == (1, 57)
    assert np.isfinite(weight).all()


@pytest.mark.parametrize("arguments", [["--help"], ["train", "logistic", "--epochs", "1"]])
def test_closed_pipe_is_no_traceback(arguments):
    read, write = os.pipe()
    os.close(read)  # so that the first write fails
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        done = subprocess.run([*RUN, *arguments], stdout=write, stderr=PIPE, text=True, env=env)
    finally:
        os.close(write)
    assert done.returncode == 1
    assert without_progress(done.stderr) == []


# --- an output that takes nothing ----------------------------------------------------------------


def buffered():
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", [["info"], ["train", "--help"]])
def test_full_disk_under_the_output_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*RUN, *arguments], stdout=full, stderr=PIPE, text=True, env=buffered()
        )
    assert done.returncode == 2
    assert done.stderr == "agnostic-xent: error: No space left on device\n"


def test_output_that_is_closed_from_the_start_is_no_error():
    command = ["sh", "-c", '"$@" >&-', "sh", *RUN, "info"]
    done = subprocess.run(command, stderr=PIPE, text=True, env=buffered())
    assert (done.returncode, done.stderr) == (0, "")


def test_full_disk_under_the_files_leaves_whole_ones(tmp_path):
    """A limit on the size of files stands for the disk: no file can be past 4 KiB."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "from agnostic_xent.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["train", "--data", "digits", "--epochs", "1", "--out", str(tmp_path)]
    env = os.environ | {"AGNOSTIC_XENT_KERNELS": "portable"}
    pytest.importorskip("sklearn")
    done = subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments], capture_output=True, text=True, env=env
    )
    assert done.returncode == 2, done.stderr
    model = tmp_path / "model.safetensors"
    assert done.stderr == f"agnostic-xent: error: {model}: File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
    json.loads((tmp_path / "run.json").read_text())
