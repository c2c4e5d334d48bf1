"""Code of the CPU kernels for processors that are not here.

Run as a script, it has LLVM translate all of them for ARM:

    NUMBA_CPU_NAME=x86-64 NUMBA_CPU_FEATURES= python tests/processors.py
"""

from __future__ import annotations

import multiprocessing
import os
import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import llvmlite.binding as llvm
from numba.core.codegen import JITCodeLibrary

from agnostic_xent.kernels.cpu import warmup

PROCESSORS = {"AVX2": "haswell", "SSE2": "x86-64"}
"""What Numba is told to compile for: vectors of 8 numbers, and of 4 without fused multiply-adds."""


def settings(processor: str) -> dict[str, str]:
    """Return the environment in which Numba compiles for a processor."""
    return {"NUMBA_CPU_NAME": PROCESSORS[processor], "NUMBA_CPU_FEATURES": ""}


def arm_code(instructions: str) -> str:
    """Return the assembly for ARM of LLVM's instructions for a processor with vectors of SSE2."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    triple = "aarch64-unknown-linux-gnu"
    machine = llvm.Target.from_triple(triple).create_target_machine(features="+neon", opt=2)
    # Numba's counting of references, and hints, were made for this processor before
    text = instructions.replace("@llvm.x86.", "@x86.").replace(" immarg", "")
    text = re.sub('target triple = ".*"', f'target triple = "{triple}"', text)
    layout = f'target datalayout = "{machine.target_data}"'
    module = llvm.parse_assembly(re.sub('target datalayout = ".*"', layout, text))
    module.verify()
    assembly: str = machine.emit_assembly(module)
    return assembly


ARM_CODE: dict[str, str] = {}
"""Name of what was compiled since `keep_arm_code` -> its assembly for ARM."""


def keep_arm_code() -> None:
    """Have all that is compiled from now on translated for ARM too, before it becomes code here."""
    finish = JITCodeLibrary._finalize_final_module

    def finish_both(library: Any) -> None:
        ARM_CODE[library.name] = arm_code(str(library._final_module))
        finish(library)

    JITCodeLibrary._finalize_final_module = finish_both


def vector_instructions(assembly: str) -> int:
    """Return how many lines of assembly for ARM name a vector."""
    return len(re.findall(r"\bv\d+\.(?:4s|2d)\b.*$", assembly, re.M))


def compiled_for_arm(module: str, name: str, variant: Any) -> tuple[str, int]:
    """Return a loop's name, and how many instructions on vectors it has for ARM."""
    ARM_CODE.clear()
    label, _ = warmup._timed(module, name, variant)
    return label, sum(map(vector_instructions, ARM_CODE.values()))


def main() -> None:
    """Print how many instructions on vectors each loop has."""
    os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()  # nothing that is there already
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), context, keep_arm_code) as pool:
        futures = [pool.submit(compiled_for_arm, *call) for call in warmup.calls()]
        for future in futures:
            label, vectors = future.result()
            print(f"{vectors:6d}  {label}", flush=True)
            assert vectors > 0, label


if __name__ == "__main__":
    main()
