"""Parameters in safetensors files, written whole or not at all."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..core.arrays import Array
from ..core.checks import namespace
from ..core.conversion import bfloat16, to_numpy
from ..core.files import write_atomically

if TYPE_CHECKING:
    import numpy as np


__all__ = ["load_params", "save_params"]

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
}
"""The dtypes of safetensors that parameters can have, and NumPy's names of them."""


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
    host = host_arrays(params)
    write_atomically(path, _serialized("params", host, {"checksum": checksum("", host)}))


def load_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read the parameters in a safetensors file as NumPy arrays (`to_backend` converts them).

    Raises
    ------
    ValueError
        If the file is damaged, or no safetensors file, or holds numbers of another dtype than
        NumPy's and bfloat16, such as float8. A changed number is noticed in files of `save_params`,
        which have a checksum.
    OSError
        If it cannot be read.
    ImportError
        If it holds bfloat16, and the package ml_dtypes, by which NumPy knows this dtype, is not
        installed.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "model.safetensors"
    >>> save_params(path, {"0.bias": xp.asarray([0.5])})
    >>> sorted(load_params(path))
    ['0.bias']
    """
    _, arrays = _read(path)
    return arrays


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
    metadata, arrays = _read(path)
    if metadata.get("kind") != kind:
        raise ValueError(f"{path} is no {kind}: it says {metadata.get('kind')!r}")
    if not {"record", "checksum"} <= metadata.keys():
        raise ValueError(f"{path} is damaged: it has no record or no checksum")
    try:
        return json.loads(metadata["record"]), arrays
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is damaged: its record is no JSON ({error})") from error


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


def _serialized(what: str, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    from safetensors import SafetensorError
    from safetensors.numpy import save

    try:
        return save(arrays, metadata)
    except SafetensorError as error:
        raise TypeError(f"{what} cannot be written as safetensors: {error}") from error


def _read(path: str | os.PathLike[str]) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """Return the metadata and the arrays of a file, which fit their checksum if it has one."""
    from safetensors import SafetensorError, deserialize

    content, parts = Path(path).read_bytes(), cast(Any, deserialize)
    try:
        arrays = {name: _array(**part) for name, part in parts(content)}
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is no whole safetensors file: {error}") from error
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__") or {}
    own = checksum(metadata.get("record", ""), arrays)
    if metadata.get("checksum", own) != own:
        raise ValueError(f"{path} is damaged: its content does not fit its checksum")
    return metadata, arrays


def _array(shape: list[int], dtype: str, data: bytearray) -> np.ndarray:
    import numpy as np

    if dtype not in DTYPES:
        raise ValueError(f"NumPy has no dtype for its numbers in {dtype}")
    return np.frombuffer(data, bfloat16() if dtype == "BF16" else DTYPES[dtype]).reshape(shape)
