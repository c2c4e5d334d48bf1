"""The optimum of penalised logistic regression, by L-BFGS."""

from __future__ import annotations

import math

import numpy as np

from ..core.arrays import Array, array_namespace, device
from ..core.communication import check_alike
from ..core.conversion import to_numpy
from .logistic_objective import LogisticObjective, Preconditioner, dot

MEMORY = 20
"""How many changes of w and of the gradient the estimate of the Hessian remembers."""

MEMORY_OF_MANY = 5
"""The same of more than `MANY` numbers, where more cost time and memory and save hardly a step."""

MANY = 1 << 16

SMALL_LOSS = 1e-4
"""Below it the tolerance is no longer relative: the loss of separable classes goes to 0."""

MOST_COLUMNS = 1024
"""Up to so many the Hessian is computed, once iterations have cost about as much as it does."""


def minimize(
    objective: LogisticObjective, w: Array, *, tol: float, max_iter: int
) -> tuple[Array, list[float], bool]:
    """Minimise a logistic objective.

    Parameters
    ----------
    objective : LogisticObjective
        What to minimise.
    w : array, shape (K, features + 1)
        Where to start.
    tol : float
        Ends when the estimate of ``f(w) - min f`` is at most tol times f.
    max_iter : int
        Number of iterations at most.

    Returns
    -------
    w : array
        The minimiser.
    values : list of float
        f at the start and after each iteration.
    converged : bool
        Whether ``tol`` was reached, or the precision of the dtype.

    References
    ----------
    Liu and Nocedal, On the limited memory BFGS method for large scale optimization, Mathematical
    Programming 45 (1989).
    """
    start = {"start": (tuple(w.shape), float(dot(w, w))), "tol": tol, "max_iter": max_iter}
    check_alike(objective.communicator, lambda: objective.facts() | start)
    estimate = _InverseHessian(objective.by_variances(w.shape[0]))
    value, gradient = objective(w)
    values = [value]
    wait = due = 4 + w.shape[1] // 100
    for iteration in range(max_iter):
        if iteration == due and w.shape[1] <= MOST_COLUMNS:
            estimate = _InverseHessian(objective.by_hessian(w))
            wait, due = 3 * wait, due + 3 * wait
        step = -estimate(gradient)
        slope = float(dot(gradient, step))
        if slope > 0:  # rounding has spoilt the estimate, which else leads down
            estimate = _InverseHessian(objective.by_variances(w.shape[0]))
            continue
        if -slope / 2 <= tol * max(value, SMALL_LOSS):
            return w, values, True
        found = _line_search(objective, w, step, value, slope)
        if found is None:
            return w, values, True
        after, value, new_gradient = found
        estimate.update(after - w, new_gradient - gradient)
        w, gradient = after, new_gradient
        values.append(value)
    return w, values, False


class _InverseHessian:
    """The L-BFGS estimate: a preconditioner P, corrected by what the last steps have shown.

    With the steps s_i, the changes y_i of the gradient, and gamma that scales P, it is in compact
    form ``gamma P + V^T M V``, V having the rows s_i and P y_i, and M a small matrix of the host.

    References
    ----------
    Byrd, Nocedal and Schnabel, Representations of quasi-Newton matrices and their use in limited
    memory methods, Mathematical Programming 63 (1994), equation 3.13.
    """

    def __init__(self, precondition: Preconditioner):
        self.precondition = precondition
        self.scale = 1.0
        self.blocks: list[Array] = []  # rows of V; of many numbers a step's are a block
        self.sy, self.ypy = np.zeros((0, 0)), np.zeros((0, 0))
        self.middle = np.zeros((0, 0))

    def __call__(self, gradient: Array) -> Array:
        """Return the product with a gradient."""
        step = self.scale * self.precondition(gradient)
        if not self.blocks:
            return step
        xp, shares = array_namespace(gradient), self.middle @ self._along(gradient)
        shares = xp.asarray(shares, dtype=gradient.dtype, device=device(gradient))
        first = 0
        for rows in self.blocks:
            part = shares[first : first + rows.shape[0]]
            step += xp.reshape(part @ rows, gradient.shape)
            first += rows.shape[0]
        return step

    def update(self, s: Array, y: Array) -> None:
        """Take in that the gradient changed by y over a step s."""
        if not float(dot(s, y)) > 0:  # it is, as f is convex; not always after rounding
            return
        xp, many = array_namespace(s), math.prod(s.shape) > MANY
        if len(self.sy) == (MEMORY_OF_MANY if many else MEMORY):
            self.blocks = self.blocks[1:] if many else [self.blocks[0][2:, :]]
            self.sy, self.ypy = self.sy[1:, 1:], self.ypy[1:, 1:]
        new = xp.concat([xp.reshape(x, (1, -1)) for x in (s, self.precondition(y))], axis=0)
        self.blocks = [*self.blocks, new] if many else [xp.concat([*self.blocks, new], axis=0)]
        by_s, by_py = self._along(y).reshape(-1, 2).T
        self.sy = _bordered(self.sy, by_s, np.zeros_like(by_s))  # the upper triangle of s_i . y_j
        self.ypy = _bordered(self.ypy, by_py, by_py)
        self._solve()

    def _along(self, x: Array) -> np.ndarray:
        """Return the products of the rows with an array, in float64."""
        flat = array_namespace(x).reshape(x, (-1,))
        along = [to_numpy(rows @ flat).astype(np.float64) for rows in self.blocks]
        return np.concatenate(along)

    def _solve(self) -> None:
        count = len(self.sy)
        curvatures = np.diag(self.sy)
        self.scale = float(curvatures[-1] / self.ypy[-1, -1])
        inverse = np.linalg.inv(self.sy)
        inner = inverse.T @ (np.diag(curvatures) + self.scale * self.ypy) @ inverse
        middle = np.zeros((count, 2, count, 2))
        middle[:, 0, :, 0] = inner
        middle[:, 0, :, 1] = -self.scale * inverse.T
        middle[:, 1, :, 0] = -self.scale * inverse
        self.middle = middle.reshape(2 * count, 2 * count)


def _bordered(matrix: np.ndarray, column: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return a matrix with one more column, which holds the corner, and one more row."""
    count = len(matrix)
    wider = np.empty((count + 1, count + 1))
    wider[:count, :count], wider[:, count], wider[count, :count] = matrix, column, row[:count]
    return wider


def _line_search(
    objective: LogisticObjective, w: Array, step: Array, value: float, slope: float
) -> tuple[Array, float, Array] | None:
    """Halve the step until f decreases enough; None where rounding leaves no decrease to see."""
    rounding = 4 * float(array_namespace(w).finfo(w.dtype).eps) * value
    length = 1.0
    while length * -slope > rounding:
        after = w + length * step
        found, gradient = objective(after)
        if found <= value + 1e-4 * length * slope:
            return after, found, gradient
        length /= 2
    return None
