"""Progress of a training run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ..core.arrays import Array
from .history import Callback, Epoch, History

if TYPE_CHECKING:  # rich is slow to import, and needed only where somebody looks
    from rich.console import Console
    from rich.progress import Progress as Bar

__all__ = ["Progress"]

PERIOD = 1.0
"""Seconds between two drawings of the bar."""
WIDTH = 80
"""Columns of a line."""


class Progress(Callback):
    """Show the progress of `fit`: one line an epoch, and on a terminal a bar for the running one.

    Both show how fast it goes and how much time is left of the whole run, at the speed so far. A
    line has up to 80 columns.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to write; None is the standard error stream.

    Examples
    --------
    >>> callbacks = [Progress()]
    """

    def __init__(self, console: Console | None = None):
        self._given = console
        self._bar: Bar | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_given": None, "_bar": None}  # a terminal cannot be stored

    def __deepcopy__(self, memo: dict[int, Any]) -> Progress:
        return Progress(self._given)

    def on_start(self, epochs: int, samples: int | None) -> None:
        """Show the bar of the first epoch."""
        from rich import progress
        from rich.console import Console

        self._console = self._given or Console(stderr=True, highlight=False)
        self._epochs, self._behind, self._now = epochs, 0, 1
        self._undrawn, self._drawn = 0, 0.0
        self._started = time.monotonic()
        if self._console.is_terminal:
            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(WIDTH // 4),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[speed]}"),
            )
            options: Any = {"console": self._console, "transient": True, "auto_refresh": False}
            self._bar = progress.Progress(*columns, **options)
            self._task = self._bar.add_task(self._title(1), total=samples, speed="")
            self._bar.start()

    def on_resume(self, history: History, params: dict[str, Array]) -> None:
        """Count from the epochs behind."""
        self._behind = len(history)
        self._begin(len(history) + 1)

    def on_step(self, samples: int) -> None:
        """Advance the bar, once a second: to draw it takes milliseconds."""
        self._undrawn += samples
        if self._bar is None or time.monotonic() < self._drawn + PERIOD:
            return
        self._bar.advance(self._task, self._undrawn)
        task = self._bar.tasks[self._task]
        done = task.completed / task.total if task.total else 0.0
        text = f"{task.speed:,.0f}/s  {self._left(done)}" if task.speed else ""
        self._bar.update(self._task, speed=text, refresh=True)
        self._undrawn, self._drawn = 0, time.monotonic()

    def on_epoch(self, epoch: Epoch, params: dict[str, Array]) -> None:
        """Print the epoch's line, and show the bar of the next one."""
        line = f"{self._title(epoch.epoch)}  loss {_scores(epoch.loss, epoch.accuracy)}"
        if epoch.validation_loss is not None:
            line += f"  val {_scores(epoch.validation_loss, epoch.validation_accuracy)}"
        if epoch.epoch < self._epochs:
            line += f"  {self._left(1.0)}"
        for speed in (f"  {epoch.seconds:.1f} s", f"  {epoch.images_per_second:,.0f}/s"):
            line += speed if len(line) + len(speed) <= WIDTH else ""
        self._console.print(line, soft_wrap=True)
        self._begin(epoch.epoch + 1)

    def on_end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _begin(self, number: int) -> None:
        self._now, self._undrawn = number, 0
        if self._bar is not None and number <= self._epochs:
            self._bar.reset(self._task, description=self._title(number), speed="")
            self._bar.refresh()

    def _left(self, part: float) -> str:
        """Return the time left of the run, when a part of the running epoch is done."""
        done = self._now - 1 - self._behind + part
        left = self._epochs - self._behind - done
        if done == 0:  # nobody knows how many samples an epoch has
            return ""
        seconds = round(left * (time.monotonic() - self._started) / done)
        return f"{seconds // 60}:{seconds % 60:02} left"

    def _title(self, number: int) -> str:
        return f"epoch {number}/{self._epochs}"


def _scores(loss: float, accuracy: float | None) -> str:
    """Return a loss, in up to seven characters, and an accuracy."""
    if 1e-3 <= loss < 1:
        return f"{loss:.4f} acc {accuracy:.4f}"
    return f"{loss:{'.4g' if 1 <= loss < 1e4 else '.1e'}} acc {accuracy:.4f}"
