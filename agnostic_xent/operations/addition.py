"""The sum of two arrays, such as a branch and its shortcut."""

from __future__ import annotations

from ..core.arrays import Array, array_namespace, constant
from ..core.checks import check_choice, check_shape, float_namespace
from ..core.operation import Pullback, operation, repeatable

__all__ = ["add"]


@operation
def add(x1: Array, x2: Array, *, activation: str | None = None) -> Array:
    """Sum of two arrays of one shape, with an optional ReLU: ``y = f(x1 + x2)``.

    Parameters
    ----------
    x1, x2 : array
        Any shape, the same for both; one real floating dtype.
    activation : {None, "relu"}
        f, in the same pass over memory; None is the identity.

    Returns
    -------
    array
        Shape and dtype of ``x1``.

    Raises
    ------
    ValueError
        If shapes differ, or ``activation`` is none of these.

    Examples
    --------
    >>> y = add(xp.asarray([1.0, 2.0]), xp.asarray([3.0, -5.0]), activation="relu")
    >>> float(y[0]), float(y[1])
    (4.0, 0.0)
    """
    float_namespace(x1=x1, x2=x2)
    check_shape("x2", x2, tuple(x1.shape), "that of x1")
    check_choice("activation", activation, (None, "relu"))
    return repeatable(x1, x2, activation=activation)


@add.definition
def _add(x1: Array, x2: Array, *, activation: str | None) -> Array:
    y = x1 + x2
    return array_namespace(y).where(y <= 0, constant(0, y), y) if activation == "relu" else y


@add.pullback
def _(x1: Array, x2: Array, *, activation: str | None) -> tuple[Array, Pullback]:
    y = _add(x1, x2, activation=activation)

    def pullback(dy: Array) -> tuple[Array, Array]:
        if activation == "relu":
            dy = array_namespace(y).where(y <= 0, constant(0, dy), dy)
        return dy, dy

    return y, pullback
