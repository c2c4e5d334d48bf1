"""How sure the coefficients of a logistic regression are: their standard errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

from ..core.arrays import Array, array_namespace
from ..core.conversion import to_numpy
from ..operations.activations import sigmoid
from .rows import affine, products_about
from .samples import Samples, dtype_name


def standard_errors(
    samples: Samples,
    weights: NDArray[np.float64],
    w: Array,
    b: Array,
    penalty: float,
    fit_intercept: bool,
) -> NDArray[np.float64]:
    """Return those of the weights (1, features) of two classes, and of a fitted intercept.

    They are the roots of the diagonal of the inverse of ``sum_i a_i p_i (1 - p_i) x_i^T x_i``, to
    which the penalty is added, but for the intercept; x has a 1 at its end.

    Raises
    ------
    ValueError
        If there is no inverse: coefficients can then change without a change of the objective.
    """
    size = samples.features
    hessian, zero = np.zeros((size + 1, size + 1)), samples.zeros(1, size)
    for span in samples.spans():
        x = samples.take(span)
        p = sigmoid(affine(x, w, b)[:, 0])
        curvature = p * (1 - p) * samples.numbers(weights[span])
        products, row = map(to_numpy, products_about(zero, curvature, x))
        hessian[:size, :size] += products
        hessian[size, :size] += row[0]
        hessian[size, size] += float(array_namespace(p).sum(curvature))
    hessian[:size, size] = hessian[size, :size]
    hessian[range(size), range(size)] += penalty
    hessian = hessian[: size + fit_intercept, : size + fit_intercept]
    scale = 1 / np.sqrt(np.maximum(np.diag(hessian), np.finfo(np.float64).tiny))
    scaled = hessian * scale * scale[:, None]
    if np.linalg.cond(scaled) * size * np.finfo(dtype_name(p)).eps > 1:
        raise ValueError(
            "the coefficients have no standard errors: some features are sums of others, or "
            "constant, or separate the classes; leave them out, or lower C"
        )
    errors: NDArray[np.float64] = np.sqrt(np.diag(np.linalg.inv(scaled))) * scale
    return errors


def table(
    names: list[str], values: NDArray[np.float64], errors: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    """Return, by column, coefficients with their errors, z and p values and odds ratios."""
    z = values / errors
    with np.errstate(over="ignore"):
        odds = np.exp(values)
    return {
        "name": np.asarray(names),
        "coefficient": values,
        "standard_error": errors,
        "z": z,
        "p": erfc(np.abs(z) / np.sqrt(2)),
        "odds_ratio": odds,
    }
