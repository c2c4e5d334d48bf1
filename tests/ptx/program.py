"""A kernel that is compiled for the CPU from its PTX, and its launch."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from numba import types

from agnostic_xent.kernels import store

from . import FOLDER, machine
from .layout import ARRAY, CELL, COPIES, COPY, FAULTS, FINE, MACHINE, THREAD, WORD
from .text import Module, parse
from .translation import translate

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
for function in (machine.ptx_global, machine.ptx_shared, machine.ptx_copy, machine.ptx_land):
    llvm.add_symbol(function.__name__, function.address)


class Fault(AssertionError):
    """A step of a kernel that is not allowed."""


class Symbol(types.WrapperAddressProtocol):  # type: ignore[misc]
    """A function of a compiled kernel, for Numba."""

    def __init__(self, address: int, signature: Any):
        self._address, self._signature = address, signature

    def __wrapper_address__(self) -> int:
        return self._address

    def signature(self) -> Any:
        return self._signature


class Program:
    """A kernel in PTX, compiled for the CPU."""

    def __init__(self, ptx: str):
        self.ptx = ptx
        self.module = parse(ptx)
        (self.entry,) = (f for f in self.module.functions if f.entry)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_of(ptx, self.module)))
        self._engine.finalize_object()
        address = self._engine.get_function_address
        self._start = Symbol(address("start"), types.void(*[types.int64] * 4))
        self._resume = Symbol(address("resume"), types.void(types.int64))
        self._frame = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(address("start"))

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        parameters: Sequence[int],
        arrays: Iterable[np.ndarray],
        seed: int = 0,
    ) -> None:
        """Run the kernel on the addresses of its parameters, and on these arrays alone."""
        count = int(np.prod(block))
        threads = threads_of(block, grid)
        self._frame(None, threads.ctypes.data, None, None)  # which tells how large a frame is
        threads["frame"] = -(-threads["frame"][0] // 16) * 16
        table = table_of(arrays)
        last = table[-1:]
        cell_count = int(np.sum(last["first"] + (last["end"] - last["start"]) // last["item"])) + 1
        cells = np.zeros(cell_count, CELL)
        shared = np.empty(self.module.shared_size + 16, np.uint8)
        shared_cells = np.zeros(self.module.shared_size // WORD + 1, CELL)
        copies = np.empty(count * COPIES if "cp.async" in self.ptx else 0, COPY)
        m = np.zeros(1, MACHINE)
        m[0]["shared"] = -(-shared.ctypes.data // 16) * 16
        m[0]["shared_size"] = self.module.shared_size
        m[0]["array_count"], m[0]["cell_count"] = len(table), cell_count
        for name, x in (
            ("shared_cells", shared_cells), ("arrays", table), ("cells", cells), ("copies", copies)
        ):  # fmt: skip
            m[0][name] = x.ctypes.data
        frames = np.empty(count * int(threads["frame"][0]) + 16, np.uint8)
        pointers = np.array(parameters, np.int64)
        addresses = (
            -(-frames.ctypes.data // 16) * 16, threads.ctypes.data, m.ctypes.data,
            pointers.ctypes.data,
        )  # fmt: skip
        machine.run_grid(
            m, threads, shared, tuple(grid), self._start, self._resume, addresses, seed
        )
        if m[0]["fault"] != FINE:
            raise Fault(self.told(m[0], threads, table))

    def told(self, m: Any, threads: Any, table: Any) -> str:
        """Return what went wrong, in words."""
        several = f"thread {m['other']} of block {m['other_block'] - 1}"
        fault = FAULTS[m["fault"]].format(
            access=access_of(m, table),
            who=several if m["other_block"] > 0 else "threads of several blocks",
            other=m["other"], elsewhere=self.place_of(m["other_at"]), size=m["size"],
        )  # fmt: skip
        block = tuple(map(int, threads[m["thread"]]["ctaid"]))
        where = f"block {block}, thread {m['thread']}, {self.place_of(m['at'])}"
        return f"{self.entry.name}: {fault} ({where})"

    def place_of(self, number: int) -> str:
        """Return the line of an instruction, and its text."""
        i = self.module.instructions[number]
        return f"PTX line {i.line}: {i.text}"


def access_of(m: Any, table: Any) -> str:
    """Return what an access that went wrong does, and where."""
    address = int(m["address"])
    if address < 1 << 20:
        place = f"byte {address} of shared memory"
    elif not len(table):
        place = "memory"
    else:
        far = np.maximum(table["start"] - address, address - table["end"] + 1)
        nearest = table[np.argmin(far)]
        length = nearest["end"] - nearest["start"]
        place = f"byte {address - nearest['start']} of an array of {length} bytes"
    return f"{'a write' if m['writes'] else 'a read'} of {m['size']} bytes at {place}"


def threads_of(block: Sequence[int], grid: Sequence[int]) -> np.ndarray:
    """Return the records of the threads of a block."""
    threads = np.zeros(int(np.prod(block)), THREAD)
    number = np.arange(len(threads))
    threads["number"], threads["laneid"] = number, number % 32
    threads["tid"] = np.stack(np.unravel_index(number, block[::-1])[::-1], axis=-1)
    threads["ntid"], threads["nctaid"] = block, grid
    return threads


def table_of(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Return where arrays are, in order; those that share memory become one."""
    found: list[list[int]] = []
    for x in sorted((x for x in arrays if x.size), key=lambda x: x.ctypes.data):
        assert x.flags.c_contiguous, "a kernel takes contiguous arrays alone"
        start, end = x.ctypes.data, x.ctypes.data + x.nbytes
        if found and start < found[-1][1]:
            found[-1][1:] = [max(end, found[-1][1]), min(x.itemsize, found[-1][2])]
        else:
            found.append([start, end, x.itemsize])
    table = np.zeros(len(found), ARRAY)
    if found:
        table["start"], table["end"], table["item"] = np.array(found).T
        sizes = (table["end"] - table["start"]) // table["item"]
        table["first"] = np.cumsum(sizes) - sizes
    return table


# --- compilation ---------------------------------------------------------------------------------


def target_machine() -> Any:
    """Return LLVM's idea of this CPU, which an engine that is given it takes to its end."""
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=1,
        jit=True,
    )  # fmt: skip


def object_of(ptx: str, module: Module) -> bytes:
    """Return machine code of PTX, from the folder of this run of the tests if it is there."""
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
    names = "arithmetic.ll", "layout.py", "program.py", "text.py", "translation.py"
    texts = (Path(__file__).with_name(name).read_bytes() for name in names)
    digest = hashlib.sha256(b"".join(texts)).hexdigest()
    cpu = f"{llvm.get_host_cpu_name()} {llvm.get_host_cpu_features().flatten()}"
    return f"{digest} {llvmlite.__version__} {cpu}"
