"""Structs of numbers that a launch unpacks: their fields are the parameters of the kernels."""

from __future__ import annotations

import inspect

import pytest

from agnostic_xent.kernels.cuda import optimizers
from agnostic_xent.kernels.cuda.conv import few, gather, pixels, tensor, tiled, weight
from agnostic_xent.kernels.cuda.loss import (
    apart,
    binary_kernels,
    formulas,
    held,
    samples,
    soft_targets,
    streams,
)
from agnostic_xent.kernels.cuda.loss import rows as loss_rows
from agnostic_xent.kernels.cuda.normalization import channels
from agnostic_xent.kernels.cuda.pool import tiles, windows
from agnostic_xent.kernels.cuda.softmax import held as softmax_held
from agnostic_xent.kernels.cuda.softmax import sweeps
from agnostic_xent.kernels.cuda.toolchain import rows
from agnostic_xent.kernels.cuda.toolchain.launching import I4, I8, codes_of

STRUCTS = {
    rows.Layout: (softmax_held, sweeps, soft_targets),
    formulas.Samples: (loss_rows, held, streams, apart, samples),
    formulas.Factors: (loss_rows, held, streams, apart, soft_targets),
    binary_kernels.Places: (binary_kernels,),
    binary_kernels.Factors: (binary_kernels,),
    channels.Extent: (channels,),
    windows.Windows: (windows,),
    windows.Counted: (windows, tiles),
    tiles.Places: (tiles,),
    tiles.Image: (tiles,),
    pixels.Sizes: (few, tiled, tensor),
    gather.Places: (few, tiled, tensor),
    weight.Parts: (weight,),
    optimizers.SGDNumbers: (optimizers,),
    optimizers.AdamWNumbers: (optimizers,),
}
"""The modules whose kernels take each of them."""

CASES = [(struct, module) for struct, modules in STRUCTS.items() for module in modules]


@pytest.mark.parametrize(("struct", "module"), CASES)
def test_fields_are_parameters_in_their_order(struct, module):
    found = 0
    for kernel in module.variants():
        names = list(inspect.signature(kernel.function).parameters)
        if set(struct._fields) <= set(names):
            start = names.index(struct._fields[0])
            assert tuple(names[start : start + len(struct._fields)]) == struct._fields, kernel
            found += 1
    assert found


def test_types_are_those_of_the_fields():
    assert codes_of(gather.Places) == "i8 i8 i4 i4 i4 i4 i4 i8 i8 i8 i4 i4"
    assert codes_of(formulas.Factors, "f4") == "f4 f4 f4 f4"
    assert (I4.__metadata__, I8.__metadata__) == (("i4",), ("i8",))
