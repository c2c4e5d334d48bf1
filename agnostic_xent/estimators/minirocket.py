"""MiniRocket: signals as features for a linear model, on the arrays of any library."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from numbers import Integral
from operator import add
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin, clone
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import check_is_fitted

from ..core.arrays import Array, array_namespace, device, is_dask
from ..core.checks import integer
from ..core.conversion import to_numpy
from ..operations.minirocket import (
    KERNELS,
    TAPS,
    Convolutions,
    Dilated,
    each_convolution,
    positive_proportions,
)
from .blocks import by_block
from .samples import Samples, as_array, check_home, checked_samples

__all__ = ["MiniRocket"]

MOST_CHANNELS = 9
"""How many channels a convolution sums over at most."""
GOLDEN = (math.sqrt(5) + 1) / 2


class MiniRocket(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of signals for a linear model: 10,000 proportions of convolutions above a bias.

    Feature f of a signal is ``mean_t [z_t > b_f]``, the part of the values z of a convolution that
    exceeds a bias. The convolutions have 9 taps with the weights -1 and 2, three times the latter:
    84 kernels, each with up to 32 dilations. Each sums over some of the channels. The biases are
    quantiles of the convolution of one of the signals. Which channels and signals is random.

    Parameters
    ----------
    n_kernels : int
        How many features there are, rounded down to a multiple of 84, and 84 at least.
    max_dilations_per_kernel : int
        Dilations of a kernel at most.
    random_state : int, RandomState or None
        Draws the channels and the signals.

    Attributes
    ----------
    biases_ : array, shape (features,)
        The biases, float32, of the library and device of X.
    dilations_ : tuple of int
        The dilations in order.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn; a signal of (C, L) has C * L features.

    Notes
    -----
    X may be an array of NumPy, CuPy, torch, JAX or another library that follows the Array API
    standard, and the features are of the same. All libraries give the same numbers, those of
    aeon 1.6 where ``random_state`` is a number. Numbers become float32. Memory-mapped
    arrays are read block by block, and the features of a dask array are one, of which nothing is
    computed.

    References
    ----------
    A. Dempster, D. F. Schmidt, G. I. Webb. MiniRocket: a very fast (almost) deterministic transform
    for time series classification. KDD 2021. arXiv:2012.08791.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.pipeline import make_pipeline
    >>> t, rng = np.arange(100), np.random.default_rng(0)
    >>> fast = rng.random(60) < 0.5
    >>> x = np.sin(t / np.where(fast, 2, 3)[:, None]) + rng.standard_normal((60, 100))
    >>> model = make_pipeline(MiniRocket(random_state=0), LogisticRegression())
    >>> model.fit(x[:40], fast[:40]).score(x[40:], fast[40:])
    1.0
    """

    def __init__(
        self,
        n_kernels: int = 10_000,
        *,
        max_dilations_per_kernel: int = 32,
        random_state: Any = None,
    ):
        self.n_kernels = n_kernels
        self.max_dilations_per_kernel = max_dilations_per_kernel
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> Self:
        """Choose the dilations, the channels and the biases.

        Parameters
        ----------
        X : array or array-like, shape (N, C, L) or (N, L)
            Signals, dense and finite. Fewer than 9 numbers get zeros behind them.
        y : None
            Not used.

        Returns
        -------
        MiniRocket
            Itself.
        """
        of_kernel = max(1, integer("n_kernels", self.n_kernels) // len(KERNELS))
        most = integer("max_dilations_per_kernel", self.max_dilations_per_kernel)
        samples, shape = self._signals(X, reset=True)
        seed = self._seed()
        plan = planned(shape[0], max(shape[1], TAPS), of_kernel, most, np.random.RandomState(seed))
        rows = np.random.RandomState(seed).randint(len(samples), size=len(plan.starts) - 1)
        chosen, places = np.unique(rows, return_inverse=True)
        signals = as_signals(to_numpy(samples.take(chosen)), shape)
        biases = quantiles(signals, places, plan)
        self.biases_ = samples.numbers(biases)
        self.dilations_ = tuple(plan.dilations.tolist())
        self._plan = tuple(plan)[1:]  # a pickle names no class that may move
        self._shape = shape
        return self

    def transform(self, X: Any) -> Array:
        """Return the features of signals.

        Parameters
        ----------
        X : array or array-like, shape (N, C, L) or (N, L)
            As for ``fit``, in the same library and on the same device.

        Returns
        -------
        array, shape (N, features)
            Of the library of X, float32.
        """
        check_is_fitted(self)
        if is_dask(X):
            return by_block(self, X, "transform")
        samples, shape = self._signals(X, reset=False)
        check_home(self, samples.like, self.biases_, "transform")
        plan = Convolutions(self.biases_, *self._plan)
        found = [
            positive_proportions([as_signals(samples.take(span), shape)], plan)
            for span in samples.spans()
        ]
        if len(found) == 1:
            return found[0]
        return array_namespace(samples.like).concat(found, axis=0)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __sklearn_array_api_convert__(self, convert: Callable[[Array], Array]) -> Self:
        """Return a copy whose biases went through ``convert``; what ``to_backend`` calls."""
        copy: Self = clone(self)
        for name, value in vars(self).items():
            setattr(copy, name, convert(value) if name == "biases_" else value)
        return copy

    @property
    def _n_features_out(self) -> int:
        return int(self.biases_.shape[0])

    def _seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _signals(self, X: Any, *, reset: bool) -> tuple[Samples, tuple[int, int]]:
        """Check signals; return them as rows, and their shape (C, L)."""
        X = as_array(X)
        given = tuple(getattr(X, "shape", ()))
        if len(given) > 3:
            raise ValueError(f"X must have shape (N, C, L) or (N, L), got {given}")
        if len(given) == 3:
            X = array_namespace(X).reshape(X, (given[0], given[1] * given[2]))
        samples = checked_samples(self, X, reset=reset, dtypes=("float32",))
        shape = given[1:] if len(given) == 3 else (1, samples.features)
        if not reset and shape != self._shape:
            raise ValueError(f"X must hold signals of shape {self._shape}, as fitted; got {shape}")
        return samples, shape


def as_signals(rows: Array, shape: tuple[int, int]) -> Array:
    """Return rows as signals (N, C, L), short ones with zeros behind them."""
    xp = array_namespace(rows)
    x, missing = xp.reshape(rows, (-1, *shape)), max(0, TAPS - shape[1])
    if not missing:
        return x
    zeros = xp.zeros((*x.shape[:2], missing), dtype=x.dtype, device=device(x))
    return xp.concat([x, zeros], axis=2)


# --- what is fitted ------------------------------------------------------------------------------


def planned(
    channels: int, length: int, of_kernel: int, most: int, rng: np.random.RandomState
) -> Convolutions:
    """Return convolutions for signals (C, L), with biases of 0 and so many features a kernel."""
    dilations, counts = spread(length, of_kernel, most)
    convolutions = len(KERNELS) * len(dilations)
    exponents = rng.uniform(0, np.log2(min(channels, MOST_CHANNELS) + 1), convolutions)
    sizes = (2**exponents).astype(np.int64)
    chosen = [rng.choice(channels, size, replace=False) for size in sizes]
    return Convolutions(
        np.zeros(len(KERNELS) * of_kernel, np.float32),
        dilations,
        counts,
        np.concatenate([[0], np.cumsum(sizes)]),
        np.concatenate(chosen).astype(np.int64),
    )


def spread(length: int, features: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return dilations up to the length of a signal, even in their logarithms, and their features.

    Exponents that give the same dilation add up their features; what is left goes to the first.
    """
    exponents = min(features, most)
    widest = np.log2((length - 1) / (TAPS - 1))
    found = np.logspace(0, widest, exponents, base=2).astype(np.int64)
    dilations, times = np.unique(found, return_counts=True)
    counts = (times * (features / exponents)).astype(np.int64)
    left = features - counts.sum()
    counts += left // len(counts) + (np.arange(len(counts)) < left % len(counts))
    return dilations, counts


def quantiles(
    signals: NDArray[np.float32], places: NDArray[np.int64], plan: Convolutions
) -> NDArray[np.float64]:
    """Return the biases: quantiles of each convolution of the signal at its place.

    Which quantiles is a sequence of low discrepancy: the multiples of the golden ratio, modulo 1.
    Sums are of the order in which aeon's compiled code takes them here; the features have another.
    """
    levels = (np.arange(1, plan.biases.size + 1) * GOLDEN % 1).astype(np.float32)
    biases = np.empty(levels.size)
    for place, convolution in zip(places, each_convolution(plan), strict=True):
        dilated = Dilated.of(signals[place : place + 1], convolution.dilation)
        terms = dilated.terms(convolution)
        (values,) = reduce(add, (a + b + c + ones for ones, a, b, c in terms))
        values = np.sort(values.astype(np.float64))
        rank = (values.size - 1) * levels[convolution.features].astype(np.float64)
        below = rank.astype(np.int64)
        share = rank - below
        biases[convolution.features] = values[below] * (1 - share) + values[below + 1] * share
    return biases
