"""Scores: what the softmax takes of logits, which may be capped, tempered and adjusted by a prior.

With z the logits, S the cap and T the temperature the scores are ``u = S tanh(z / S) / T + log
prior``, where each of the three may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.arrays import Array, array_namespace, widen
from ..core.cached import cached_property
from ..core.checks import check_shape, number
from .activations import log_softmax_of


def tempered(z: Array, temperature: float, softcap: float | None) -> Array:
    """Return ``S tanh(z / S) / T``."""
    if softcap is not None:
        z = array_namespace(z).tanh(z / softcap) * softcap
    return z if temperature == 1 else z / temperature


def untempered(du: Array, z: Array, temperature: float, softcap: float | None) -> Array:
    """Return the gradient of the logits z, given that of what `tempered` makes of them."""
    if temperature != 1:
        du = du / temperature
    if softcap is None:
        return du
    capped = array_namespace(z).tanh(z / softcap)
    return du * ((1 - capped) * (1 + capped))


@dataclass(frozen=True)
class Scores:
    """The scores of logits in the dtype that they are computed in."""

    z: Array
    axis: int
    temperature: float = 1.0
    softcap: float | None = None
    log_prior: Array | None = None
    """One number a class."""

    @cached_property
    def log_p(self) -> Array:
        """The logarithm of the softmax."""
        return log_softmax_of(self._shifted[0], axis=self.axis)

    @cached_property
    def log_sum(self) -> Array:
        """The log-sum-exp of each sample's scores; the axis of the classes stays."""
        xp, (u, offset) = array_namespace(self.z), self._shifted
        if 0 in u.shape:  # of no classes there is no maximum
            return xp.sum(u, axis=self.axis, keepdims=True)
        top, likeliest = (xp.max(x, axis=self.axis, keepdims=True) for x in (u, self.log_p))
        return (top - likeliest) if offset is None else offset + (top - likeliest)

    def gradient(self, du: Array) -> Array:
        """Return the gradient of the logits, given that of the scores."""
        return untempered(du, self.z, self.temperature, self.softcap)

    @cached_property
    def _shifted(self) -> tuple[Array, Array | None]:
        """The scores, but for a number of each sample; and that number, None if there is none.

        The prior keeps its digits beside logits that have a large offset in common.
        """
        u = tempered(self.z, self.temperature, self.softcap)
        if self.log_prior is None:
            return u, None
        xp, shape = array_namespace(u), [1] * u.ndim
        shape[self.axis] = -1
        log_prior = xp.reshape(self.log_prior, tuple(shape))
        if 0 in u.shape:
            return u + log_prior, None
        offset = xp.max(u + log_prior, axis=self.axis, keepdims=True)
        return (u - offset) + log_prior, offset


def log_of(class_prior: Array | None) -> Array | None:
    """Return the logarithm of the prior, in the dtype that everything is computed in."""
    if class_prior is None:
        return None
    return array_namespace(class_prior).log(widen(class_prior))


def score_options(
    classes: int,
    temperature: float,
    softcap: float | None,
    class_prior: Array | None,
    z_loss: float,
) -> dict[str, Any]:
    """Check the options of scores of so many classes, and of what their log-sum-exp costs."""
    if class_prior is not None:
        check_shape("class_prior", class_prior, (classes,), "one number a class")
    return {
        "temperature": number("temperature", temperature, "(0, inf]"),
        "softcap": None if softcap is None else number("softcap", softcap, "(0, inf)"),
        "class_prior": class_prior,
        "z_loss": number("z_loss", z_loss, "[0, inf)"),
    }
