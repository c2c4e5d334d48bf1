"""A rank's share of every batch, and of the random numbers that are drawn for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.communication import Communicator
from ..batches import ArraySource, Batch, IterableSource, Source


def share(count: int, communicator: Any) -> slice:
    """Return which of ``count`` samples are a rank's: as many for each as can be, in order."""
    rank, size = communicator.rank, communicator.size
    return slice(count * rank // size, count * (rank + 1) // size)


def shared(source: Source, communicator: Communicator) -> Source:
    """Return the source of a rank's share of each batch.

    All ranks draw the same order of all samples; of arrays each reads its own rows alone.
    """
    if isinstance(source, ArraySource):
        return _ArrayShare(source.x, source.y, source.like, communicator)
    return _IterableShare(source.name, source.data, communicator)


@dataclass(frozen=True)
class _ArrayShare(ArraySource):
    communicator: Communicator

    def _cut(self, batch: slice) -> slice:
        own = share(batch.stop - batch.start, self.communicator)
        return slice(batch.start + own.start, batch.start + own.stop)


@dataclass(frozen=True)
class _IterableShare(IterableSource):
    communicator: Communicator

    def batches(
        self, batch_size: int, rng: np.random.Generator | None = None, *, multiple: int = 1
    ) -> Iterator[Batch]:
        """Yield a rank's share of the batches of an epoch, as they come."""
        for x, y in super().batches(batch_size, rng, multiple=multiple):
            own = share(x.shape[0], self.communicator)
            yield x[own, ...], y[own, ...]


class ShareOfDraws(np.random.Generator):
    """A generator that draws for all samples of a batch, and hands out those of a rank's share.

    So a batch has the same dropout mask on any number of ranks. How many samples there are is
    asked when numbers are drawn.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        samples: Callable[[], int],
        communicator: Communicator,
    ):
        super().__init__(rng.bit_generator)
        self._samples, self._communicator = samples, communicator

    def random(self, size: Any = None, *options: Any, **named: Any) -> Any:
        """Return the rows of a rank's share of numbers in [0, 1)."""
        return self._own(super().random, size, *options, **named)

    def standard_normal(self, size: Any = None, *options: Any, **named: Any) -> Any:
        """Return the rows of a rank's share of normal numbers."""
        return self._own(super().standard_normal, size, *options, **named)

    def _own(self, draw: Callable[..., Any], size: Any, *options: Any, **named: Any) -> Any:
        samples = self._samples()
        whole = draw((samples, *size[1:]), *options, **named)
        return whole[share(samples, self._communicator)]
