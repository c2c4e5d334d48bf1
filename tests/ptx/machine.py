"""The machine that runs a translated kernel: threads in turn, and a check of each step.

The threads of a block take turns, in an order drawn anew each round: each runs until it has to meet
others. Every element of memory has a cell, which knows who last wrote and read it. An access is a
race unless what came before is ordered before it: it was by the same thread, or a barrier of the
block lies between, or a meeting of the warp (bar.warp.sync) of which both are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, cfunc, njit, types
from numba.extending import intrinsic

from .layout import (
    ABANDONED,
    ARRAY,
    BARRIER,
    CELL,
    COPIES,
    COPY,
    COPY_ROOM,
    COPY_SIZE,
    DESERTED,
    DIVERGED,
    ENDED,
    FAILED,
    FINE,
    MACHINE,
    MISALIGNED,
    OUTSIDE,
    PENDING,
    PRODUCT,
    READ,
    READY,
    SHUFFLE,
    SMALL_WARP,
    THREAD,
    UNWRITTEN,
    WARP,
    WORD,
    WRITTEN,
)
from .tensor import multiply

LANES = 32
COPY_BYTES, THREAD_BYTES = COPY.itemsize, THREAD.itemsize


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """Return an address as a pointer."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), code


@njit
def fail(m: Any, t: Any, at: Any, fault: Any, address: Any, size: Any, writes: Any) -> None:
    """Note what went wrong."""
    m.fault, m.at, m.thread = fault, at, t.number
    m.address, m.size, m.writes = address, size, writes


# --- memory --------------------------------------------------------------------------------------


@njit
def is_ordered(t: Any, thread: Any, barriers: Any, meetings: Any) -> Any:
    """Return whether an access of a thread of this block comes before what thread t does now."""
    if thread == t.number or barriers < t.barriers:
        return True
    return thread // LANES == t.number // LANES and meetings < t.meetings


@njit
def reads_are_ordered(t: Any, c: Any) -> Any:
    """Return whether all reads of this block that a cell knows come before what thread t does."""
    return is_ordered(t, c.lowest, c.read, c.read_meeting) and is_ordered(
        t, c.highest, c.read, c.read_meeting
    )


@njit
def note(m: Any, t: Any, at: Any, c: Any, address: Any, size: Any, writes: Any) -> Any:
    """Note an access in a cell; return whether there is nothing wrong with it."""
    if c.writer_block and not (
        c.writer_block == t.block and is_ordered(t, c.writer, c.written, c.written_meeting)
    ):
        m.other, m.other_block = c.writer, c.writer_block
        fail(m, t, at, WRITTEN, address, size, writes)
        return False
    alone = c.reader_block == 0 or (c.reader_block == t.block and reads_are_ordered(t, c))
    if writes:
        if not alone:
            m.other = c.highest if c.lowest == t.number else c.lowest
            m.other_block = c.reader_block
            fail(m, t, at, READ, address, size, writes)
            return False
        c.writer, c.writer_block = t.number, t.block
        c.written, c.written_meeting = t.barriers, t.meetings
        c.reader_block = 0
    elif alone:
        c.lowest = c.highest = t.number
        c.reader_block, c.read, c.read_meeting = t.block, t.barriers, t.meetings
    elif c.reader_block != t.block:
        c.reader_block = -1  # several
    else:
        c.lowest, c.highest = min(c.lowest, t.number), max(c.highest, t.number)
        c.read, c.read_meeting = t.barriers, max(c.read_meeting, t.meetings)
    return True


@njit
def check_global(m: Any, t: Any, at: Any, address: Any, size: Any, writes: Any) -> Any:
    """Return whether an access to global memory is allowed, and note it."""
    if address % size:
        fail(m, t, at, MISALIGNED, address, size, writes)
        return False
    arrays = carray(pointer(m.arrays), m.array_count, ARRAY)
    low, high = 0, m.array_count
    while low < high:  # find the last array that does not start behind the address
        middle = (low + high) // 2
        if arrays[middle].start <= address:
            low = middle + 1
        else:
            high = middle
    if low == 0 or address + size > arrays[low - 1].end:
        fail(m, t, at, OUTSIDE, address, size, writes)
        return False
    a = arrays[low - 1]
    cells = carray(pointer(m.cells), m.cell_count, CELL)
    first = a.first + (address - a.start) // a.item
    last = a.first + (address + size - 1 - a.start) // a.item
    for i in range(first, last + 1):  # noqa: SIM110 (Numba has no all)
        if not note(m, t, at, cells[i], address, size, writes):
            return False
    return True


