"""Conformal prediction: sets of classes that hold the true one with a probability that is promised.

The promise needs nothing of the model, only that calibration and new samples come from one source.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core.arrays import Array, array_namespace, constant, device, widen
from ..core.checks import (
    check_choice,
    check_ndim,
    check_shape,
    float_namespace,
    number,
    set_integers,
    set_numbers,
)
from .metrics import check_scores, one_hot

__all__ = ["ConformalSets", "fit_conformal"]

METHODS = ("aps", "lac")


@dataclass(frozen=True)
class ConformalSets:
    """Sets of classes from probabilities: those whose score is at most a threshold.

    A class's score is how much speaks against it. `fit_conformal` finds the threshold.

    Parameters
    ----------
    threshold : float
        The largest score in a set; inf takes all classes.
    method : {"aps", "lac"}
        The score: ``1 - p_k`` ("lac", the least ambiguous sets: the smallest ones on average), or
        the probability of all classes before k in falling order ("aps", adaptive sets: larger
        where the model is less sure, never empty).
    penalty : float
        Of "aps", >= 0: is added to the score for each class before k, but for the first ones
        ("raps", regularized: fewer large sets).
    unpenalized : int
        How many of them are the first ones, and k itself, >= 1.

    Examples
    --------
    >>> sets = ConformalSets(threshold=0.8)(xp.asarray([[0.7, 0.2, 0.1], [0.9, 0.06, 0.04]]))
    >>> [[bool(sets[i, k]) for k in range(3)] for i in range(2)]
    [[True, True, False], [True, False, False]]
    """

    threshold: float
    method: str = "aps"
    penalty: float = 0.0
    unpenalized: int = 1

    def __post_init__(self) -> None:
        set_numbers(self, threshold="(-inf, inf]", penalty="[0, inf)")
        set_integers(self, "unpenalized")
        check_choice("method", self.method, METHODS)
        if self.method == "lac" and self.penalty:
            raise ValueError(f'penalty is one of method "aps", with "lac" it must be 0, got {self}')

    def __call__(self, probs: Array, *, uniform: Array | None = None) -> Array:
        """Return which classes are in the set of each sample.

        Parameters
        ----------
        probs : array, shape (N, classes)
            Probabilities, real floating dtype. With a NaN the set has all classes.
        uniform : array, shape (N,), optional
            Random numbers in [0, 1), if the threshold is of such, see `fit_conformal`. Then sets
            may be empty.

        Returns
        -------
        array, shape (N, classes)
            Booleans.

        Raises
        ------
        ValueError
            If the shapes do not fit, or ``uniform`` is given with the method "lac".
        """
        xp = float_namespace(probs=probs)
        check_ndim("probs", probs, 2, "(N, classes)")
        self._check_uniform(probs, uniform)
        scores, ranks = self._scores(widen(probs), uniform)
        above = scores > constant(self.threshold, scores)
        taken = ~above if ranks is None else ranks < xp.count_nonzero(~above, axis=1)[:, None]
        return taken | xp.any(xp.isnan(probs), axis=1, keepdims=True)

    def _scores(self, probs: Array, uniform: Array | None) -> tuple[Array, Array | None]:
        """Return scores (N, classes); if they are in falling order, also each class's rank there.

        They rise with the rank: a set is the first so many classes, and nothing has to be put back
        into order.
        """
        xp, classes = array_namespace(probs), probs.shape[1]
        if self.method == "lac":
            return 1 - probs, None
        ordered = xp.sort(probs, axis=1, descending=True)
        before = xp.cumulative_sum(ordered[:, :-1], axis=1, include_initial=True)
        if uniform is not None:
            before = before + xp.astype(uniform, probs.dtype)[:, None] * ordered
        if self.penalty:
            counts = xp.arange(classes, dtype=probs.dtype, device=device(probs)) + 1
            late = xp.clip(counts - self.unpenalized, 0, classes)
            before = before + self.penalty * late[None, :]
        order = xp.argsort(probs, axis=1, descending=True, stable=True)
        return before, xp.argsort(order, axis=1)

    def _of_labels(self, probs: Array, labels: Array, uniform: Array | None) -> Array:
        """Return the score of each label, (N,)."""
        scores, ranks = self._scores(probs, uniform)
        xp, own = array_namespace(probs), one_hot(labels, probs.shape[1])
        if ranks is not None:
            own = one_hot(xp.sum(xp.where(own, ranks, 0), axis=1), probs.shape[1])
        return xp.sum(xp.where(own, scores, constant(0, scores)), axis=1)

    def _check_uniform(self, probs: Array, uniform: Array | None) -> None:
        if uniform is None:
            return
        if self.method == "lac":
            raise ValueError('uniform is of method "aps": with "lac" it must be None')
        float_namespace(uniform=uniform)
        check_shape("uniform", uniform, (probs.shape[0],), "one number a row of probs")


def fit_conformal(
    probs: Array,
    labels: Array,
    *,
    coverage: float = 0.9,
    method: str = "aps",
    penalty: float = 0.0,
    unpenalized: int = 1,
    uniform: Array | None = None,
) -> ConformalSets:
    r"""Return sets that hold the true class of a new sample with a probability >= ``coverage``.

    Split conformal prediction: the threshold is the k-th smallest score of the labels of n samples
    that the model was not trained on, ``k = ceil((n + 1) coverage)``, or inf where k > n. On
    average over calibration samples and new ones, sets then hold the true class with a probability
    of k / (n + 1), or more if scores are equal; the standard deviation between sets of calibration
    samples is about ``sqrt(coverage (1 - coverage) / n)``. Reads from the device.

    The sets of "aps" are never empty. So they are single classes, and cover more than is asked for,
    where the model is right more often than that. With ``uniform``, here and later, a label's own
    probability counts in part: they cover exactly as much as is asked for, but are random.

    Parameters
    ----------
    probs : array, shape (n, classes)
        Probabilities, finite, real floating dtype.
    labels : array, shape (n,)
        Integers in [0, classes).
    coverage : float
        In (0, 1).
    method, penalty, unpenalized
        As for `ConformalSets`.
    uniform : array, shape (n,), optional
        Random numbers in [0, 1): ``u p_k`` is added to the scores of "aps".

    Returns
    -------
    ConformalSets
        A function of probabilities.

    Raises
    ------
    ValueError
        If there is no sample, the shapes do not fit, a probability is not finite, or a label or an
        option is out of range.

    References
    ----------
    M. Sadinle, J. Lei, L. Wasserman. Least ambiguous set-valued classifiers with bounded error
    levels. JASA 114, 2019, arXiv:1609.00451 ("lac"). Y. Romano, M. Sesia, E. J. Candes.
    Classification with valid and adaptive coverage. NeurIPS 2020, arXiv:2006.02544 ("aps").
    A. N. Angelopoulos, S. Bates, J. Malik, M. I. Jordan. Uncertainty sets for image classifiers
    using conformal prediction. ICLR 2021, arXiv:2009.14193 (``penalty``).

    Examples
    --------
    >>> probs = xp.asarray([[0.875, 0.125], [0.75, 0.25], [0.625, 0.375]])
    >>> fit_conformal(probs, xp.asarray([0, 0, 1]), coverage=0.75).threshold
    0.625
    >>> sets = fit_conformal(probs, xp.asarray([0, 0, 1]), coverage=0.5, method="lac")
    >>> bool(sets(probs)[2, 1])
    False
    """
    xp = check_scores("probs", probs, labels)
    coverage = number("coverage", coverage, "(0, 1)")
    sets = ConformalSets(math.inf, method, penalty, unpenalized)
    sets._check_uniform(probs, uniform)
    if not bool(xp.all(xp.isfinite(probs))):
        raise ValueError("probs must be finite, got some that are not")
    n = probs.shape[0]
    k = math.ceil(round((n + 1) * coverage, 9))  # 100 * 0.55 is 55, and not a bit more
    if k > n:
        return sets
    scores = xp.sort(sets._of_labels(widen(probs), labels, uniform))
    return ConformalSets(float(scores[k - 1]), method, penalty, unpenalized)
