"""Parameters in safetensors files, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from .arrays import Array, namespace, to_numpy

if TYPE_CHECKING:
    import numpy as np

__all__ = ["load_params", "save_params"]


def save_params(path: str | os.PathLike[str], params: Mapping[str, Array]) -> None:
    """Write parameters of any library to a safetensors file, atomically.

    Parameters
    ----------
    path : path
        The file; an older one is replaced only when the new one is complete.
    params : mapping of str to array
        Such as ``Sequential.init`` or `fit` returns.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_params(path, {"0.bias": xp.asarray([0.5])})
    >>> load_params(path)["0.bias"].tolist()
    [0.5]
    """
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import save

    for name, x in params.items():
        namespace(**{f"params[{name!r}]": x})
    # safetensors writes other memory layouts wrongly: it takes the bytes as they lie
    contiguous = {name: np.ascontiguousarray(to_numpy(x)) for name, x in params.items()}
    shaped = {name: x.reshape(params[name].shape) for name, x in contiguous.items()}
    try:
        content = save(shaped)
    except SafetensorError as error:
        raise TypeError(f"params cannot be written as safetensors: {error}") from error
    write_atomically(path, content)


def load_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the parameters in a safetensors file as NumPy arrays (`to_backend` converts them).

    Raises
    ------
    ValueError
        If the file is damaged, or no safetensors file.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_params(path, {"0.bias": xp.asarray([0.5])})
    >>> sorted(load_params(path))
    ['0.bias']
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that at every moment the old or the new content is there, whole."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
