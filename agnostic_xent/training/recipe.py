"""How networks are trained unless somebody says otherwise, and a word where that does not work."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..network.augmentation import RandomFlip, RandomShift
from ..network.containers import Chain, Sequential
from ..network.layers import Layer, Params, Shape, Standardize
from ..network.signal_augmentation import RandomRotation3d
from .history import Callback, Epoch
from .optimizers import AdamW
from .schedules import cosine, warmup

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["standardized"]

RATE = 5e-3
"""The greatest learning rate, of `convnet`."""
LOOKED_AT = 10_000
"""Samples whose statistics are those of all."""
DECAY = 0.05
"""Of weights."""
EPOCHS, STEPS = (20, 100), 640
"""The fewest and the most epochs of a classifier, and the steps that more than the fewest make."""
WARM = 20
"""A part of the steps, one in so many, has a rate that still rises."""
WARM_OF_SIGNALS = 4
"""The same of signals, nearly as in the one-cycle policy (arXiv:1708.07120)."""


def standardizes(model: Layer) -> bool:
    """Return whether a model begins by `Standardize`."""
    return isinstance(model, Sequential) and isinstance(model.layers[0], Standardize)


def some_of(samples: int) -> NDArray[np.int64]:
    """Return the rows of samples that are looked at for the statistics of all."""
    import numpy as np

    return np.unique(np.linspace(0, samples - 1, LOOKED_AT).astype("int64"))


def standardized(model: Layer, params: Mapping[str, Any], x: NDArray[Any]) -> Params:
    """Return parameters with the statistics of data, where a model begins by `Standardize`.

    Their means and standard deviations, by channel of images and by feature of rows; 1 where
    numbers do not differ.

    Parameters
    ----------
    model : layer
        A `Sequential` whose first layer is `Standardize`; of another one nothing changes.
    params : dict of str to ndarray
        From ``model.init``.
    x : ndarray, shape (N, C, H, W), (N, C, L), (N, C, D, H, W) or (N, features)
        The samples of the training, or some of them.

    Examples
    --------
    >>> import numpy as np
    >>> model, x = Sequential(Standardize(), Dense(2)), np.asarray([[0.0, 5.0], [2.0, 5.0]])
    >>> params = standardized(model, model.init(0, (2,))[0], x)
    >>> params["0.mean"].tolist(), params["0.std"].tolist()
    ([1.0, 5.0], [1.0, 1.0])
    """
    if not standardizes(model):
        return dict(params)
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axis=axes, dtype="float64", keepdims=True)[0]
    std = x.std(axis=axes, dtype="float64", keepdims=True)[0]
    std[std == 0] = 1
    like: np.ndarray[Any, Any] = params["0.mean"]
    return {**params, "0.mean": mean.astype(like.dtype), "0.std": std.astype(like.dtype)}


SHIFT = 12
"""Images are shifted by up to this part of a side."""
DEGREES = 25
"""Sensors are turned by up to so many."""


def changes_of_images(shape: Shape) -> tuple[Layer, ...]:
    """Return the layers that augment images (C, H, W): mirrored, and shifted a little."""
    if len(shape) != 3:
        raise ValueError(f"images have shape (C, H, W), but samples have {shape}")
    height, width = (math.ceil(side / SHIFT) for side in shape[1:])
    return RandomFlip(), RandomShift((height, width))


def changes_of_sensors(shape: Shape) -> tuple[Layer, ...]:
    """Return the layers that augment signals (C, L) of three-axis sensors: turned a little."""
    if shape[0] % 3:
        raise ValueError(f"three-axis sensors have 3, 6, ... channels, but samples have {shape[0]}")
    return (RandomRotation3d(DEGREES),)


CHANGES = {"images": changes_of_images, "sensors": changes_of_sensors}


def augmented(model: Layer, layers: Sequence[Layer]) -> Layer:
    """Return a model that goes through more layers first, or right behind `Standardize`.

    Rotations of sensors always come first, while all axes have one unit. The layers have no
    parameters; those of the model keep their names.
    """
    if not layers:
        return model
    steps = {"": model} if not isinstance(model, Sequential) else dict(model._as_run)
    first = {"0": steps.pop("0")} if standardizes(model) else {}
    front = [layer for layer in layers if isinstance(layer, RandomRotation3d)]
    behind = [layer for layer in layers if layer not in front]
    turned = {"rotation": Sequential(*front)} if front else {}
    changed = {"augmentation": Sequential(*behind)} if behind else {}
    return Chain({**turned, **first, **changed, **steps})


def epochs_of(steps: int) -> int:
    """Return how many epochs of so many steps each train a classifier."""
    fewest, most = EPOCHS
    return min(most, max(fewest, math.ceil(STEPS / steps)))


def recipe_optimizer(rate: float, steps: int, *, signals: bool = False) -> AdamW:
    """Return AdamW whose rate rises to the given one, then falls to 0 along half a cosine."""
    rising = steps // (WARM_OF_SIGNALS if signals else WARM)
    schedule = warmup(cosine(rate, steps=steps), steps=max(1, rising))
    return AdamW(schedule, weight_decay=DECAY)


# --- a training that learns nothing --------------------------------------------------------------

PATIENCE = 3
"""Epochs after which a loss should have left chance."""
LEAST_STEPS = 30
"""And steps."""
CHANCE = 0.98
"""The share of the loss of chance below which a loss has left it."""
FALLS = 0.998
"""The share of all losses before below which one still falls."""
DEVIATIONS = 4
"""Standard deviations above that of chance where an accuracy has left it."""


class AtChance(Callback):
    """Say so, once, if a training has not left chance after the first epochs, nor is about to.

    Parameters
    ----------
    counts : array, shape (classes,) or (labels, 2)
        Samples, or their weights, of each class; of several labels, with and without each.
    batch_size : int
        Samples a step.
    tell : callable
        Takes the text.
    """

    def __init__(self, counts: NDArray[Any], batch_size: int, tell: Callable[[str], None]):
        rows = counts.reshape(-1, counts.shape[-1])
        self._chance = sum(map(chance_loss, rows)) / len(rows)
        self._share = float((rows.max(axis=1) / rows.sum(axis=1)).mean())
        self._tell, self._batch_size = tell, batch_size
        self._first = self._samples = 0
        self._watches, self._least = False, math.inf

    def on_start(self, epochs: int, samples: int | None) -> None:
        """Watch anew, from the first epoch on that tells something."""
        self._samples, self._watches, self._least = samples or 0, bool(samples), math.inf
        steps = math.ceil(self._samples / self._batch_size)
        enough = math.ceil(LEAST_STEPS / max(1, steps))
        self._first = max(PATIENCE, enough, epochs // WARM + 1)  # the rate has risen by then

    def on_epoch(self, epoch: Epoch, params: Params) -> None:
        """Look at the loss and the accuracy of one epoch."""
        if not self._watches:
            return
        if self._has_left(epoch):
            self._watches = False
        elif epoch.epoch >= self._first and epoch.loss > FALLS * self._least:
            self._watches = False
            self._tell(
                f"after {epoch.epoch} epochs the loss, {epoch.loss:.4g}, is still that of chance, "
                f"{self._chance:.4g}. The likely reasons: a learning rate that is too high (ReLUs "
                "that no sample reaches any more) or too low, samples that are not scaled, or "
                "labels that do not belong to the samples"
            )
        self._least = min(self._least, epoch.loss)

    def _has_left(self, epoch: Epoch) -> bool:
        deviation = math.sqrt(self._share * (1 - self._share) / self._samples)
        return (
            epoch.loss <= CHANCE * self._chance
            or epoch.accuracy > self._share + DEVIATIONS * deviation
        )


def chance_loss(counts: NDArray[Any]) -> float:
    """Return the entropy of labels, of which there are so many of each class."""
    total, some = float(counts.sum()), [float(count) for count in counts if count > 0]
    return -sum(count / total * math.log(count / total) for count in some)
