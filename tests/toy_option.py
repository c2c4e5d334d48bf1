"""Any operation with one more option that its kernels have never heard of."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from samples import SAMPLES, Sample

import agnostic_xent as ax
from agnostic_xent.core.operation import OPERATIONS, Operation, load_kernels

SAMPLE_OF: dict[str, Sample] = {}
"""A sample of each operation that leaves work to a kernel."""
for _sample in SAMPLES:
    if all(np.size(x) for x in _sample.arrays if x is not None):
        SAMPLE_OF.setdefault(_sample.operation, _sample)


def with_shift(original: Operation) -> Operation:
    """Return the operation plus ``shift``, written in the portable definition alone."""

    def contract(*arrays: Any, shift: float = 0.0, **options: Any) -> Any:
        called = original._contract(*arrays, **options)
        return called._replace(options=called.options | {"shift": shift})

    made = Operation(contract)
    made.name = original.name
    made._defaults |= original._defaults  # of options that its kernels do not know either

    @made.definition
    def value(*arrays: Any, shift: float, **options: Any) -> Any:
        found = original.portable.value(*arrays, **options)
        return (found[0] + shift, *found[1:]) if isinstance(found, tuple) else found + shift

    @made.pullback
    def vjp(*arrays: Any, shift: float, **options: Any) -> Any:
        wanted = {"wrt": frozenset(range(len(arrays)))} if original.portable.sees_wrt else {}
        _, pullback = original.portable.vjp(*arrays, **options, **wanted)
        return value(*arrays, shift=shift, **options), pullback

    made._kernels = original._kernels
    return made


def check_unknown_option(name: str) -> None:
    """Call with the option at its default and not, in either order: "auto" is the portable one."""
    sample = SAMPLE_OF[name]
    arrays = [x.astype("f4") if x is not None and x.dtype == "f8" else x for x in sample.arrays]
    assert load_kernels("numpy") is None
    for shifts in itertools.permutations((0.0, 0.125)):
        operation = with_shift(OPERATIONS[name])
        for shift in shifts:
            arguments = (*arrays, *sample.extra)
            options = sample.options | {"shift": shift}
            with ax.kernels("portable"):
                expected = first(operation.vjp(*arguments, **options)[0])
            for _ in range(2):  # found, and remembered
                value, pullback = operation.vjp(*arguments, **options)
                np.testing.assert_allclose(first(value), expected, rtol=1e-4, atol=1e-4)
                pullback(np.ones_like(expected))
            why = ax.explain(operation, *arguments, **options)
            assert ("it takes these arguments" in why) == (shift == 0), why
            assert ("it does not know the option shift" in why) == (shift != 0), why


def first(value: Any) -> np.ndarray:
    return np.asarray(value[0] if isinstance(value, tuple) else value)
