"""The sum of two branches of a network."""

from __future__ import annotations

from ..core.arrays import Array, array_namespace, constant
from ..core.checks import check_choice, check_shape, float_namespace
from ..core.operation import Pullback, operation, repeatable

__all__ = ["add"]


@operation
def add(x: Array, y: Array, *, activation: str | None = None) -> Array:
    """Sum of two arrays, elementwise: ``z = x + y``, or with "relu" ``z = max(x + y, 0)``.

    Parameters
    ----------
    x, y : array
        Of one shape and one real floating dtype.
    activation : {None, "relu"}
        What follows.

    Returns
    -------
    array
        Shape and dtype of ``x``.

    Raises
    ------
    ValueError
        If the shapes differ, or the activation is unknown.

    Examples
    --------
    >>> float(add(xp.asarray(1.0), xp.asarray(-3.0), activation="relu"))
    0.0
    """
    float_namespace(x=x, y=y)
    check_shape("y", y, tuple(x.shape), "that of x")
    check_choice("activation", activation, (None, "relu"))
    return repeatable(x, y, activation=activation)


@add.definition
def _add(x: Array, y: Array, *, activation: str | None) -> Array:
    z = x + y
    return array_namespace(x).where(z <= 0, constant(0, z), z) if activation else z


@add.pullback
def _(x: Array, y: Array, *, activation: str | None) -> tuple[Array, Pullback]:
    z = _add(x, y, activation=activation)

    def pullback(dz: Array) -> tuple[Array, Array]:
        if activation:
            dz = array_namespace(z).where(z <= 0, constant(0, z), dz)
        return dz, dz

    return z, pullback
