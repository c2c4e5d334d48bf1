"""A kernel that is compiled for the CPU from its PTX, and its launch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numba import types

from . import machine
from .layout import ARRAY, CELL, COPIES, COPY, FAULTS, FINE, MACHINE, THREAD, WORD
from .objects import object_of, target_machine
from .text import parse

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
        shared: int = 0,
        seed: int = 0,
    ) -> None:
        """Run the kernel on the addresses of its parameters, and on these arrays alone.

        ``shared`` are the bytes of shared memory of a block besides those that the PTX names.
        """
        threads, table = threads_of(block, grid), table_of(arrays)
        self._frame(None, threads.ctypes.data, None, None)  # which tells how large a frame is
        threads["frame"] = -(-threads["frame"][0] // 16) * 16
        threads["dynamic_smem_size"] = shared
        count, size = len(threads), self.module.shared_size + shared
        room, frames = memory(size), memory(count * int(threads["frame"][0]))
        elements = int(np.sum((table["end"] - table["start"]) // table["item"]))
        cells, shared_cells = np.zeros(elements + 1, CELL), np.zeros(size // WORD + 1, CELL)
        copies = np.empty(count * COPIES if "cp.async" in self.ptx else 0, COPY)
        m = np.zeros(1, MACHINE)
        m["shared_size"], m["array_count"], m["cell_count"] = size, len(table), len(cells)
        for name, x in {
            "shared": room, "shared_cells": shared_cells, "arrays": table, "cells": cells,
            "copies": copies,
        }.items():  # fmt: skip
            m[name] = x.ctypes.data
        pointers = np.array(parameters, np.int64)
        addresses = tuple(x.ctypes.data for x in (frames, threads, m, pointers))
        machine.run_grid(m, threads, room, tuple(grid), self._start, self._resume, addresses, seed)
        if m[0]["fault"] != FINE:
            raise Fault(self.told(m[0], threads, table))

    def told(self, m: Any, threads: Any, table: Any) -> str:
        """Return what went wrong, in words."""
        one = f"thread {m['other']} of block {m['other_block'] - 1}"
        fault = FAULTS[m["fault"]].format(
            access=access_of(m, table),
            who=one if m["other_block"] > 0 else "threads of several blocks",
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


def memory(size: int) -> np.ndarray:
    """Return so many bytes, from a multiple of 16 on."""
    x = np.empty(size + 16, np.uint8)
    return x[-x.ctypes.data % 16 :][:size]


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
