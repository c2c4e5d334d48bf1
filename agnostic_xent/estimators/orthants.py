"""The optimum of logistic regression with an l1 penalty, by L-BFGS within orthants.

In an orthant the penalty is linear, so the objective is smooth there. A step is Newton's, by an
estimate, of the coefficients that stay in their orthant; the others take the proximal step, by
which they leave 0, or come to rest there.
"""

from __future__ import annotations

import numpy as np

from ..core.arrays import Array, array_namespace, constant, device
from ..core.communication import check_alike
from ..core.conversion import to_numpy
from ..training.proximal import shrunk
from .lbfgs import MANY, MEMORY, MEMORY_OF_MANY, SMALL_LOSS
from .logistic_objective import LogisticObjective, dot

SUFFICIENT = 1e-4
"""The part of the decrease along the slope that a step has to reach."""


def minimize_l1(
    objective: LogisticObjective, w: Array, *, l1: float, tol: float, max_iter: int
) -> tuple[Array, list[float], bool]:
    """Minimise a logistic objective to which ``l1 sum |w|`` is added, without the intercepts.

    Parameters
    ----------
    objective, w, tol, max_iter
        As for `lbfgs.minimize`.
    l1 : float
        Strength of the penalty, > 0.

    Returns
    -------
    w, values, converged
        As `lbfgs.minimize` does.

    References
    ----------
    M. Schmidt, G. Fung, R. Rosales. Fast optimization methods for l1 regularization, ECML 2007.
    D. P. Bertsekas. Projected Newton methods for optimization problems with simple constraints,
    SIAM Journal on Control and Optimization 20, 1982.
    """
    start = {"start": (tuple(w.shape), float(dot(w, w))), "l1": l1, "tol": tol}
    check_alike(objective.communicator, lambda: objective.facts() | start | {"max_iter": max_iter})
    penalised = _Penalised(objective, l1, w.shape[0])
    v, pairs = penalised.standard.of(w), _Pairs()
    value, gradient = penalised(v)
    values = [value]
    for _ in range(max_iter):
        step, steepest, missing = _step(penalised, pairs, v, gradient)
        if 0 <= missing <= tol * max(value, SMALL_LOSS):
            return penalised.coefficients(v), values, True
        found = _line_search(penalised, v, step, steepest, value) if missing > 0 else None
        if found is None and not len(pairs):
            return penalised.coefficients(v), values, True
        if found is None:  # rounding has spoilt the estimate, which else leads down
            pairs = _Pairs()
            continue
        after, value, new_gradient = found
        pairs.append(after - v, new_gradient - gradient)
        v, gradient = after, new_gradient
        values.append(value)
    return penalised.coefficients(v), values, False


class _Penalised:
    """The objective of standardised coefficients v, in which its Hessian is about the identity."""

    def __init__(self, objective: LogisticObjective, l1: float, units: int):
        self.objective, self.standard = objective, objective.standardized(units)
        scale = self.standard.scale
        xp = array_namespace(scale)
        self.limits = l1 * xp.concat([scale, xp.zeros_like(scale[:, :1])], axis=1)

    def __call__(self, v: Array) -> tuple[float, Array]:
        """Return the value, and the gradient of the smooth part."""
        value, gradient = self.objective(self.standard.coefficients(v))
        xp = array_namespace(v)
        size = xp.sum(xp.abs(v) * self.limits)
        return value + float(size), self.standard.gradient(gradient)

    def coefficients(self, v: Array) -> Array:
        """Return the coefficients; of intercepts that softmax compares the mean is 0."""
        w = self.standard.coefficients(v)
        xp, b = array_namespace(w), w[:, -1:]
        of_softmax = w.shape[0] > 1 and not self.objective.several
        b = b - xp.mean(b) if of_softmax else b
        return xp.concat([w[:, :-1], b], axis=1)

    def steepest(self, v: Array, gradient: Array) -> Array:
        """Return the subgradient that is nearest to 0."""
        xp = array_namespace(v)
        return xp.where(v != 0, gradient + xp.sign(v) * self.limits, shrunk(gradient, self.limits))


