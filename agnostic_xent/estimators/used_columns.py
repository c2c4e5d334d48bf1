"""Sparse samples whose columns are mostly empty, such as hashed words: the others alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..core.arrays import Array, array_namespace, device
from ..core.sparse import CSR
from .rows import sums
from .samples import Samples


@dataclass(frozen=True)
class UsedColumns:
    """The columns that have entries; the coefficients of the others are 0 at the optimum."""

    used: Array
    """Booleans, shape (features,)."""
    samples: Samples
    """The samples without the other columns."""

    def coordinates(self, w: Array) -> Array:
        """Return the coefficients of the used columns."""
        xp = array_namespace(w)
        return xp.take(w, xp.nonzero(self.used)[0], axis=1)

    def coefficients(self, v: Array) -> Array:
        """Return the coefficients of all columns."""
        xp = array_namespace(v)
        padded = xp.concat([v, xp.zeros_like(v[:, :1])], axis=1)
        places = xp.where(self.used, _places(self.used), v.shape[1])
        return xp.take(padded, places, axis=1)


def used_columns(samples: Samples) -> UsedColumns | None:
    """Return the columns of sparse samples that have entries, if that is less than half of them."""
    x = samples.x
    if not isinstance(x, CSR) or not x.entries:
        return None
    xp = array_namespace(x.data)
    ones = xp.ones((1, len(x)), dtype=x.dtype, device=device(x.data))
    used = sums(ones, replace(x, data=xp.ones_like(x.data)))[0, :] > 0
    count = int(xp.sum(xp.astype(used, xp.int64)))
    if 2 * count >= x.columns:
        return None
    places = xp.astype(_places(used), x.indices.dtype)
    own = replace(x, indices=xp.take(places, x.indices), columns=count)
    return UsedColumns(used, replace(samples, x=own))


def _places(used: Array) -> Array:
    """Return where each used column is among the used ones."""
    xp = array_namespace(used)
    return xp.cumulative_sum(xp.astype(used, xp.int64)) - 1
