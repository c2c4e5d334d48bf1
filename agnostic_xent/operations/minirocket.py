"""The features of MiniRocket: how often convolutions of a signal exceed their biases."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from itertools import combinations, groupby
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from ..core.arrays import Array, array_namespace, device
from ..core.operation import Routine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TAPS = 9
MIDDLE = TAPS // 2
KERNELS = tuple(combinations(range(TAPS), 3))
"""For each of the 84 kernels the taps whose weight is 2; the weight of the others is -1."""


class Convolutions(NamedTuple):
    """The convolutions whose values are compared: each kernel with each dilation.

    They are numbered by dilation, and then by kernel.
    """

    biases: Array
    """Of all features, float32; each convolution has some, one behind the other."""
    dilations: NDArray[np.int64]
    counts: NDArray[np.int64]
    """How many features a convolution has, for each dilation."""
    starts: NDArray[np.int64]
    """Where the channels of each convolution begin, and at last where those of the last one end."""
    channels: NDArray[np.int64]
    """The channels that convolutions sum over."""


class Convolution(NamedTuple):
    """One of the convolutions."""

    dilation: int
    taps: tuple[int, int, int]
    channels: list[int]
    features: slice
    margin: int
    """How many values at each end do not count: those that reach beyond the signal, or none."""


def each_convolution(plan: Convolutions) -> Iterator[Convolution]:
    """Yield the convolutions in order; every second one counts the values that see zeros."""
    number = first = 0
    for position, dilation in enumerate(plan.dilations.tolist()):
        for kernel, taps in enumerate(KERNELS):
            channels = plan.channels[plan.starts[number] : plan.starts[number + 1]].tolist()
            last = first + int(plan.counts[position])
            margin = MIDDLE * dilation if (position + kernel) % 2 else 0
            yield Convolution(dilation, taps, channels, slice(first, last), margin)
            number, first = number + 1, last


@Routine
def positive_proportions(signals: list[Array], plan: Convolutions) -> Array:
    """Return the part of each convolution's values that exceeds each of its biases.

    Every sum is of one order, so that all libraries give the same bits.

    Parameters
    ----------
    signals : list of one array
        x, shape (N, C, L), float32.
    plan : Convolutions
        For signals of this shape; its biases lie where x does.

    Returns
    -------
    array
        Shape (N, features), float32.
    """
    (x,) = signals
    xp, features = array_namespace(x), []
    for dilation, convolutions in groupby(each_convolution(plan), lambda found: found.dilation):
        dilated = Dilated.of(x, dilation)
        for convolution in convolutions:
            terms = dilated.terms(convolution)
            values = reduce(add, (ones + a + b + c for ones, a, b, c in terms))
            values = values[:, convolution.margin : values.shape[1] - convolution.margin]  # (N, T)
            above = values[:, None, :] > plan.biases[convolution.features][None, :, None]
            count = xp.sum(xp.astype(above, xp.float32), axis=-1)  # exact below 2^24
            features.append(count / xp.full_like(count, values.shape[1]))  # JAX multiplies by 1 / n
    return xp.concat(features, axis=1)


class Dilated(NamedTuple):
    """What the kernels with one dilation share."""

    ones: Array
    """The convolution with nine weights of -1, shape (N, C, L)."""
    threes: Array
    """Three times the signal between zeros, four dilations at each end."""

    @classmethod
    def of(cls, x: Array, dilation: int) -> Dilated:
        """Return that of signals x, shape (N, C, L)."""
        xp, length = array_namespace(x), x.shape[2]
        zeros = xp.zeros((*x.shape[:2], MIDDLE * dilation), dtype=x.dtype, device=device(x))
        padded = xp.concat([zeros, x, zeros], axis=2)
        ones = -x
        for tap in range(TAPS):
            if tap != MIDDLE:
                ones = ones - padded[:, :, tap * dilation : tap * dilation + length]
        return cls(ones, 3 * padded)

    def terms(self, convolution: Convolution) -> Iterator[tuple[Array, Array, Array, Array]]:
        """Yield, for each channel, what adds up to its values: ``ones`` and three of ``threes``."""
        length = self.ones.shape[2]
        for c in convolution.channels:
            starts = [tap * convolution.dilation for tap in convolution.taps]
            first, second, third = [self.threes[:, c, s : s + length] for s in starts]  # (N, L)
            yield self.ones[:, c, :], first, second, third
