"""Parameters in safetensors files, written whole or not at all."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.arrays import Array
from ..core.checks import namespace
from ..core.conversion import to_numpy
from ..core.files import write_atomically

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
    for name, x in params.items():
        namespace(**{f"params[{name!r}]": x})
    write_atomically(path, _serialized("params", host_arrays(params), None))


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
    return _deserialized(path, Path(path).read_bytes())


# --- arrays with a record ------------------------------------------------------------------------


def save_record(
    path: str | os.PathLike[str], kind: str, record: Any, arrays: Mapping[str, Array]
) -> None:
    """Write arrays and, as JSON, what goes with them, with a checksum of both."""
    host = host_arrays(arrays)
    text = json.dumps(record)
    metadata = {"kind": kind, "record": text, "checksum": checksum(text, host)}
    write_atomically(path, _serialized("arrays", host, metadata))


def load_record(path: str | os.PathLike[str], kind: str) -> tuple[Any, dict[str, np.ndarray]]:
    """Read what `save_record` wrote.

    Raises
    ------
    ValueError
        If the file is damaged, or of another kind.
    OSError
        If it cannot be read.
    """
    content = Path(path).read_bytes()
    arrays = _deserialized(path, content)
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    if metadata.get("kind") != kind:
        raise ValueError(f"{path} is no {kind}: it says {metadata.get('kind')!r}")
    text = metadata.get("record", "")
    if metadata.get("checksum") != checksum(text, arrays):
        raise ValueError(f"{path} is damaged: its content does not fit its checksum")
    return json.loads(text), arrays


def checksum(text: str, arrays: Mapping[str, np.ndarray]) -> str:
    """Return the CRC-32 of a text and of C-contiguous arrays with their names and types."""
    crc = zlib.crc32(text.encode())
    for name, x in sorted(arrays.items()):
        crc = zlib.crc32(f"{name} {x.dtype} {x.shape}".encode(), crc)
        content: Any = x.reshape(-1).view("uint8")
        crc = zlib.crc32(content, crc)
    return f"{crc:08x}"


def host_arrays(arrays: Mapping[str, Array]) -> dict[str, np.ndarray]:
    """Return C-contiguous NumPy arrays of the native byte order."""
    import numpy as np

    found = {}
    for name, x in arrays.items():
        host = to_numpy(x)
        # safetensors writes other memory layouts wrongly: it takes the bytes as they lie
        native = np.ascontiguousarray(host, dtype=host.dtype.newbyteorder("="))
        found[name] = native.reshape(host.shape)  # contiguous makes (1,) of ()
    return found


def _serialized(what: str, arrays: dict[str, np.ndarray], metadata: dict[str, str] | None) -> bytes:
    from safetensors import SafetensorError
    from safetensors.numpy import save

    try:
        return save(arrays, metadata)
    except SafetensorError as error:
        raise TypeError(f"{what} cannot be written as safetensors: {error}") from error


def _deserialized(path: str | os.PathLike[str], content: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
