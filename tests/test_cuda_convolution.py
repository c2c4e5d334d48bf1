"""The machine code of the CUDA kernels of conv2d, for which no GPU is needed.

What they compute is tested in tests/cuda.
"""

from __future__ import annotations

import re

import pytest

pytest.importorskip("cupy")
pytest.importorskip("cuda.bindings.nvjitlink")

from agnostic_xent.kernels.cuda.conv import few as conv_few
from agnostic_xent.kernels.cuda.conv import tensor as conv_tensor
from agnostic_xent.kernels.cuda.conv import tiled as conv_tiled
from agnostic_xent.kernels.cuda.conv import weight as conv_weight
from agnostic_xent.kernels.cuda.toolchain.compiling import compile_for

FMA, MMA = r"fma\.rn\.f32", r"mma\.sync\S+m16n8k8\S+tf32"
COPY, COPY_16 = r"cp\.async\.ca\S* \[\S+\], \[\S+\], 4,", r"cp\.async\.cg\S* \[\S+\], \[\S+\], 16,"
VECTOR = r"(ld|st)\.(global|shared)\.v4\.[fb]32|(ld|st)\.(global|shared)\.v2\.f64"

INSTRUCTIONS = {  # of the loop over tiles, where it is unrolled by hand
    (conv_tiled, "tiled_simt_128_64_by_tap", "f4"): {FMA: 8 * 64, VECTOR: 8 * 4},
    (conv_tiled, "tiled_simt_128_32_any", "f8"): {r"fma\.rn\.f64": 8 * 32, VECTOR: 8 * 6},
    (conv_tiled, "tiled_rounded_by_tap", "f2"): {MMA: 16},
    (conv_tensor, "staged_tf32_by_tap", "f4"): {MMA: 32, COPY: 16, COPY_16: 2},
    (conv_tensor, "staged_tf32x3_any", "f4"): {MMA: 96, COPY: 16, COPY_16: 2},
    (conv_weight, "weight_simt_128_64", "f4"): {FMA: 8 * 64, VECTOR: 8 * 4},
    (conv_weight, "weight_tf32x3", "f4"): {MMA: 48},
    (conv_few, "few_8", "f4"): {FMA: 8, r"ld\.global\.v4": 1},
}


@pytest.mark.parametrize(("module", "name", "code"), INSTRUCTIONS)
def test_instructions(module, name, code):
    (kernel,) = (
        k
        for k in module.variants()
        if k.function.__qualname__ == name and k.parameters.startswith(f"{code}*")
    )
    made = compile_for((9, 0), kernel.function, kernel.parameters, (kernel.threads, kernel.blocks))
    for instruction, least in INSTRUCTIONS[module, name, code].items():
        found = len(list(re.finditer(instruction, made.ptx)))
        assert found >= least, f"{instruction}: {found}"
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in made.report
