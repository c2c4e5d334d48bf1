"""What an estimator makes of a dask array: block by block, and only when it is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.arrays import Array


def by_block(estimator: Any, X: Array, method: str) -> Array:
    """Return what a method makes of a dask array: another one, of which nothing is computed."""
    check_is_fitted(estimator)
    sample = np.zeros((1, *X.shape[1:]), X.dtype)
    made = getattr(estimator, method)(sample)[:0]  # also checks shape and dtype of X
    axes = list(range(1, X.ndim))
    return X.rechunk(dict.fromkeys(axes, -1)).map_blocks(
        _of_block,
        estimator,
        method,
        made,
        dtype=made.dtype,
        meta=made,
        drop_axis=axes,
        new_axis=axes[: made.ndim - 1],
        chunks=(X.chunks[0], *((n,) for n in made.shape[1:])),
    )


def _of_block(x: Array, estimator: Any, method: str, nothing: Array) -> Array:
    """Return what a method makes of a block, which may be empty."""
    return getattr(estimator, method)(x) if len(x) else nothing
