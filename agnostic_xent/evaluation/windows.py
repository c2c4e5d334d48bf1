"""Windows of recordings, and what those of a recording say together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.arrays import Array, array_namespace, device, is_array
from ..core.checks import check_ndim, float_namespace, integer, namespace
from ..core.conversion import to_numpy
from ..operations.activations import log_softmax

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Windows", "recording_log_proba", "windows"]


class Windows(NamedTuple):
    """Windows of recordings, in order.

    Attributes
    ----------
    x : array, shape (N, C, length) or (N, length)
        The windows, in the library of the recordings.
    recording : numpy.ndarray, shape (N,)
        The number of the recording that each is of.
    person : numpy.ndarray, shape (N,)
        Who that is of: groups to hold out as a whole.

    Examples
    --------
    >>> windows([xp.arange(6.0)], 3, people=["Ann"]).person.tolist()
    ['Ann', 'Ann']
    """

    x: Array
    recording: NDArray[np.int64]
    person: NDArray[Any]


def windows(
    recordings: Any, length: int, step: int | None = None, *, people: Any = None
) -> Windows:
    """Cut recordings into windows of one length.

    Window i of a recording begins at ``i * step``; what is left at the end is in none.

    Parameters
    ----------
    recordings : sequence of array, or array
        Each of shape (C, L) or (L,), with an L of its own; all of one library and dtype.
    length : int
        Of a window.
    step : int, optional
        From a window to the next one; by default they do not overlap.
    people : array-like, optional
        Who each recording is of: a number or a name. By default everybody is recorded once.

    Returns
    -------
    Windows
        The windows, and the recording and the person of each. So ``y[found.recording]`` are labels,
        where y is those of the recordings.

    Raises
    ------
    ValueError
        If a recording is shorter than a window, or has other channels than the first one; if there
        are not as many people as recordings.

    Examples
    --------
    >>> walks = [xp.arange(5.0), xp.arange(7.0)]
    >>> found = windows(walks, 4, 2, people=["Ann", "Bob"])
    >>> [row.tolist() for row in to_numpy(found.x)]
    [[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0], [2.0, 3.0, 4.0, 5.0]]
    >>> found.recording.tolist(), found.person.tolist()
    ([0, 1, 1], ['Ann', 'Bob', 'Bob'])
    """
    import numpy as np

    length = integer("length", length)
    step = length if step is None else integer("step", step)
    if is_array(recordings):  # not every library's are iterable
        recordings = [recordings[i, ...] for i in range(recordings.shape[0])]
    signals = list(recordings)
    _check(signals, length)
    counts = [(x.shape[-1] - length) // step + 1 for x in signals]
    recording = np.repeat(np.arange(len(signals)), counts)
    names = np.arange(len(signals)) if people is None else np.asarray(to_numpy(people))
    if names.shape != (len(signals),):
        raise ValueError(
            f"people must have shape ({len(signals)},), one for each recording, got {names.shape}"
        )
    xp = array_namespace(signals[0])
    x = xp.stack(
        [
            signal[..., i * step : i * step + length]
            for signal, of_signal in zip(signals, counts, strict=True)
            for i in range(of_signal)
        ]
    )
    return Windows(x, recording, names[recording])


def _check(signals: list[Array], length: int) -> None:
    """Raise an error unless the recordings fit to each other and to windows of this length."""
    if not signals:
        raise ValueError("recordings must hold at least one, got none")
    namespace(**{f"recordings[{i}]": x for i, x in enumerate(signals)})
    for i, x in enumerate(signals):
        if x.ndim not in (1, 2) or x.shape[:-1] != signals[0].shape[:-1]:
            raise ValueError(
                f"recordings must have shape (C, L) with one C, or (L,); recordings[{i}] has "
                f"{tuple(x.shape)}, recordings[0] {tuple(signals[0].shape)}"
            )
        if x.dtype != signals[0].dtype:
            raise TypeError(
                f"recordings must have one dtype: recordings[{i}] has {x.dtype}, recordings[0] "
                f"{signals[0].dtype}"
            )
        if x.shape[-1] < length:
            raise ValueError(
                f"recordings[{i}] has {x.shape[-1]} numbers, fewer than a window of "
                f"length={length}: leave it out, put zeros around it, or take shorter windows"
            )


def recording_log_proba(log_proba: Array, recording: Any) -> tuple[NDArray[Any], Array]:
    """Return what the windows of each recording say together.

    ``log p(k) = mean_i log p_i(k) - log sum_c exp mean_i log p_i(c)``, over the windows i of a
    recording.

    Parameters
    ----------
    log_proba : array, shape (N, classes)
        Logarithms of the probabilities of windows, such as ``predict_log_proba`` returns; logits
        will do.
    recording : array-like, shape (N,)
        What each window is of: a recording, or a person.

    Returns
    -------
    recordings : numpy.ndarray, shape (R,)
        Those that occur, in order.
    log_proba : array, shape (R, classes)
        The logarithm of the probability of each class, for each of them.

    Examples
    --------
    >>> p = xp.asarray([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]])
    >>> recordings, log_proba = recording_log_proba(xp.log(p), [4, 4, 8])
    >>> recordings.tolist(), xp.argmax(log_proba, axis=1).tolist()
    ([4, 8], [0, 1])
    """
    import numpy as np

    xp = float_namespace(log_proba=log_proba)
    check_ndim("log_proba", log_proba, 2, "(N, classes)")
    of_window = np.asarray(to_numpy(recording))
    if of_window.shape != (log_proba.shape[0],) or not of_window.size:
        raise ValueError(
            f"recording must have shape ({log_proba.shape[0]},), one for each row of log_proba, "
            f"got {of_window.shape}"
        )
    names, numbers, counts = np.unique(of_window, return_inverse=True, return_counts=True)
    rows = xp.asarray(np.argsort(numbers, kind="stable"), device=device(log_proba))
    ordered, ends = xp.take(log_proba, rows, axis=0), np.cumsum(counts)
    means = [
        xp.mean(ordered[end - count : end, :], axis=0)
        for end, count in zip(ends.tolist(), counts.tolist(), strict=True)
    ]
    return names, log_softmax(xp.stack(means))
