"""Runs that are interrupted and go on: the same bits, on every library, killed at any moment."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from subprocess import PIPE

import numpy as np
import pytest
from training_case import CNN, SEED, SOFTMAX, Recorder, each_home, images, start, train

from agnostic_xent import (
    SGD,
    AdamW,
    Callback,
    Dense,
    EarlyStopping,
    Flatten,
    JsonLines,
    KeepBest,
    Sequential,
    binary_cross_entropy_with_logits,
    cli,
    cosine,
    cross_entropy,
    fit,
    load_checkpoint,
    load_params,
    logistic,
    save_params,
    step_decay,
)
from agnostic_xent.arrays import to_numpy
from agnostic_xent.runs import FILE

OPTIMIZERS = {
    "sgd": SGD(0.1),
    "momentum": SGD(step_decay(0.1, every=7), momentum=0.9, weight_decay=0.01),
    "adamw": AdamW(cosine(0.01, steps=30)),
}


def same(found, expected):
    assert found.keys() == expected.keys()
    for name, w in found.items():
        assert type(w) is type(expected[name])
        np.testing.assert_array_equal(to_numpy(w), to_numpy(expected[name]))


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


# --- killed --------------------------------------------------------------------------------------

TRAINING = """
import hashlib, os, signal, sys, time
import numpy as np
from agnostic_xent import *
rng = np.random.default_rng(1)
x, y = rng.standard_normal((60, 1, 8, 8)).astype("float32"), rng.integers(0, 3, 60)
model = Sequential(Conv2d(4, 3), BatchNorm2d(), ReLU(), Dropout(0.2), Flatten(), Dense(3))

def run(folder, epochs):
    params, _ = fit(
        model, model.init(0, (1, 8, 8))[0], (x, y), loss=cross_entropy, epochs=epochs, rng=2,
        optimizer=AdamW(cosine(0.01, steps=100)), batch_size=20, checkpoint=folder,
    )
    content = b"".join(np.ascontiguousarray(params[name]).tobytes() for name in sorted(params))
    return hashlib.sha256(content).hexdigest()
"""
ENVIRONMENT = os.environ | {"AGNOSTIC_XENT_KERNELS": "portable", "OPENBLAS_NUM_THREADS": "1"}


def begun(folder, epochs=120):
    """Start a training in a process, and return it when it begins."""
    program = TRAINING + "print('begin', flush=True); print(run(sys.argv[1], int(sys.argv[2])))"
    command = [sys.executable, "-c", program, str(folder), str(epochs)]
    process = subprocess.Popen(command, stdout=PIPE, env=ENVIRONMENT, text=True)
    assert process.stdout.readline() == "begin\n"
    return process


def ended(process):
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    return out


def test_killed_at_random_moments(tmp_path):
    """Killed again and again; each process goes on where the last one's file stands."""
    process, started = begun(tmp_path / "whole"), time.monotonic()
    expected = ended(process)
    seconds, rng = time.monotonic() - started, random.Random(SEED)
    progress = [0]
    for _ in range(5):
        process = begun(tmp_path / "killed")
        time.sleep(rng.uniform(0, seconds / 4))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            break  # it was faster
        assert process.returncode == -signal.SIGKILL
        if (tmp_path / "killed" / FILE).exists():  # else it was killed before the first was whole
            progress.append(len(load_checkpoint(tmp_path / "killed")[1]))
    assert progress == sorted(progress)
    assert progress[-1] > 0
    assert ended(begun(tmp_path / "killed")) == expected
    assert os.listdir(tmp_path / "killed") == [FILE]


