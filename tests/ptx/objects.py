"""From LLVM's IR to machine code of this CPU, once for all tests of this checkout."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from agnostic_xent.kernels import store

from . import FOLDER
from .text import Module
from .translation import translate

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()


def target_machine() -> Any:
    """Return LLVM's idea of this CPU, which an engine that is given it takes to its end."""
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=1,
        jit=True,
    )  # fmt: skip


def object_of(ptx: str, module: Module) -> bytes:
    """Return machine code of PTX, made now or earlier."""
    name = f"{hashlib.sha256(ptx.encode()).hexdigest()[:32]}.o"
    kept = store.load(name, executor(), [FOLDER])
    if kept:
        return kept
    compiled = llvm.parse_assembly(translate(module))
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_unrolling = options.loop_vectorization = options.slp_vectorization = False
    cpu = target_machine()
    builder = llvm.create_pass_builder(cpu, options)
    builder.getModulePassManager().run(compiled, builder)
    code: bytes = cpu.emit_object(compiled)
    store.write(FOLDER, name, executor(), code)
    return code


@cache
def executor() -> str:
    """Return what machine code depends on beside its PTX: the executor and this CPU."""
    files = (path for path in Path(__file__).parent.iterdir() if path.suffix in (".py", ".ll"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()
    cpu = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    return f"{digest} {llvmlite.__version__} {cpu}"