def _step(f: _Penalised, pairs: _Pairs, v: Array, gradient: Array) -> tuple[Array, Array, float]:
    """Return a step, the steepest subgradient, and an estimate of how far f is from its minimum."""
    xp, zero = array_namespace(v), constant(0, v)
    steepest, size = f.steepest(v, gradient), pairs.size
    near = shrunk(v - size * gradient, size * f.limits)
    free = (v * near > 0) | (f.limits == 0)
    newton = -pairs.inverse(xp.where(free, steepest, zero), free)
    alone = shrunk(v - gradient, f.limits)  # as if each coefficient's curvature were 1
    missing = xp.where(free, newton / 2, alone - v)
    return xp.where(free, newton, near - v), steepest, -float(dot(steepest, missing))


def _line_search(
    f: _Penalised, v: Array, step: Array, steepest: Array, value: float
) -> tuple[Array, float, Array] | None:
    """Halve the step until f decreases enough; None where rounding leaves no decrease to see."""
    xp = array_namespace(v)
    rounding = 4 * float(xp.finfo(v.dtype).eps) * value
    orthant = xp.where(v != 0, xp.sign(v), -xp.sign(steepest))
    length = 1.0
    while length > 1e-10:
        after = v + length * step
        after = xp.where((after * orthant >= 0) | (f.limits == 0), after, constant(0, v))
        slope = float(dot(steepest, after - v))
        if length < 1 and -rounding < slope < 0:
            return None
        if slope < 0:
            found, gradient = f(after)
            if found <= value + SUFFICIENT * slope:
                return after, found, gradient
        length /= 2
    return None


class _Pairs:
    """The last steps, and the changes of the gradient over them: an estimate of the Hessian."""

    def __init__(self) -> None:
        self.steps: Array | None = None
        self.changes: Array | None = None
        self.size = 1.0
        """The length of a step along the gradient."""

    def __len__(self) -> int:
        return 0 if self.steps is None else int(self.steps.shape[0])

    def append(self, s: Array, y: Array) -> None:
        """Take in that the gradient changed by y over a step s."""
        curvature = float(dot(s, y))
        if not curvature > 0:  # it is, as f is convex; not always after rounding
            return
        self.size = curvature / float(dot(y, y))
        xp = array_namespace(s)
        s, y = xp.reshape(s, (1, -1)), xp.reshape(y, (1, -1))
        if self.steps is None or self.changes is None:
            self.steps, self.changes = s, y
            return
        most = MEMORY if s.shape[1] <= MANY else MEMORY_OF_MANY
        first = max(0, len(self) + 1 - most)
        self.steps = xp.concat([self.steps[first:, :], s], axis=0)
        self.changes = xp.concat([self.changes[first:, :], y], axis=0)

    def inverse(self, gradient: Array, free: Array) -> Array:
        """Return the step to where a gradient is 0, of the free numbers; it is 0 of the others."""
        if self.steps is None or self.changes is None:
            return self.size * gradient
        xp, mask = array_namespace(gradient), array_namespace(gradient).reshape(free, (1, -1))
        s = xp.where(mask, self.steps, constant(0, gradient))
        y, g = self.changes, xp.reshape(gradient, (-1, 1))
        rows = xp.concat([s, xp.where(mask, y, constant(0, gradient)), xp.reshape(g, (1, -1))])
        products = to_numpy(rows @ xp.matrix_transpose(rows)).astype(np.float64)
        shares = _shares(products)
        shares = xp.asarray(shares[None, :], dtype=gradient.dtype, device=device(gradient))
        return xp.reshape(shares @ rows, gradient.shape)


def _shares(products: np.ndarray) -> np.ndarray:
    """Return the shares of steps, changes and gradient in the step, by the two loops of L-BFGS.

    Given are the products of all with all.
    """
    count = len(products) // 2
    step = np.zeros(2 * count + 1)
    step[-1] = 1
    curved = [
        i
        for i in range(count)
        if products[i, count + i] > 1e-10 * (products[i, i] * products[count + i, count + i]) ** 0.5
    ]
    factors = {}
    for i in reversed(curved):
        factors[i] = products[i] @ step / products[i, count + i]
        step[count + i] -= factors[i]
    if curved:
        last = curved[-1]
        step *= products[last, count + last] / products[count + last, count + last]
    for i in curved:
        step[i] += factors[i] - products[count + i] @ step / products[i, count + i]
    return step
