"""Parameters to start from: those of a model that differs in its last layer."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.arrays import Array, array_namespace, device
from ..core.conversion import to_backend, to_numpy
from .exchange import COUNTER
from .layers import Params

__all__ = ["transfer_params"]


def transfer_params(params: Mapping[str, Array], source: Mapping[str, Array]) -> Params:
    """Return parameters of a model to start from: those of another one, perhaps of other classes.

    The last layer stays as it is where its parameters have other shapes: that of another number of
    classes. All other parameters have to be in both models, with the same shapes.

    Parameters
    ----------
    params : mapping of str to array
        From ``model.init``; the last of them are those of the last layer.
    source : mapping of str to array
        The other model's, of any library, such as `load_params` or `load_checkpoint` returns.

    Returns
    -------
    dict of str to array
        Of the library, device and dtypes of ``params``.

    Raises
    ------
    ValueError
        If another layer than the last one differs.

    Examples
    --------
    >>> old, _ = Sequential(Dense(5), ReLU(), Dense(10)).init(0, (3,))
    >>> new, _ = Sequential(Dense(5), ReLU(), Dense(2)).init(1, (3,))
    >>> w = transfer_params(to_backend(new, xp), old)
    >>> bool((to_numpy(w["0.weight"]) == old["0.weight"]).all()), tuple(w["2.weight"].shape)
    (True, (2, 5))
    """
    last = [*params][-1].rpartition(".")[0]
    head = [name for name in params if name.rpartition(".")[0] == last]
    given = {name: w for name, w in source.items() if name.rpartition(".")[2] != COUNTER}
    fits = all(name in given and _shapes_agree(given[name], params[name]) for name in head)
    body = [name for name in params if fits or name not in head]
    for name in body:
        if name not in given or not _shapes_agree(given[name], params[name]):
            found = f"of shape {tuple(given[name].shape)}" if name in given else "missing"
            raise ValueError(
                f"source[{name!r}] must have shape {tuple(params[name].shape)} as in params, but "
                f"is {found}; only the last layer ({last}) may differ"
            )
    unknown = [name for name in given.keys() - params.keys() if name.rpartition(".")[0] != last]
    if unknown:
        raise ValueError(f"source has {', '.join(sorted(unknown))}, which params has not")
    return {**params, **{name: _like(params[name], given[name]) for name in body}}


def _shapes_agree(a: Array, b: Array) -> bool:
    return tuple(a.shape) == tuple(b.shape)


def _like(own: Array, given: Array) -> Array:
    """Return numbers where another array is, and in its dtype."""
    host = to_numpy(given).astype(to_numpy(own).dtype)
    return to_backend(host, array_namespace(own), device(own))
