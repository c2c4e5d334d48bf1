"""What `Progress` writes: lines where nobody looks on, a bar on a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import agnostic_xent.training.progress
from agnostic_xent import SGD, Dense, Progress, Sequential, cross_entropy, fit
from agnostic_xent.training.history import Epoch, History

EPOCHS = (
    Epoch(1, 1.23456, 0.75, 0.1, 2.0, 1234.5),
    Epoch(2, 3e-7, 1.0, 0.1, 1.04, 99.0, 0.3, 0.875),
)
LINES = (
    "epoch 1/2  loss 1.235 acc 0.7500  1:15 left  2.0 s  1,234/s",
    "epoch 2/2  loss 3.0e-07 acc 1.0000  val 0.3000 acc 0.8750  1.0 s  99/s",
)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Let the time of the run be what a test says: 75 s since its start."""
    times = iter([100.0])
    clock = SimpleNamespace(monotonic=lambda: next(times, 175.0))
    monkeypatch.setattr(agnostic_xent.training.progress, "time", clock)
    monkeypatch.setattr(agnostic_xent.training.progress, "PERIOD", 0.0)


def show(samples, **options):
    """Play two epochs of two steps and return what was written, before and after the end."""
    console = Console(file=io.StringIO(), highlight=False, color_system=None, **options)
    progress = Progress(console)
    progress.on_start(2, samples)
    for epoch in EPOCHS:
        for count in (8, 4):
            progress.on_step(count)
        progress.on_epoch(epoch, {})
    progress.on_end()
    return console.file.getvalue()


@pytest.mark.parametrize("samples", [12, None])
@pytest.mark.parametrize("width", [20, 200])
def test_plain_lines_where_there_is_no_terminal(samples, width):
    """One line an epoch and nothing else, however narrow."""
    assert show(samples, force_terminal=False, width=width).splitlines() == list(LINES)


@settings(max_examples=60, deadline=None)
@given(
    *(st.floats(1e-9, 1e6) for _ in range(2)),
    st.floats(0, 1),
    st.floats(0, 9e5),
    st.floats(0, 1e9),
    st.integers(1, 1000),
)
def test_lines_fit_80_columns(loss, validation_loss, accuracy, seconds, speed, number):
    """Whatever the numbers are; what tells least is left out."""
    console = Console(file=io.StringIO(), color_system=None, width=200)
    progress = Progress(console)
    progress.on_start(1000, 12)
    progress.on_resume(History(EPOCHS[:1] * (number - 1)), {})
    scores = loss, accuracy, 0.1, seconds, speed, validation_loss, accuracy
    progress.on_epoch(Epoch(number, *scores), {})
    (line,) = console.file.getvalue().splitlines()
    assert len(line) <= 80
    assert f"acc {accuracy:.4f}  val " in line
    found = float(line.split("loss ")[1].split()[0])
    assert found == pytest.approx(loss, rel=0.05)


def test_a_bar_on_a_terminal():
    written = show(12, force_terminal=True, width=120)
    assert "\x1b[?25l" in written  # the cursor is hidden ...
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # ... and shown again
    positions = [written.index(line) for line in LINES]
    assert positions == sorted(positions)
    assert "0/12" in written
    assert "━" in written


def test_the_bar_of_an_epoch_counts_its_samples_and_starts_anew():
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    progress = Progress(console)
    progress.on_start(2, 12)
    bar = progress._bar
    for epoch in EPOCHS:
        (task,) = bar.tasks
        assert (task.description, task.completed, task.total) == (f"epoch {epoch.epoch}/2", 0, 12)
        progress.on_step(8)
        assert task.completed == 8
        progress.on_step(4)
        assert task.completed == 12
        progress.on_epoch(epoch, {})
    progress.on_end()
    assert progress._bar is None
    progress.on_end()  # a second end is none


def test_a_bar_is_drawn_once_in_a_while(monkeypatch):
    """Steps in between are counted with the next that is drawn."""
    times = iter([0.0, 1.0, 1.0, 1.1, 1.3, 1.3, 1.3, 1.4])
    clock = SimpleNamespace(monotonic=lambda: next(times))
    monkeypatch.setattr(agnostic_xent.training.progress, "time", clock)
    monkeypatch.setattr(agnostic_xent.training.progress, "PERIOD", 0.2)
    progress = Progress(Console(file=io.StringIO(), force_terminal=True, width=120))
    progress.on_start(1, 16)
    (task,) = progress._bar.tasks
    seen = []
    for _ in range(4):
        progress.on_step(4)
        seen.append(task.completed)
    progress.on_end()
    assert seen == [4, 4, 12, 12]


def test_a_bar_of_unknown_length():
    written = show(None, force_terminal=True, width=120)
    assert "0/?" in written
    assert all(line in written for line in LINES)


def test_the_end_without_a_start_is_quiet():
    console = Console(file=io.StringIO(), force_terminal=True)
    Progress(console).on_end()
    assert console.file.getvalue() == ""


@pytest.mark.parametrize("terminal", [True, False])
def test_with_fit(terminal):
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, highlight=False)
    model = Sequential(Dense(2))
    x = np.random.default_rng(0).standard_normal((12, 3)).astype("float32")
    options = {"loss": cross_entropy, "optimizer": SGD(0.1), "rng": 0, "batch_size": 4}
    data, params = (x, (x[:, 0] > 0).astype("int64")), model.init(0, (3,))[0]
    fit(model, params, data, epochs=3, callbacks=[Progress(console)], **options)
    written = console.file.getvalue()
    assert [f"epoch {n}/3  loss 0." in written for n in (1, 2, 3, 4)] == [True] * 3 + [False]
    assert ("━" in written) == terminal


def test_lines_go_to_the_error_stream_by_default(capsys):
    progress = Progress()
    progress.on_start(2, 12)
    progress.on_epoch(EPOCHS[0], {})
    progress.on_end()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == LINES[0] + "\n"


def test_a_run_that_goes_on_counts_from_where_it_was():
    """One epoch of three is behind; the time left is that of two at this run's own speed."""
    console = Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)
    progress = Progress(console)
    progress.on_start(3, 12)
    progress.on_resume(History(EPOCHS[:1]), {})
    (task,) = progress._bar.tasks
    assert task.description == "epoch 2/3"
    progress.on_step(6)
    assert progress._left(0.5) == "3:45 left"  # 1.5 epochs, of which a half took 75 s
    progress.on_epoch(EPOCHS[1], {})
    progress.on_end()
    line = LINES[1].replace("2/2", "2/3").replace("  1.0 s  99/s", "  1:15 left  1.0 s")
    assert line in console.file.getvalue()
