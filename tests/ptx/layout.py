"""What translated kernels and the machine that runs them share: records in memory, and numbers."""

from __future__ import annotations

import numpy as np

READY, SHUFFLE, PRODUCT, WARP, BARRIER, ENDED, FAILED = range(7)
"""What a thread waits for: nothing, the lanes of its warp, its block; or how it ended."""

THREAD = np.dtype(
    [
        ("tid", "u4", 3), ("ntid", "u4", 3), ("ctaid", "u4", 3), ("nctaid", "u4", 3),
        ("laneid", "u4"), ("dynamic_smem_size", "u4"),
        ("number", "i4"),  # in its block
        ("block", "i4"),  # from 1
        ("state", "i4"),
        ("at", "i4"),  # the number of the instruction where it waits
        ("barriers", "i4"),  # of the block that it has passed
        ("meetings", "i4"),  # of its warp, by bar.warp.sync
        ("copies", "i4"),  # that are under way
        ("group", "i4"),  # of copies that is open
        ("words", "u4", 16),  # what it gives to its warp, and gets
        ("frame", "i8"),  # bytes that it needs for its registers
    ],
    align=True,
)  # fmt: skip
"""A thread of the block that runs."""

CELL = np.dtype(
    [
        ("writer", "i4"), ("writer_block", "i4"), ("written", "i4"), ("written_meeting", "i4"),
        ("lowest", "i4"), ("highest", "i4"), ("reader_block", "i4"),
        ("read", "i4"), ("read_meeting", "i4"),
        ("pending", "i4"),
    ]
)  # fmt: skip
"""Who last wrote and read an element, after how many barriers and meetings of the warp.

Block 0 is nobody. ``lowest`` and ``highest`` are the numbers of the threads that read it at once;
``pending`` is 1 + the number of the thread whose copy into it is under way.
"""

ARRAY = np.dtype([("start", "i8"), ("end", "i8"), ("item", "i8"), ("first", "i8")])
"""Where memory of a launch is, how large its elements are, and the first of its cells."""

COPY = np.dtype(
    [("target", "i8"), ("source", "i8"), ("size", "i4"), ("valid", "i4"), ("group", "i4"),
     ("at", "i4")],
    align=True,
)  # fmt: skip
"""A copy to shared memory that is under way."""

COPIES = 256
"""How many copies of a thread can be under way at once."""

WORD = 4
"""Bytes of shared memory that have a cell together."""

MACHINE = np.dtype(
    [
        ("shared", "i8"), ("shared_size", "i8"), ("shared_cells", "i8"),
        ("arrays", "i8"), ("array_count", "i8"), ("cells", "i8"), ("cell_count", "i8"),
        ("copies", "i8"),  # COPIES for each thread
        ("fault", "i4"), ("at", "i4"), ("thread", "i4"), ("writes", "i4"),
        ("other", "i4"), ("other_block", "i4"), ("other_at", "i4"),
        ("address", "i8"), ("size", "i8"),
    ],
    align=True,
)  # fmt: skip
"""Where everything of a launch is, and what went wrong first."""

FAULTS = (
    "nothing went wrong",
    "{access} is outside of the arrays of the launch",
    "{access} is not at a multiple of its size",
    "{access}: nobody has written there",
    "{access}: a copy of thread {other} has not landed there",
    "{access}, a race: {who} wrote there",
    "{access}, a race: {who} read there",
    "a copy of {size} bytes is not known to cp.async",
    "more copies are under way than the executor has room for",
    "lanes of a warp meet at different instructions: lane {other} is at {elsewhere}",
    "the warp has less than 32 lanes, which the instruction counts on",
    "not all threads reach the barrier: thread {other} is at {elsewhere}",
    "it ends while a copy to shared memory is under way",
)
"""What can go wrong in a kernel."""

(
    FINE, OUTSIDE, MISALIGNED, UNWRITTEN, PENDING, WRITTEN, READ, COPY_SIZE, COPY_ROOM, DIVERGED,
    SMALL_WARP, DESERTED, ABANDONED,
) = range(len(FAULTS))  # fmt: skip
