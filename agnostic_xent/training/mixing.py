"""Batches whose samples are mixed in pairs, and their targets as they are: mixup and CutMix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.arrays import Array, array_namespace, constant, device
from ..core.checks import check_ndim, set_numbers
from ..network.layers import Layer
from ..operations.labels import is_labels
from .batches import Batch
from .objective import CLASS_LOSSES, THRESHOLDS, Loss, operation_of, options_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CutMix", "Mixup"]


@dataclass(frozen=True)
class Mixup:
    """Train on means of two samples and of their targets: an option of `fit`.

    ``x = s * x1 + (1 - s) * x2`` and the same of the targets. The second samples are those of the
    batch in another order; the share s is drawn for each batch from Beta(alpha, alpha).

    Parameters
    ----------
    alpha : float
        0.1 to 0.4 mix a little; 1 draws all shares with the same probability.

    Examples
    --------
    >>> x, y = xp.asarray([[0.0], [1.0]] * 8), xp.asarray([0, 1] * 8)
    >>> w = {"0.weight": xp.zeros((2, 1)), "0.bias": xp.zeros(2)}
    >>> task = {"loss": cross_entropy, "optimizer": SGD(1.0), "epochs": 9, "rng": 0}
    >>> w, _ = fit(Sequential(Dense(2)), w, (x, y), mix=Mixup(0.2), **task)
    >>> evaluate(Sequential(Dense(2)), w, (x, y), loss=cross_entropy)[1]
    1.0

    References
    ----------
    Zhang et al., mixup: beyond empirical risk minimization, arXiv:1710.09412.
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        set_numbers(self, alpha="(0, inf)")

    def mixed(self, x: Array, other: Array, rng: np.random.Generator) -> tuple[Array, float]:
        """Return samples with the share of x in them."""
        share = float(rng.beta(self.alpha, self.alpha))
        return mean(x, other, share), share


@dataclass(frozen=True)
class CutMix:
    """Train on images with a rectangle of another one, and on means of both targets.

    An option of `fit`. The rectangle has the image's proportions, and its middle is any pixel; its
    area is drawn for each batch: a share of the image of 1 - s, where s is of Beta(alpha, alpha).
    What of it lies within the image is the share of the other target.

    Parameters
    ----------
    alpha : float
        1 draws all areas with the same probability.

    Examples
    --------
    >>> x, y = xp.ones((8, 1, 4, 4), dtype=xp.float32), xp.asarray([0, 1] * 4)
    >>> model = Sequential(Conv2d(2, 3), Flatten(), Dense(2))
    >>> w = to_backend(model.init(0, (1, 4, 4))[0], xp)
    >>> task = {"loss": cross_entropy, "optimizer": SGD(0.1), "epochs": 1, "rng": 0}
    >>> _, history = fit(model, w, (x, y), mix=CutMix(), **task)
    >>> len(history)
    1

    References
    ----------
    Yun et al., CutMix, arXiv:1905.04899.
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        set_numbers(self, alpha="(0, inf)")

    def mixed(self, x: Array, other: Array, rng: np.random.Generator) -> tuple[Array, float]:
        """Return samples with the share of x in them."""
        import numpy as np

        check_ndim("x", x, 4, "(N, C, H, W), for CutMix")
        xp, (height, width) = array_namespace(x), x.shape[2:]
        side = math.sqrt(1 - float(rng.beta(self.alpha, self.alpha)))
        rows, columns = (
            np.abs(np.arange(n) - math.floor(rng.random() * n)) < side * n / 2
            for n in (height, width)
        )
        cut = rows[:, None] & columns
        y = xp.where(xp.asarray(cut, device=device(x)), other, x)
        return y, 1 - int(cut.sum()) / (height * width)


Mix: TypeAlias = Mixup | CutMix


def mean(x: Array, other: Array, share: float) -> Array:
    """Return the mean of two arrays, with the share of the first."""
    return constant(share, x) * x + constant(1 - share, x) * other


class Mixing:
    """How a run mixes its batches.

    Raises
    ------
    TypeError, ValueError
        If targets of the loss cannot be mixed.
    """

    def __init__(self, how: Mix, model: Layer, loss: Loss):
        if not isinstance(how, (Mixup, CutMix)):
            raise TypeError(f"mix must be one such as Mixup(0.2) or CutMix(), got {how!r}")
        if operation_of(loss) not in (*CLASS_LOSSES, *THRESHOLDS):
            names = ", ".join(operation.name for operation in (*CLASS_LOSSES, *THRESHOLDS))
            raise TypeError(f"mix needs a loss whose targets can be mixed ({names}), got {loss!r}")
        for name in ("ignore_index", "sample_weight"):
            if options_of(loss).get(name) is not None:
                raise ValueError(f"mix is for losses without {name}, which belongs to one sample")
        self.how, self._model = how, model
        self._classes = 0

    def __call__(
        self, batch: Batch, params: Mapping[str, Array], rng: Any, own: slice = slice(None)
    ) -> Batch:
        """Return a batch, mixed; or some of its samples, whose partners may be any of it."""
        x, y = batch
        xp = array_namespace(x)
        y = self._numbers(x, y, params)
        partners = rng.permutation(int(x.shape[0]))[own]
        order = xp.asarray(partners, device=device(x))
        other, y_other = (xp.take(part, order, axis=0) for part in (x, y))
        x, share = self.how.mixed(x[own, ...], other, rng)
        return x, mean(y[own, ...], y_other, share)

    def _numbers(self, x: Array, y: Array, params: Mapping[str, Array]) -> Array:
        """Return targets as numbers: of labels, the probability of each class."""
        xp = array_namespace(y)
        if not is_labels(y):
            return y
        check_ndim("y", y, 1, "(N,), one label a sample, to be mixed")
        if not self._classes:
            self._classes = int(self._model(params, x[:1, ...]).shape[-1])
        classes = xp.arange(self._classes, dtype=y.dtype, device=device(y))
        return xp.astype(y[:, None] == classes, x.dtype)