LINE_BY_LINE = """
FILES = ("checkpoints.py", "runs.py", "training.py")
lines, die_at, writing = 0, None, []

def trace(frame, event, argument):
    global lines
    if os.path.basename(frame.f_code.co_filename) not in FILES:
        return None
    if event == "line":
        lines += 1
        if die_at is None and frame.f_code.co_name == "write_atomically":
            writing.append(lines)
        if lines == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

root = sys.argv[1]
sys.settrace(trace)
expected = run(root + "/whole", 2)
sys.settrace(None)
moments = {*writing, *np.random.default_rng(3).integers(1, lines, 60).tolist()}
killed = 0
for die_at in sorted(moments):
    folder, child = f"{root}/{die_at}", os.fork()
    if child == 0:
        lines = 0
        sys.settrace(trace)
        run(folder, 2)
        os._exit(0)
    killed += os.WIFSIGNALED(os.waitpid(child, 0)[1])
    if run(folder, 2) != expected:
        print("other bits after line", die_at)
    if os.listdir(folder) != ["checkpoint.safetensors"]:
        print("left behind after line", die_at, os.listdir(folder))
print(len(writing) > 20, lines > 300, killed == len(moments))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_killed_at_lines_of_the_code(tmp_path):
    """At every line that writes a file, and at some of all others."""
    command = [sys.executable, "-W", "ignore", "-c", TRAINING + LINE_BY_LINE, str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("True True True\n", "")


def test_what_a_killed_process_left_is_removed(tmp_path):
    train(epochs=1, checkpoint=tmp_path)
    (tmp_path / f"{FILE}.123.part").write_bytes(b"half")
    (tmp_path / "notes.part").write_bytes(b"somebody's own")
    train(epochs=2, checkpoint=tmp_path)
    assert sorted(os.listdir(tmp_path)) == [FILE, "notes.part"]


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

    class Interrupted(cli.Progress):
        def on_epoch(self, epoch, params):
            if epoch.epoch == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(cli, "Progress", Interrupted)
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
    assert "is of another run: its batch_size is 1, here 2" in error


def test_load_checkpoint(tmp_path):
    found, history = train(epochs=2, checkpoint=tmp_path, optimizer=AdamW())
    params, again = load_checkpoint(str(tmp_path))
    same(params, found)
    assert again == history


# --- another run, or damage ----------------------------------------------------------------------


class Odd(SGD):
    """An optimizer whose state is more than arrays and numbers."""

    def init(self, params):
        return super().init(params) | {"names": list(params)}


class Plain:
    """An optimizer that shows its address."""

    def __init__(self, rate):
        self.inner = SGD(rate)
        self.init, self.rate, self.update = self.inner.init, self.inner.rate, self.inner.update


X, Y = images()
OTHERS = {
    "model": ({"model": Sequential(Flatten(), Dense(3, bias=False))}, "its model is Seq.*, here S"),
    "start": ({"params": {k: w + 1 for k, w in start().items()}}, "its start .* is .*, here"),
    "dtype": (
        {"params": start(dtype="float64"), "data": (X.astype("float64"), Y)},
        r"its data is x \(40, 1, 6, 6\) float32.*, here x \(40, 1, 6, 6\) float64",
    ),
    "loss": (
        {"loss": functools.partial(cross_entropy, label_smoothing=0.1)},
        r"its loss is \{'cross_entropy': \{\}\}, here .*'label_smoothing': 0.1",
    ),
    "optimizer": ({"optimizer": AdamW()}, r"its optimizer is SGD\(.*\), here AdamW"),
    "rate": ({"optimizer": SGD(0.2, momentum=0.9)}, "its optimizer is SGD.learning_rate=0.1"),
    "batch size": ({"batch_size": 7}, "its batch_size is 8, here 7"),
    "rng": ({"rng": 4}, "its rng .* is .*, here"),
    "no rng": ({"rng": None}, "its rng .* is .*, here None"),
    "samples": ({"data": (X[1:], Y[1:])}, r"its data is x \(40, .*, here x \(39, "),
    "iterable": ({"data": [(X, Y)]}, "its data is x .*, here an iterable"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_file_of_another_run(name, tmp_path):
    changed, message = OTHERS[name]
    train((X, Y), checkpoint=tmp_path)
    content = (tmp_path / FILE).read_bytes()
    with pytest.raises(ValueError, match=f"{FILE} is of another run: .*{message}"):
        train(**{"data": (X, Y), "checkpoint": tmp_path} | changed)
    assert (tmp_path / FILE).read_bytes() == content
    assert len(train((X, Y), epochs=3, checkpoint=tmp_path)[1]) == 3


def test_another_schedule(tmp_path):
    """Of a function nothing is kept but what it said."""
    train(optimizer=SGD(cosine(0.1, steps=20)), checkpoint=tmp_path)
    with pytest.raises(ValueError, match=r"its learning rate at step 1 was 0\.09.*, here 0\.09"):
        train(optimizer=SGD(cosine(0.1, steps=30)), checkpoint=tmp_path)
    train(optimizer=SGD(cosine(0.1, steps=20)), checkpoint=tmp_path, epochs=3)


def test_addresses_in_memory_tell_no_runs_apart(tmp_path):
    assert repr(Plain(0.1)) != repr(Plain(0.1))
    train(optimizer=Plain(0.1), checkpoint=tmp_path)
    train(optimizer=Plain(0.1), checkpoint=tmp_path, epochs=3)
    with pytest.raises(ValueError, match=r"learning rate at step 0 was 0.1, here 0.2"):
        train(optimizer=Plain(0.2), checkpoint=tmp_path, epochs=3)


def test_a_state_that_no_file_holds(tmp_path):
    with pytest.raises(TypeError, match=r"nested dicts, arrays and numbers, got \[.*state:names"):
        train(optimizer=Odd(0.1), checkpoint=tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda whole: whole[: len(whole) // 2], "is no whole safetensors file"),
        (lambda whole: b"", "is no whole safetensors file"),
        (lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "is damaged"),
        (lambda whole: whole.replace(b'"ended', b'"ENDED'), "is (damaged|no whole)"),
        (lambda whole: whole.replace(b"version 1", b"version 9"), "version 1: it says .*version 9"),
    ],
    ids=["half", "empty", "number", "record", "version"],
)
def test_a_damaged_file_changes_nothing(damage, message, tmp_path):
    train(checkpoint=tmp_path)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(damage(whole))
    assert (tmp_path / FILE).read_bytes() != whole
    rng, log = np.random.default_rng(SEED), Recorder()
    before = rng.bit_generator.state
    with pytest.raises(ValueError, match=message):
        train(rng=rng, checkpoint=tmp_path, callbacks=[log], epochs=3)
    assert rng.bit_generator.state == before
    assert log.log == []
    assert (tmp_path / FILE).read_bytes() == damage(whole)


def test_a_foreign_file(tmp_path):
    save_params(tmp_path / FILE, start())
    with pytest.raises(ValueError, match=r"is no checkpoint of agnostic_xent"):
        train(checkpoint=tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        train(checkpoint=tmp_path / "file")


def test_the_write_that_fails_leaves_the_last_epoch(tmp_path, monkeypatch):
    """Such as on a full disk."""
    expected, _ = train(epochs=3)
    train(epochs=1, checkpoint=tmp_path)

    def full(*args):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.replace", full)
        with pytest.raises(OSError, match="no space left"):
            train(epochs=3, checkpoint=tmp_path)
    assert os.listdir(tmp_path) == [FILE]
    assert len(load_checkpoint(tmp_path)[1]) == 1
    same(train(epochs=3, checkpoint=tmp_path)[0], expected)


def test_fit_by_itself_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = SOFTMAX
    fit(model, start(model), images(), loss=cross_entropy, optimizer=SGD(0.1), epochs=1)
    assert os.listdir(tmp_path) == []
