"""Runs whose process is killed at any moment: they go on, with the same bits."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from subprocess import PIPE

import pytest
from conftest import needs_fork
from training_case import SEED, train

from agnostic_xent import Callback, load_checkpoint
from agnostic_xent.training.runs import FILE

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


def test_a_second_run_is_told_at_once_and_the_first_goes_on(tmp_path):
    """From another process, and from within the run itself."""
    first = begun(tmp_path / "one", 20000)
    while not (tmp_path / "one" / FILE).exists():
        time.sleep(0.01)
    with pytest.raises(BlockingIOError, match=f"one is in use: process {first.pid} on .* holds"):
        train(epochs=1, checkpoint=tmp_path / "one")
    assert first.poll() is None
    first.kill()
    first.communicate()

    class Again(Callback):
        refused = 0

        def on_epoch(self, epoch, params):
            with pytest.raises(BlockingIOError, match=f"process {os.getpid()} on "):
                train(epochs=1, checkpoint=tmp_path / "two")
            self.refused += 1

    again = Again()
    _, history = train(epochs=3, checkpoint=tmp_path / "two", callbacks=[again])
    assert again.refused == len(history) == 3
    assert os.listdir(tmp_path / "two") == [FILE]
    train(epochs=3, checkpoint=tmp_path / "two")


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
FILES = ("checkpoints.py", "files.py", "locks.py", "runs.py", "loop.py")
lines, die_at, writing = 0, None, {}

def trace(frame, event, argument):
    global lines
    name = os.path.basename(frame.f_code.co_filename)
    if name not in FILES:
        return None
    if event == "line":
        lines += 1
        if die_at is None and name in ("files.py", "locks.py"):
            writing.setdefault((name, frame.f_lineno), lines)
        if lines == die_at:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace

root = sys.argv[1]
sys.settrace(trace)
expected = run(root + "/whole", 2)
sys.settrace(None)
moments = {*writing.values(), *np.random.default_rng(3).integers(1, lines, 60).tolist()}
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
print(len(writing) > 40, lines > 300, killed == len(moments))
"""


@needs_fork
def test_killed_at_lines_of_the_code(tmp_path):
    """At every line that writes or holds a file, and at some of all others."""
    command = [sys.executable, "-W", "ignore", "-c", TRAINING + LINE_BY_LINE, str(tmp_path)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("True True True\n", "")


def test_what_a_killed_process_left_is_removed(tmp_path):
    train(epochs=1, checkpoint=tmp_path)
    (tmp_path / f"{FILE}.123.part").write_bytes(b"half")
    (tmp_path / "notes.part").write_bytes(b"somebody's own")
    train(epochs=2, checkpoint=tmp_path)
    assert sorted(os.listdir(tmp_path)) == [FILE, "notes.part"]
