"""Images of levels, 0 to 255, and of shares, 0 to 1: which of them training saw holds for later."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.arrays import Array, array_namespace, dtype_kind
from ..core.conversion import detached
from ..training.batches import is_stored

WHITE = 255


@dataclass(frozen=True)
class Levels:
    """What training decided about levels."""

    divided: bool = False
    """Whether it saw uint8, or other integers of 0 to 255; all later numbers are divided by 255."""
    shares: bool = False
    """Whether it saw numbers from 0 to 1; later uint8 are divided by 255, as they are levels."""

    @classmethod
    def of(cls, X: Array) -> Levels:
        """Return what images of a training decide. Those in files and graphs are not looked at."""
        X = detached(X)
        if is_stored(X):
            return cls(_is_uint8(X))
        divided = _greatest(X) > 1 if _is_uint8(X) else _are_levels(X)
        return cls(divided, not _is_uint8(X) and _of_shares(X))

    def divisor(self, X: Array) -> int:
        """Return what images are divided by.

        Raises
        ------
        ValueError
            If they are shares, and training saw levels; or levels of more than 8 bits, and
            training saw shares.
        """
        X = detached(X)
        if not self.divided:
            levels = self.shares and _are_integers(X) and _greatest(X) > 1
            if levels and _greatest(X) > WHITE:
                raise ValueError(
                    f"X holds integers up to {_greatest(X):g}, but the classifier was fitted on "
                    "numbers from 0 to 1; divide X by its white"
                )
            return WHITE if levels else 1
        if not is_stored(X) and _of_shares(X) and _has_fractions(X):
            raise ValueError(
                "X holds numbers from 0 to 1, but the classifier was fitted on levels from 0 to "
                "255; multiply X by 255"
            )
        return WHITE


def _is_uint8(X: Array) -> bool:
    return str(X.dtype).rpartition(".")[2] == "uint8"


def _are_integers(X: Array) -> bool:
    return dtype_kind(array_namespace(X), X.dtype) == "integral"


def _are_levels(X: Array) -> bool:
    """Return whether images of another dtype than uint8 are of integers that use up its range."""
    return _are_integers(X) and WHITE // 2 < _greatest(X) <= WHITE and _least(X) >= 0


def _least(X: Array) -> float:
    return float(array_namespace(X).min(X))


def _greatest(X: Array) -> float:
    return float(array_namespace(X).max(X))


def _of_shares(X: Array) -> bool:
    xp = array_namespace(X)
    floats = dtype_kind(xp, X.dtype) == "real floating"
    return floats and float(xp.min(X)) >= 0 and _greatest(X) <= 1


def _has_fractions(X: Array) -> bool:
    xp = array_namespace(X)
    return bool(xp.any(xp.trunc(X) != X))
