"""What a training run tells while it goes: epochs, their history, and whom it calls."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..core.arrays import Array

__all__ = ["Callback", "Epoch", "History"]


@dataclass(frozen=True)
class Epoch:
    """What an epoch did: means over its samples that count, while the weights moved.

    Examples
    --------
    >>> Epoch(1, 0.5, 0.8, 0.1, 2.0, 100.0).accuracy
    0.8
    """

    epoch: int
    """Counted from 1."""
    loss: float
    accuracy: float
    learning_rate: float
    """Of the last step."""
    seconds: float
    """Training alone, without validation."""
    images_per_second: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None

    def to_json(self) -> str:
        """Return a JSON object on one line; null for what is not finite."""
        return json.dumps(_in_json(self), allow_nan=False)


OPTIONAL = ("validation_loss", "validation_accuracy")


class History(list[Epoch]):
    """The epochs of a run, in order.

    Examples
    --------
    >>> History([Epoch(1, 0.5, 0.8, 0.1, 2.0, 100.0)]).column("loss")
    [0.5]
    """

    def column(self, name: str) -> list[Any]:
        """Return one quantity of every epoch, such as "loss" or "validation_accuracy"."""
        return [getattr(epoch, name) for epoch in self]

    def to_json(self) -> str:
        """Return the epochs as a JSON list of objects; null for what is not finite."""
        return json.dumps([_in_json(epoch) for epoch in self], indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return the history that `to_json` has written; what was not finite is NaN.

        Raises
        ------
        ValueError
            If the text is not one.
        """
        try:
            entries = json.loads(text)
            if not isinstance(entries, list):
                raise ValueError("it is no list")
            return cls(map(_from_json, entries))
        except (AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
            raise ValueError(f"text must be the JSON of a history: {error}") from error


def _from_json(values: dict[str, Any]) -> Epoch:
    missing = {name: math.nan for name, v in values.items() if v is None and name not in OPTIONAL}
    epoch = Epoch(**{**values, **missing})
    for value in asdict(epoch).values():
        math.isfinite(value or 0)  # raises if it is no number
    return epoch


def _in_json(epoch: Epoch) -> dict[str, float | None]:
    values = asdict(epoch)
    return {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}


class Callback:
    """What `fit` calls while it runs; override what is needed.

    Examples
    --------
    >>> class StopWhenGood(Callback):
    ...     def on_epoch(self, epoch, params):
    ...         return epoch.accuracy > 0.99
    >>> callbacks = [StopWhenGood()]
    """

    every_rank: ClassVar[bool] = False
    """Whether each rank of a distributed run calls it, or rank 0 alone."""

    def on_start(self, epochs: int, samples: int | None) -> None:
        """Before the first step; ``samples`` an epoch, None if unknown."""

    def on_resume(self, history: History, params: dict[str, Array]) -> None:
        """After `on_start`, where a run goes on from a checkpoint: the epochs behind it."""

    def on_step(self, samples: int) -> None:
        """After each step, or after several, with the number of samples that they took."""

    def on_epoch(self, epoch: Epoch, params: dict[str, Array]) -> bool | None:
        """After each epoch and its validation; True ends the training."""

    def on_end(self) -> None:
        """After the last step, also when the training was interrupted."""
