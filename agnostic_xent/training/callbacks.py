"""Callbacks of `fit` that stop a run, keep its best parameters or write a log."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.checks import integer, number
from ..core.files import write_atomically
from ..core.requirements import missing
from ..network.checkpoints import save_params
from ..network.layers import Params
from .history import Callback, Epoch, History

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter


__all__ = ["EarlyStopping", "JsonLines", "KeepBest", "TensorBoard"]


MONITORS = ("validation_loss", "validation_accuracy", "loss", "accuracy")


class _Monitor(Callback):
    """What watches one quantity of the epochs: a loss should fall, an accuracy rise."""

    def __init__(self, monitor: str, min_delta: float = 0.0):
        if monitor not in MONITORS:
            raise ValueError(f"monitor must be one of {', '.join(MONITORS)}; got {monitor!r}")
        self.monitor, self.min_delta = monitor, number("min_delta", min_delta, "[0, inf)")
        self.best_epoch, self._least = 0, math.inf

    def on_start(self, epochs: int, samples: int | None) -> None:
        """Forget an earlier run."""
        self.best_epoch, self._least = 0, math.inf

    def on_resume(self, history: History, params: Params) -> None:
        """See the epochs before the interruption."""
        for epoch in history:
            self._is_best(epoch)

    def _is_best(self, epoch: Epoch) -> bool:
        value = getattr(epoch, self.monitor)
        if value is None:
            raise ValueError(f"monitor={self.monitor!r} needs fit(..., validation=...)")
        cost = -value if self.monitor.endswith("accuracy") else value
        if not cost < self._least - self.min_delta:  # NaN never is
            return False
        self.best_epoch, self._least = epoch.epoch, cost
        return True


class EarlyStopping(_Monitor):
    """End the training when a quantity has not become better for some epochs.

    Parameters
    ----------
    patience : int
        So many epochs after the best one the training ends.
    monitor : {"validation_loss", "validation_accuracy", "loss", "accuracy"}
        What has to become better.
    min_delta : float
        By more than this.

    Attributes
    ----------
    best_epoch : int
        Counted from 1; `KeepBest` keeps its parameters.

    Examples
    --------
    >>> data, w = (xp.asarray([[0.0], [1.0]]), xp.asarray([0, 1])), {"0.weight": xp.zeros((2, 1))}
    >>> stopping = EarlyStopping(patience=3, monitor="loss", min_delta=10.0)
    >>> _, history = fit(
    ...     Sequential(Dense(2)), w, data, loss=cross_entropy, optimizer=SGD(0.1), epochs=100,
    ...     callbacks=[stopping],
    ... )
    >>> len(history), stopping.best_epoch
    (4, 1)
    """

    def __init__(self, patience: int, monitor: str = "validation_loss", *, min_delta: float = 0.0):
        super().__init__(monitor, min_delta)
        self.patience = integer("patience", patience)

    def on_epoch(self, epoch: Epoch, params: Params) -> bool:
        """End the training when patience is at its end."""
        self._is_best(epoch)
        return epoch.epoch - self.best_epoch >= self.patience


class KeepBest(_Monitor):
    """Keep the parameters of the best epoch in a file, which `load_params` reads.

    Parameters
    ----------
    path : path
        The safetensors file, replaced whole when an epoch is better than all before.
    monitor : {"validation_loss", "validation_accuracy", "loss", "accuracy"}
        What is to be best.

    Attributes
    ----------
    best_epoch : int
        Counted from 1.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "best.safetensors"
    >>> data, w = (xp.asarray([[0.0], [1.0]]), xp.asarray([0, 1])), {"0.weight": xp.zeros((2, 1))}
    >>> w, _ = fit(
    ...     Sequential(Dense(2)), w, data, loss=cross_entropy, optimizer=SGD(0.1), epochs=3,
    ...     callbacks=[KeepBest(path, "loss")],
    ... )
    >>> bool((load_params(path)["0.weight"] == w["0.weight"]).all())
    True
    """

    def __init__(self, path: str | os.PathLike[str], monitor: str = "validation_loss"):
        super().__init__(monitor)
        self.path = Path(path)

    def on_resume(self, history: History, params: Params) -> None:
        """Go on with the file that is there; without one, the best of what comes is kept."""
        if self.path.exists():
            super().on_resume(history, params)

    def on_epoch(self, epoch: Epoch, params: Params) -> None:
        """Write the parameters if they are the best so far."""
        if self._is_best(epoch):
            save_params(self.path, params)


# --- logs ----------------------------------------------------------------------------------------


class JsonLines(Callback):
    """Write a line of JSON after each epoch; a file of an earlier run is replaced.

    Parameters
    ----------
    path : path
        The file. After an interruption it goes on where the checkpoint stands.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "log.jsonl"
    >>> log = JsonLines(path)
    >>> log.on_start(1, 100)
    >>> log.on_epoch(Epoch(1, 0.5, 0.75, 0.1, 2.0, 50.0), {})
    >>> path.read_text()[:42]
    '{"epoch": 1, "loss": 0.5, "accuracy": 0.75'
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)

    def on_start(self, epochs: int, samples: int | None) -> None:
        """Begin an empty file."""
        write_atomically(self.path, b"")

    def on_resume(self, history: History, params: Params) -> None:
        """Write the epochs of the checkpoint; one that ran after it, runs again."""
        write_atomically(self.path, "".join(map(_line, history)).encode())

    def on_epoch(self, epoch: Epoch, params: Params) -> None:
        """Write the epoch's line."""
        with self.path.open("a") as file:
            file.write(_line(epoch))


def _line(epoch: Epoch) -> str:
    return epoch.to_json() + "\n"


class TensorBoard(Callback):
    """Write what each epoch did for TensorBoard to show; needs the package tensorboardX.

    Parameters
    ----------
    folder : path
        Of one run; ``tensorboard --logdir FOLDER`` shows it.

    Examples
    --------
    >>> import tempfile
    >>> callbacks = [TensorBoard(tempfile.mkdtemp())]
    """

    CURVES = {  # noqa: RUF012
        "loss": "loss/training",
        "validation_loss": "loss/validation",
        "accuracy": "accuracy/training",
        "validation_accuracy": "accuracy/validation",
        "learning_rate": "run/learning_rate",
        "images_per_second": "run/images_per_second",
    }

    def __init__(self, folder: str | os.PathLike[str]):
        try:
            import tensorboardX
        except ImportError as error:
            raise missing("TensorBoard", "tensorboardX") from error
        self._open = tensorboardX.SummaryWriter
        self.folder = Path(folder)
        self._writer: SummaryWriter | None = None

    def on_epoch(self, epoch: Epoch, params: Params) -> None:
        """Write the epoch's numbers."""
        if self._writer is None:  # what was written of this and later epochs counts no more
            self._writer = self._open(str(self.folder), purge_step=epoch.epoch)
        for name, title in self.CURVES.items():
            if (value := getattr(epoch, name)) is not None:
                self._writer.add_scalar(title, value, epoch.epoch)
        self._writer.flush()

    def on_end(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