@njit
def check_shared(m: Any, t: Any, at: Any, address: Any, size: Any, writes: Any, lands: Any) -> Any:
    """Return whether an access to shared memory is allowed, and note it."""
    if address % size:
        fail(m, t, at, MISALIGNED, address, size, writes)
        return False
    if address < 0 or address + size > m.shared_size:
        fail(m, t, at, OUTSIDE, address, size, writes)
        return False
    cells = carray(pointer(m.shared_cells), m.shared_size // WORD + 1, CELL)
    for i in range(address // WORD, (address + size - 1) // WORD + 1):
        c = cells[i]
        if c.writer_block != t.block:  # what another block left is not there
            c.writer_block = c.reader_block = 0
        if c.pending and not lands:
            m.other = c.pending - 1
            fail(m, t, at, PENDING, address, size, writes)
            return False
        if not writes and not c.writer_block:
            fail(m, t, at, UNWRITTEN, address, size, writes)
            return False
        if not note(m, t, at, c, address, size, writes):
            return False
    return True


POINTERS = types.voidptr, types.voidptr, types.int32
I32, I64 = types.int32, types.int64


@cfunc(I64(*POINTERS, I64, I64, I32))
def ptx_global(machine: Any, thread: Any, at: Any, address: Any, size: Any, writes: Any) -> Any:
    """Return the place of an access to global memory; 0 if it is wrong."""
    m, t = carray(machine, 1, MACHINE)[0], carray(thread, 1, THREAD)[0]
    return address if check_global(m, t, at, address, size, writes != 0) else 0


@cfunc(I64(*POINTERS, I64, I64, I32))
def ptx_shared(machine: Any, thread: Any, at: Any, address: Any, size: Any, writes: Any) -> Any:
    """Return the place of an access to shared memory; 0 if it is wrong."""
    m, t = carray(machine, 1, MACHINE)[0], carray(thread, 1, THREAD)[0]
    return m.shared + address if check_shared(m, t, at, address, size, writes != 0, False) else 0


# --- copies that nobody waits for ----------------------------------------------------------------


@cfunc(I32(*POINTERS, I64, I64, I64, I64))
def ptx_copy(
    machine: Any, thread: Any, at: Any, target: Any, source: Any, size: Any, valid: Any
) -> Any:
    """Start a copy of ``valid`` bytes, and zeros up to ``size``; return 0 if it is wrong."""
    m, t = carray(machine, 1, MACHINE)[0], carray(thread, 1, THREAD)[0]
    if size not in (4, 8, 16) or valid < 0 or valid > size:
        fail(m, t, at, COPY_SIZE, source, size, False)
        return 0
    if source % size:
        fail(m, t, at, MISALIGNED, source, size, False)
        return 0
    if valid and not check_global(m, t, at, source, valid, False):
        return 0
    if not check_shared(m, t, at, target, size, True, False):
        return 0
    if t.copies == COPIES:
        fail(m, t, at, COPY_ROOM, target, size, True)
        return 0
    cells = carray(pointer(m.shared_cells), m.shared_size // WORD + 1, CELL)
    for i in range(target // WORD, (target + size) // WORD):
        cells[i].pending = 1 + t.number
    c = carray(pointer(m.copies + (t.number * COPIES + t.copies) * COPY_BYTES), 1, COPY)[0]
    c.target, c.source, c.size, c.valid, c.group, c.at = target, source, size, valid, t.group, at
    t.copies += 1
    return 1


@cfunc(I32(*POINTERS, I32))
def ptx_land(machine: Any, thread: Any, at: Any, left: Any) -> Any:
    """Land the copies of all but so many of a thread's closed groups; return 0 if it is wrong."""
    m, t = carray(machine, 1, MACHINE)[0], carray(thread, 1, THREAD)[0]
    copies = carray(pointer(m.copies + t.number * COPIES * COPY_BYTES), COPIES, COPY)
    cells = carray(pointer(m.shared_cells), m.shared_size // WORD + 1, CELL)
    kept = 0
    for k in range(t.copies):
        c = copies[k]
        if c.group >= t.group - left:
            copies[kept] = c
            kept += 1
            continue
        to = carray(pointer(m.shared + c.target), c.size, np.uint8)
        of = carray(pointer(c.source), c.valid, np.uint8)
        to[: c.valid] = of
        to[c.valid :] = 0
        for i in range(c.target // WORD, (c.target + c.size) // WORD):
            cells[i].pending = 0
        if not check_shared(m, t, c.at, c.target, c.size, True, True):
            return 0
    t.copies = kept
    return 1


# --- meetings ------------------------------------------------------------------------------------


@njit
def meet(m: Any, warp: Any) -> Any:
    """Let the lanes of a warp do what they have met for; return whether nothing is wrong."""
    for t in warp:
        if t.state == SHUFFLE or t.state == PRODUCT or t.state == WARP:
            break
    else:
        return True
    for lane in range(len(warp)):
        other = warp[lane]
        if other.state != t.state or other.at != t.at:
            m.other, m.other_at = other.number, other.at
            fail(m, t, t.at, DIVERGED, 0, 0, False)
            return False
    if len(warp) < LANES:
        fail(m, t, t.at, SMALL_WARP, 0, 0, False)
        return False
    if t.state == SHUFFLE:
        given = np.empty(LANES, np.uint32)
        for lane in range(LANES):
            given[lane] = warp[lane].words[0]
        for lane in range(LANES):
            warp[lane].words[0] = given[lane ^ (warp[lane].words[1] & 31)]
    elif t.state == PRODUCT:
        multiply(warp)
    for lane in range(LANES):
        if warp[lane].state == WARP:
            warp[lane].meetings += 1
        warp[lane].state = READY
    return True


@njit
def pass_barrier(m: Any, threads: Any) -> Any:
    """Let a block whose threads all wait at a barrier go on; return whether nothing is wrong."""
    for t in threads:
        if t.state == BARRIER:
            break
    else:
        return True
    for k in range(len(threads)):
        other = threads[k]
        if other.state == READY:  # a warp that has just met
            return True
    for k in range(len(threads)):
        other = threads[k]
        if other.state != BARRIER or other.at != t.at:
            m.other, m.other_at = other.number, other.at
            fail(m, t, t.at, DESERTED, 0, 0, False)
            return False
    for k in range(len(threads)):
        threads[k].state = READY
        threads[k].barriers += 1
    return True


# --- threads -------------------------------------------------------------------------------------


@njit
def shuffle(order: Any, state: Any) -> Any:
    """Put numbers in another order; return the next state of the generator (xorshift)."""
    for i in range(len(order) - 1, 0, -1):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        j = int(state % np.uint64(i + 1))
        order[i], order[j] = order[j], order[i]
    return state


@njit
def run_block(
    m: Any, threads: Any, resume: Any, frames: Any, frame: Any, order: Any, state: Any
) -> Any:
    """Run the threads of a block to their ends; return the next state of the generator."""
    alive = len(threads)
    while alive:
        state = shuffle(order, state)
        for i in order:
            t = threads[i]
            if t.state == READY:
                resume(frames + i * frame)
                if t.state == FAILED:
                    return state
                if t.state == ENDED:
                    alive -= 1
                    if t.copies:
                        fail(m, t, t.at, ABANDONED, 0, 0, False)
                        return state
        for first in range(0, len(threads), LANES):
            if not meet(m, threads[first : first + LANES]):
                return state
        if not pass_barrier(m, threads):
            return state
    return state


@njit
def run_grid(
    machine: Any, threads: Any, shared: Any, grid: Any, start: Any, resume: Any, addresses: Any,
    seed: Any,
) -> None:  # fmt: skip
    """Run the blocks of a grid, one after another, until something goes wrong.

    ``addresses`` are those of the frames, of the first thread, the machine, and the parameters.
    """
    m = machine[0]
    frames, first, own, parameters = addresses
    order = np.arange(len(threads))
    state = np.uint64(0x9E3779B97F4A7C15) * np.uint64(2 * seed + 1)
    frame = threads[0].frame
    for block in range(grid[0] * grid[1] * grid[2]):
        shared[:] = 0xFF
        for i in range(len(threads)):
            t = threads[i]
            t.ctaid[0] = block % grid[0]
            t.ctaid[1] = block // grid[0] % grid[1]
            t.ctaid[2] = block // grid[0] // grid[1]
            t.block = 1 + block
            t.state, t.at = READY, 0
            t.barriers = t.meetings = t.copies = t.group = 0
            start(frames + i * frame, first + i * THREAD_BYTES, own, parameters)
        state = run_block(m, threads, resume, frames, frame, order, state)
        if m.fault != FINE:
            return
