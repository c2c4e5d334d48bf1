"""Compiled functions: one a signature, at its first use, and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, TypeVar

from numba import extending as _extending

from ....core.forks import as_a_whole
from .machine_code import machine_code
from .sharing import shared_out
from .signatures import signature_of
from .threads import InParts

extending: Any = _extending  # Numba is typed in part only

LOOPS: list[Compiled] = []
"""All compiled functions of the modules that are imported."""


def always(**chosen: Any) -> bool:
    """Return that every combination of choices is asked for."""
    return True


class Compiled(dict[Any, Any]):
    """A function's machine code for each variant, made when it is first asked for.

    ``loop[variant]`` is compiled for a choice of each of ``choices``: a tuple, or the only one.
    ``only`` tells which combinations there can be on this processor. With ``pieces`` it is an
    `InParts`, called without its last two arguments, parts and part.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        choices: dict[str, tuple[Any, ...]],
        pieces: int = 0,
        only: Callable[..., bool] = always,
    ):
        self.function, self.choices, self.pieces, self.only = function, choices, pieces, only
        LOOPS.append(self)

    def __missing__(self, variant: Any) -> Any:
        return as_a_whole(lambda: self._make(variant))

    def _make(self, variant: Any) -> Any:
        if variant not in self:  # another thread may just have made it
            values = variant if isinstance(variant, tuple) else (variant,)
            chosen = dict(zip(self.choices, values, strict=True))
            signature = signature_of(self.function, chosen)
            if self.pieces:
                made = machine_code(shared_out(self.function), signature)
                self[variant] = InParts(made, self.pieces)
            else:
                self[variant] = machine_code(self.function, signature)
        return self[variant]

    def variants(self) -> Iterator[Any]:
        """Yield every variant that is compiled ahead."""
        for values in product(*self.choices.values()):
            if self.only(**dict(zip(self.choices, values, strict=True))):
                yield values[0] if len(values) == 1 else values


def compiled(**choices: tuple[Any, ...]) -> Callable[[Callable[..., Any]], Compiled]:
    """Return the decorator of a function that is compiled for each combination of ``choices``."""
    return lambda function: Compiled(function, choices)


def compiled_in_parts(
    pieces: int = 1, only: Callable[..., bool] = always, **choices: tuple[Any, ...]
) -> Callable[[Callable[..., Any]], Compiled]:
    """Return the decorator of a function ``(*args, parts, part)`` whose parts threads share out.

    There are so many ``pieces`` as parts a thread: one, unless parts need no memory of their own.
    """
    return lambda function: Compiled(function, choices, pieces, only)


F = TypeVar("F", bound=Callable[..., Any])
shared: Callable[[F], F] = extending.register_jitable(error_model="numpy")
"""Decorator of a function that is called both by Python and by compiled code."""
