"""Types of compiled functions, as annotations of their parameters.

A parameter of a compiled function is an ``int``, ``float`` or ``bool``, a `NamedTuple` of these, or
an array: `Read1` and its like. Some types are left open, for a function to be compiled for each of
several choices: ``kind`` is the dtype of floating arrays, others are named by who needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
from numba import from_dtype as _from_dtype
from numba import types as _types

types: Any = _types  # Numba is typed in part only
from_dtype: Any = _from_dtype

SINGLE = (np.dtype(np.float32),)
FLOATS = (*SINGLE, np.dtype(np.float64))

SCALARS = {int: types.int64, float: types.float64, bool: types.boolean, type(None): types.void}


class Array(NamedTuple):
    """An array whose elements lie in order, unless its layout says otherwise."""

    element: Any
    """A dtype, or the name of a choice of dtypes."""
    ndim: int
    written: bool = False
    """Whether it is written to; what is only read may be read-only."""
    layout: str = "C"
    """As Numba names it, or the name of a choice of layouts."""

    def of(self, chosen: Mapping[str, Any]) -> Any:
        """Return the Numba type, where names of choices stand for what is chosen."""
        element = from_dtype(chosen.get(self.element, self.element))
        layout = chosen.get(self.layout, self.layout)
        return types.Array(element, self.ndim, layout, readonly=not self.written)


class Unnamed(NamedTuple):
    """The values of a `NamedTuple` as a plain tuple: Numba recognises it in a microsecond less."""

    struct: type

    def of(self, chosen: Mapping[str, Any]) -> Any:
        """Return the Numba type, which nothing chosen changes."""
        return types.BaseTuple.from_types(struct_type(self.struct).types)


Read1 = Annotated[Any, Array("kind", 1)]
Read2 = Annotated[Any, Array("kind", 2)]
Read3 = Annotated[Any, Array("kind", 3)]
Write1 = Annotated[Any, Array("kind", 1, written=True)]
Write2 = Annotated[Any, Array("kind", 2, written=True)]
Write3 = Annotated[Any, Array("kind", 3, written=True)]
Doubles = Annotated[Any, Array(np.dtype(np.float64), 1)]
WrittenDoubles = Annotated[Any, Array(np.dtype(np.float64), 1, written=True)]
Integers = Annotated[Any, Array(np.dtype(np.int64), 1)]
Bytes = Annotated[Any, Array(np.dtype(np.uint8), 1)]
WrittenBytes = Annotated[Any, Array(np.dtype(np.uint8), 1, written=True)]


def signature_of(function: Callable[..., Any], chosen: Mapping[str, Any]) -> Any:
    """Return the Numba signature of an annotated function for what is chosen.

    A choice is named as in an `Array`, or as the parameter whose class it is.
    """
    hints = get_type_hints(function, include_extras=True)
    result = type_of(hints.pop("return"), chosen)
    return result(*(type_of(chosen.get(name, hint), chosen) for name, hint in hints.items()))


def type_of(hint: Any, chosen: Mapping[str, Any]) -> Any:
    """Return the Numba type of an annotation for what is chosen."""
    if hint in SCALARS:
        return SCALARS[hint]
    if get_origin(hint) is tuple:
        return types.BaseTuple.from_types([type_of(part, chosen) for part in get_args(hint)])
    if get_origin(hint) is Annotated:
        return hint.__metadata__[0].of(chosen)
    return hint.of(chosen) if hasattr(hint, "of") else struct_type(hint)


def struct_type(cls: type) -> Any:
    """Return the Numba type of a `NamedTuple` whose fields are annotated with scalar types."""
    fields = [SCALARS[hint] for hint in get_type_hints(cls).values()]
    return types.BaseTuple.from_types(fields, cls)
